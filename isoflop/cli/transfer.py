"""`isoflop coordcheck`, `isoflop lr-sweep`."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.architecture import ParametrizationKind
from isoflop.config import DataConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.counts import number_of
from isoflop.law.transfer import CHECKED_OPTIM, CHECKED_TRAIN
from isoflop.presets import PresetName
from isoflop.presets import preset as preset_model
from isoflop.report.words import Lang

if TYPE_CHECKING:
    from isoflop.law.transfer import Coordinates, Transfer, Verdict
    from isoflop.study.drive import Planned


def coordcheck(
    *,
    parametrization: tuple[ParametrizationKind, ...] = ("standard", "mup", "completep"),
    widths: tuple[int, ...] = (32, 64, 128, 256, 512),
    depths: tuple[int, ...] = (2, 4, 8, 16, 32),
    seeds: int = 3,
    preset: PresetName = "small",
    model_config: str | None = None,
    threads: int | None = None,
    out: str | None = None,
    lang: Lang = "en",
    json: bool = False,
    data: DataConfig = DataConfig(val_tokens=1),  # noqa: B008 - frozen, as the next three
    optim: OptimConfig = CHECKED_OPTIM,
    train: TrainConfig = CHECKED_TRAIN,
) -> None:
    """Check that activations keep their size as a model grows: `isoflop coordcheck --data T`.

    Trains models of all widths, and of all depths at the least width, for a few steps at a large constant rate, and
    lays a line through ln mean |activation| against ln size after each block and at the logits. A parametrization
    passes where its slopes lie within ±0.1 at the places where those of the standard one, the control, exceed 0.3.
    Exit code 1: one does not pass.

    Args:
        parametrization: Which to check; standard, the control, always is.
        widths: d_model; the first is the base model's.
        depths: num_layers; the first is the base model's. One depth alone is not checked, but kept.
        seeds: Models of each size.
        preset: Model whose width and depth are varied; small is meant for widths of 16 to 512.
        model_config: JSON file with the fields of another model, or a run's config.json.
        threads: CPU threads; None: all cores.
        out: File for the figure; None: coordcheck.png here.
        lang: Language of the figure.
        json: Print activations, slopes and verdicts as JSON.
        data: Tokens.
        optim: Optimizer.
        train: Steps and batch.
    """
    from isoflop.cli.train import place

    place(threads)
    from isoflop.files import write_bytes
    from isoflop.law.transfer import judge
    from isoflop.report.axes import panels
    from isoflop.report.transfer import activations

    run, _ = _base(preset, model_config, data, optim, train)
    checked = _measured(run, parametrization, widths, depths, seeds, quiet=json)
    verdicts, path = judge(checked), Path(out or "coordcheck.png")
    write_bytes(path, panels([partial(activations, one, lang=lang) for one in checked], lang))
    if json:
        told = {"checks": [one.to_dict() for one in checked], "verdicts": [asdict(one) for one in verdicts]}
        print(json_module.dumps({**told, "figure": str(path)}))
    else:
        print("\n\n".join([*map(_slopes, checked), _verdicts(verdicts), f"drawn in {path}"]))
    if not all(verdict.passed for verdict in verdicts):
        sys.exit(1)


def lr_sweep(
    *,
    parametrization: tuple[ParametrizationKind, ...] = ("standard", "mup"),
    rates: tuple[float, ...] = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032),
    widths: tuple[int, ...] = (32, 64, 128),
    depths: tuple[int, ...] = (),
    seeds: int = 1,
    preset: PresetName = "small",
    model_config: str | None = None,
    workers: int | None = None,
    out: str = "lr-sweep",
    lang: Lang = "en",
    json: bool = False,
    data: DataConfig = DataConfig(),  # noqa: B008
    optim: OptimConfig = OptimConfig(lr_width=None),  # noqa: B008
    train: TrainConfig = TrainConfig(batch_size=8),  # noqa: B008
) -> None:
    """Find the best rate of a small model and see what it costs larger ones: `isoflop lr-sweep --data T --steps 500`.

    Every rate is trained at every width (and depth), under each parametrization, in run folders below --out; what is
    done is never redone, so the same command goes on, and one with more rates adds to it. A rate transfers where it
    costs a larger model at most 0.02 nats, or two standard deviations between seeds, over that model's own best one,
    and wider models are better at it.

    Args:
        parametrization: Which to compare; standard leaves the rate as it is, unless --lr-width is given.
        rates: Peak rates of the base model.
        widths: d_model; the least is the base model's.
        depths: num_layers, each at every width; none: the model's own.
        seeds: Runs of each.
        preset: Model whose width and depth are varied; small is meant for widths of 16 to 512.
        model_config: JSON file with the fields of another model, or a run's config.json.
        workers: Processes; None: one a core.
        out: Folder of the runs and the figure.
        lang: Language of the figure.
        json: Print what was found of each parametrization as JSON.
        data: Tokens.
        optim: Optimizer.
        train: Length and batch.
    """
    from isoflop.files import write_bytes
    from isoflop.law.transfer import transfer
    from isoflop.report.axes import panels
    from isoflop.report.transfer import rates as draw
    from isoflop.study.sweep import Sweep, plan

    base, train_tokens = _base(preset, model_config, data, optim, train)
    varied: dict[str, Any] = {"widths": widths, "depths": depths, "rates": rates, "seeds": seeds}
    sweep = Sweep(base=base, parametrizations=parametrization, **varied)
    planned = plan(sweep, Path(out), train_tokens=train_tokens)
    _trained(planned, workers, quiet=json)
    found, path = transfer([one.record for one in planned if one.record]), Path(out) / "lr-sweep.png"
    write_bytes(path, panels([partial(draw, one, lang=lang) for one in found], lang))
    if json:
        told = {"parametrizations": [one.to_dict() for one in found], "runs": len(planned), "figure": str(path)}
        print(json_module.dumps(told))
    else:
        print("\n\n".join([*map(_table, found), f"{number_of(len(planned), 'run')} in {out}; drawn in {path}"]))


_ENDS = ("done", "diverged")


def _trained(planned: Sequence[Planned], workers: int | None, *, quiet: bool) -> None:
    """Train what is not done yet; leave with exit code 1 where a run was lost."""
    from isoflop.study.drive import drive

    todo = [one for one in planned if one.record is None]
    with progress(len(todo), quiet=quiet or not todo) as advance:
        lost = drive(planned, workers=workers, on_event=lambda event: advance() if event.kind in _ENDS else None)
    for event in lost:
        print(f"isoflop: {event.run.name} {event.kind}: {event.reason}", file=sys.stderr)
    if lost:
        print("isoflop: the same command tries these runs again", file=sys.stderr)
        sys.exit(1)


def _base(
    name: PresetName, model_config: str | None, data: DataConfig, optim: OptimConfig, train: TrainConfig
) -> tuple[RunConfig, int]:
    """Return the run that all others are made of, and the number of training tokens."""
    if not data.data:
        raise ValueError("no data was given; --data T names a token folder made by `isoflop data`")
    from isoflop.cli.target import read_model
    from isoflop.cli.train import vocabulary
    from isoflop.data.tokens import open_configured

    model = read_model(Path(model_config)) if model_config else preset_model(name)
    model = model.carried_over("standard", model)
    if vocab_size := vocabulary(Path(data.data), data.tokenizer_file):
        model = replace(model, vocab_size=vocab_size)
    tokens = open_configured(data, vocab_size=model.vocab_size)
    parts: dict[str, Any] = {"model": model, "data": data, "optim": optim, "train": train}
    return RunConfig(**parts, data_sha256=tokens.fingerprint), tokens.train_tokens


def _measured(
    run: RunConfig,
    parametrization: tuple[ParametrizationKind, ...],
    widths: tuple[int, ...],
    depths: tuple[int, ...],
    seeds: int,
    *,
    quiet: bool,
) -> list[Coordinates]:
    """Measure each parametrization along the axes that it takes care of, and the control along all."""
    from isoflop.lm.coordinates import measure, tasks

    base = replace(run, model=replace(run.model, d_model=widths[0], num_layers=(*depths, run.model.num_layers)[0]))
    todo, checked = tasks(parametrization, widths, depths), []
    with progress(sum(len(sizes) for *_, sizes in todo) * seeds, quiet=quiet) as advance:
        for name, axis, sizes in todo:
            checked.append(measure(base, name, axis, sizes, seeds=seeds, on_run=advance))
    return checked


@contextmanager
def progress(runs: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """Show how many runs are done; what is given back is called after each."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task("runs", total=runs)
        yield lambda: bar.advance(task)


