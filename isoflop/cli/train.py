"""`isoflop train`."""

from __future__ import annotations

import functools
import json as json_module
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from isoflop.cli.app import Command, flag_value, positional, with_defaults
from isoflop.cli.worker import serve, serve_together, started_by_torchrun, stop_on_signal, train_silently, watch_parent
from isoflop.config import (
    SPREAD,
    DataConfig,
    ModelConfig,
    OptimConfig,
    RunConfig,
    TrackerName,
    TrainConfig,
    read_run,
    spread_run,
    write_run,
)
from isoflop.places import parse_mix
from isoflop.presets import PresetName, preset

if TYPE_CHECKING:
    from isoflop.lm.run import Run
    from isoflop.lm.train import Progress
    from isoflop.record import Record


def train(
    folder: Positional[str | None] = None,
    *,
    out: str = "runs",
    from_: Annotated[str | None, arg(name="from")] = None,
    decay_to: int | None = None,
    dry_run: bool = False,
    preset: PresetName | None = None,
    threads: int | None = None,
    core: int | None = None,
    json: bool = False,
    data: DataConfig = DataConfig(),  # noqa: B008 - frozen, as the next three
    model: ModelConfig = ModelConfig(),  # noqa: B008
    optim: OptimConfig = OptimConfig(),  # noqa: B008
    train: TrainConfig = TrainConfig(),  # noqa: B008
) -> None:
    """Train a model: `isoflop train --data T --epochs 1` starts a run, `isoflop train DIR` goes on with it.

    A run's folder is named by the hash of its configuration, so the same command finds the same run. Ctrl-C saves a
    checkpoint first. Exactly one of --epochs, --tokens, --flops, --steps gives the length.
    `--devices 2` trains on two devices, as `torchrun --nproc-per-node 2 -m isoflop train DIR` does.
    `--from DIR@STEP --decay-to TOKENS` branches off a run of constant rate, to have its loss at another length too.

    Args:
        folder: Run folder to go on with; `-` trains the folders that come in on standard input, one a line.
        out: Where new run folders are made.
        from_: DIR or DIR@STEP: start from this checkpoint of another run, the newest if no step is named.
        decay_to: Length of that branch, tokens, the other run's part included; the rate falls on all the way.
        dry_run: Show size, length, FLOPs, memory and time, from some seconds of trial, and write nothing.
        preset: Model to start from; flags change single fields of it.
        threads: CPU threads, shared by the devices; None: all cores.
        core: Keep the process on this CPU core.
        json: Print the record as JSON.
        data: Tokens to train and measure on.
        model: Shape.
        optim: Optimizer.
        train: Length and batch.
    """
    together = started_by_torchrun()
    if folder == "-" or together:  # before torch is imported, which takes seconds in which the driver may die as well
        watch_parent()
    place(threads, core)
    if folder == "-":
        return serve_together() if together else serve()
    config = _started(folder, preset, from_, decay_to, Path(out), data, model, optim, train)
    if dry_run:
        from isoflop.cli.dry_run import show

        return show(config or read_run(Path(folder or "")), out=out if config else None, json=json)
    if config is not None:
        folder = str(write_run(config, Path(out)))
    assert folder is not None
    if together and os.environ.get("RANK") != "0":
        return train_silently(Path(folder))
    _tell_end(_train_shown(Path(folder), quiet=json), folder, json=json)


def _prepare_train(args: Sequence[str]) -> Command:
    """Let a run's own configuration, or --preset and the vocabulary of --data, be what single flags change."""
    name, data, trunk = (flag_value(args, flag) for flag in ("--preset", "--data", "--from"))
    folder = positional(args, train)
    if trunk is not None:
        from isoflop.lm.branch import parse_place

        folder = str(parse_place(trunk)[0])
        read_run(Path(folder))
    if folder is not None and (Path(folder) / "config.json").exists():
        run = read_run(Path(folder))
        return with_defaults(train, data=run.data, model=run.model, optim=run.optim, train=run.train)
    shape = preset(name) if name else ModelConfig()
    mixed = next(iter(parse_mix(flag_value(args, "--mix"))), "")
    if (data or mixed) and (vocab_size := vocabulary(Path(data or "") / mixed, flag_value(args, "--tokenizer-file"))):
        shape = replace(shape, vocab_size=vocab_size)
    return with_defaults(train, model=shape)