def _slopes(one: Coordinates) -> str:
    sizes = " ".join(map(str, one.sizes))
    name = "d_model" if one.axis == "width" else "num_layers"
    lines = [f"{one.parametrization}: slope of ln mean |activation| against ln {name} ({sizes})"]
    lines.append(f"  {'updates':>7} " + " ".join(f"{place:>10}" for place in one.places))
    for step, row in enumerate(one.slopes):
        lines.append(f"  {step:>7} " + " ".join(f"{slope:>+10.2f}" for slope in row))
    return "\n".join(lines)


def _verdicts(verdicts: Sequence[Verdict]) -> str:
    lines = []
    for one in verdicts:
        if one.passed is None:
            said = f"not decided: the control's slopes stay below 0.3 too ({one.control:+.2f}); give a larger --lr"
        else:
            said = (
                f"{'passes' if one.passed else 'FAILS'}: {one.slope:+.2f} where the control reaches {one.control:+.2f}"
            )
        lines.append(f"{one.parametrization}, {one.axis}: {said}")
    return "\n".join(lines)


def _table(one: Transfer) -> str:
    noise = "one seed" if one.noise is None else f"seeds ±{one.noise:.4f}"
    lines = [
        f"{one.parametrization}: {one.why}",
        f"  rate carried over {one.rate:g}; regret allowed {one.tolerance:.3f} nats ({noise})",
        f"  {'d_model':>7} {'layers':>6} {'best rate':>10} {'loss':>8} {'at the carried':>14} {'regret':>7}",
    ]
    for size in one.sizes:
        mark = " (last tried)" if size.edge else ""
        lines.append(
            f"  {size.d_model:>7} {size.num_layers:>6} {size.best:>10.4g} {min(size.losses):>8.4f} "
            f"{size.carried:>14.4f} {size.regret:>7.4f}{mark}"
        )
    return "\n".join(lines)