def vocabulary(data: Path, tokenizer: str | None) -> int | None:
    """Ids of a token folder, or of the tokenizer of a raw file; None where nothing says them."""
    from isoflop.data.tokenizer import load_tokenizer
    from isoflop.data.tokens import META, read_meta

    if (data / META).exists():
        return int(read_meta(data)["vocab_size"])
    return load_tokenizer(Path(tokenizer)).vocab_size if tokenizer else None


train.prepare = _prepare_train  # type: ignore[attr-defined]


def place(threads: int | None, core: int | None = None) -> None:
    """Pin the process, and let its threads spin but briefly while they wait, before torch starts them.

    Threads that spin on at every barrier steal the cores from each other as soon as anything else runs: a run of width
    72 on two busy cores took 260 s, 14 s so; threads that sleep at once are slower on a quiet machine (docs/log.md).
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if core is not None and hasattr(os, "sched_setaffinity"):
        try:
            os.sched_setaffinity(0, {core})
        except (OSError, ValueError, OverflowError):
            raise ValueError(
                f"core={core} is no CPU core of this machine; it has 0 to {(os.cpu_count() or 1) - 1}"
            ) from None
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads={threads} must be at least 1")
        import torch

        torch.set_num_threads(threads)


def _started(
    folder: str | None, preset: str | None, from_: str | None, decay_to: int | None, out: Path, *parts: Any
) -> RunConfig | None:
    """Return the run that a command starts; None where it goes on with the one of a folder, as that is."""
    if (from_ is None) != (decay_to is None):
        raise ValueError("a branch needs both --from DIR@STEP and --decay-to TOKENS; give the other one too")
    if from_ is not None and decay_to is not None:
        if folder is not None or preset is not None:
            raise ValueError(f"--from {from_} starts a run of its own; leave {folder or f'--preset {preset}'} out")
        return _branch(from_, decay_to, out, *parts)
    if folder is None:
        return _new_run(*parts)
    if told := _changes(Path(folder), preset, *parts):
        raise ValueError(
            f"{folder} goes on with the configuration it was started with, but the command gives {told}; leave that "
            "out, or start another run"
        )
    if os.environ.get("RANK", "0") == "0":
        spread_run(Path(folder), parts[-1])
    return None


def _new_run(data: DataConfig, model: ModelConfig, optim: OptimConfig, train: TrainConfig) -> RunConfig:
    if not data.data and not data.mix:
        raise ValueError(
            "no data was given; --data T names a token folder made by `isoflop data`, or a raw file of ids"
        )
    from isoflop.data.tokens import open_configured, open_stream
    from isoflop.flops import train_steps
    from isoflop.lm.tracker import check_trackers

    check_trackers(train.trackers)
    tokens = open_configured(data, vocab_size=model.vocab_size)
    train_steps(model, train, train_tokens=tokens.train_tokens)
    config = RunConfig(model=model, data=data, optim=optim, train=train, data_sha256=tokens.fingerprint)
    open_stream(config, tokens)
    return config


def _branch(place: str, decay_to: int, out: Path, *parts: Any) -> RunConfig:
    """Return the run that goes on from another's checkpoint and decays; what is given besides may not change it."""
    from isoflop.lm import checkpoint
    from isoflop.lm.branch import branch, parse_place
    from isoflop.lm.run import open_data

    trunk, step = parse_place(place)
    config = read_run(trunk)
    given = replace(config, **dict(zip(("data", "model", "optim", "train"), parts, strict=True)))
    if told := given.differences(config):
        raise ValueError(
            f"a branch keeps the recipe of its trunk {trunk}, but the command gives {', '.join(told)}; leave that out"
        )
    step = checkpoint.load_required(trunk).step if step is None else checkpoint.load_step(trunk, step).step
    train_tokens = open_data(given).train_tokens
    away = os.path.relpath(trunk, out / config.id)
    return branch(given, step, tokens=decay_to, train_tokens=train_tokens, folder=away)


def _parts(folder: Path) -> tuple[object, ...]:
    run = read_run(folder)
    return run.data, run.model, run.optim, run.train


def _changes(folder: Path, preset: str | None, *parts: Any) -> str:
    """List the fields of a command that differ from a run's own."""
    told = [f"--preset {preset}"] if preset is not None else []
    for mine, theirs in zip(parts, _parts(folder), strict=True):
        kept = asdict(theirs)  # type: ignore[call-overload]
        told += [
            f"{name}={value!r} (there {kept[name]!r})"
            for name, value in asdict(mine).items()
            if value != kept[name] and name not in SPREAD
        ]
    return ", ".join(told)


def _train_shown(folder: Path, *, quiet: bool) -> Record:
    from isoflop.lm.torchrun import train_together

    done = (folder / "record.json").exists()
    with stop_on_signal() as should_stop, _bar(folder, quiet=quiet or done) as show:
        record = train_together(folder, on_progress=show, on_start=_tell_start, should_stop=should_stop)
    if record is None:
        print(f"isoflop: checkpoint saved; `isoflop train {folder}` goes on", file=sys.stderr)
        sys.exit(130)
    if done:
        print(f"isoflop: {folder} had finished before; nothing was trained", file=sys.stderr)
    if not quiet:
        from isoflop.report.figures import draw_training

        draw_training(folder)
    return record


def _tell_start(run: Run) -> None:
    if run.done:
        trunk = run.config.trunk
        begins = trunk is not None and run.done == trunk.step
        said = f"branches off {trunk.run}" if trunk is not None and begins else "goes on"
        print(f"isoflop: {run.folder} {said} at step {run.done:,} of {run.steps:,}", file=sys.stderr)


@contextmanager
def _bar(folder: Path, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """Show progress: loss, perplexity, speed, share of this machine's fp32 peak (MFU), memory, time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from isoflop.flops import compute
    from isoflop.lm.kernels import measure_peak_flops

    per_token = compute(read_run(folder).model)
    peak = functools.cache(measure_peak_flops)  # a tenth of a second, not spent before the first step
    words = TextColumn("{task.fields[said]}")
    # narrow enough that the time left is seen on a terminal of 80 columns
    columns = (BarColumn(bar_width=6), MofNCompleteColumn(), words, TimeRemainingColumn(compact=True))
    with Bar(*columns, console=Console(stderr=True), disable=quiet) as bar:
        task = bar.add_task(folder.name, total=None, said="")

        def show(now: Progress) -> None:
            if quiet:
                return
            said = (
                f"loss {now.loss:.3f} · ppl {now.perplexity:.4g} · {now.tokens_per_second / 1e3:.3g}k tok/s · "
                f"MFU {now.tokens_per_second * per_token / peak():.0%} · {now.memory_bytes / 1e9:.2f} GB"
            )
            bar.update(task, completed=now.step, total=now.steps, said=said)

        yield show


def _tell_end(record: Record, folder: str, *, json: bool) -> None:
    """Print the record; leave with exit code 1 where the loss ran away."""
    print(json_module.dumps(asdict(record)) if json else _summary(record, folder))
    for name in () if json else read_run(Path(folder)).train.trackers:
        print(TRACKED[name].format(folder=shlex.quote(folder)))
    if record.status == "diverged":
        print("isoflop: a lower --lr, a longer --warmup-steps or a --grad-clip keep the loss in hand", file=sys.stderr)
        sys.exit(1)


TRACKED: Mapping[TrackerName, str] = {
    "tensorboard": "TensorBoard: its event files lie in {folder}; `tensorboard --logdir {folder}` shows them",
    "wandb": "W&B: its files lie in {folder}/wandb",
}
"""Where a tracker's files are, said when training ends."""


def _summary(record: Record, folder: str) -> str:
    if record.status != "complete":
        return (
            f"{record.id}: {record.status} at step {record.measured['steps']}: {record.measured['diverged']} · {folder}"
        )
    measured = record.measured
    bits = "" if measured["bits_per_byte"] is None else f" ({measured['bits_per_byte']:.4f} bits per byte)"
    return (
        f"{record.id}: validation loss {record.loss:.4f} nats per token{bits}, perplexity "
        f"{measured['perplexity']:.3f}\n"
        f"N {record.params['compute']:.4g} (compute count) · D {record.tokens:.4g} tokens · C {record.flops:.4g} "
        f"FLOPs · {measured['seconds']:.0f} s · {folder}"
    )
