"""`isoflop next`, and the commands that train what it advises."""

from __future__ import annotations

import json as json_module
import math
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.cli.hardware import HARDWARE, Hardware
from isoflop.cli.plan import basis_of
from isoflop.cli.target import Count, counting
from isoflop.config import LENGTHS, PARTS, ModelConfig, RunConfig
from isoflop.counts import number_of
from isoflop.flops import compute, params_by_convention
from isoflop.law.laws import LAWS
from isoflop.law.shape import family
from isoflop.presets import PRESETS, preset
from isoflop.sources.columns import GUESSED, Columns

if TYPE_CHECKING:
    from isoflop.law.advise import Advice, Run
    from isoflop.law.fit import Fit
    from isoflop.record import Records

PLACES = frozenset(
    {"val", "tokenizer_file", "device", "eval_every", "log_every", "checkpoint_every", "keep_last", "trackers"}
)
"""Fields that say where and how often a run writes, which whoever pastes the command decides; data is needed."""


@dataclass(frozen=True, kw_only=True)
class Going:
    """How far rounds of runs go."""

    rounds: int = 3
    """Most rounds; each spends its share of what is left of --flops."""
    until_width: float | None = None
    """Stop when the forecast's 90 % interval lies within ± this part of the loss, such as 0.02; None: go on."""
    workers: int | None = None
    """Runs at once; None: one a GPU or a core."""
    all_rounds: bool = False
    """Print the rounds of earlier calls again; else only that they were."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or (self.until_width is not None and not self.until_width > 0):
            raise ValueError(f"rounds={self.rounds} must be 1 or more, and until_width={self.until_width} above 0")


GOING = Going()


def next_runs(
    source: Positional[str],
    *,
    flops: float | None = None,
    hardware: Hardware = HARDWARE,
    law: str = "chinchilla",
    target: float | None = None,
    overhead: float | None = None,
    noise: float | None = None,
    smallest: float | None = None,
    most: int | None = None,
    params_count: Count | None = None,
    series: str | None = None,
    columns: Columns = GUESSED,
    run: bool = False,
    going: Going = GOING,
    json: bool = False,
) -> None:
    """Choose the runs to train next: those that tell most, for their FLOPs, of losses ahead and of the optimal size.

    The first run takes a fifth of the FLOPs and tests the law, farther out where that is a far run. The others are
    chosen greedily; runs that branch from a trunk of SOURCE (column or field `group`) cost only what the trunk lacks.
    Of a study of ours each run comes with the command that trains it by the same recipe; `--run` trains them in the
    study's folder, fits again and proposes again, until --flops are spent. What is done is never redone.

    Args:
        source: The runs so far: a study's folder, a table, or a fit.json.
        flops: FLOPs to spend on all of them.
        hardware: The same as time of devices.
        law: Law of N and D that is fitted, such as chinchilla or coupled; a fit.json has its own.
        target: FLOPs of the forecast that they should improve; None: ten times the largest run, the new ones included.
        overhead: FLOPs that a run costs beside its own; None: a three-hundredth of --flops.
        noise: Standard deviation of ln loss between equal runs; None: from the residuals of the fit.
        smallest: Fewest FLOPs of a run; None: SOURCE's smallest. Fewer takes the law on trust there.
        most: Most runs; None: as many as the FLOPs pay for.
        params_count: How N is counted in own runs, or what the N of a table means; None: as the source says.
        series: The series of a table that holds several.
        columns: Which columns mean what, where their names do not tell.
        run: Train the runs, in rounds: SOURCE is a study's folder, and --flops pay for all its rounds together.
        going: How far rounds go.
        json: Print the advice as JSON; with --run, all rounds at the end.
    """
    from isoflop.law.advise import advise

    allowance = hardware.flops(flops)
    if law not in LAWS:
        raise ValueError(f"--law {law} is not known; choose one of {', '.join(LAWS)}")
    given = (target, overhead, noise, smallest, most)
    wishes: dict[str, Any] = dict(zip(("target", "overhead", "noise", "smallest", "most"), given, strict=True))
    if run:
        if params_count not in (None, "compute") or series is not None or columns != GUESSED:
            raise ValueError("--run counts N as compute, and a study has no columns; leave these options out")
        return _train(Path(source), going, hardware, allowance=allowance, law=law, json=json, **wishes)
    if going != GOING:
        raise ValueError("--rounds, --workers and the like belong to --run; add it, or leave them out")
    basis = basis_of(source, None, count=params_count, series=series, columns=columns, form=law, bootstrap=0)
    fit = basis.fit
    assert fit is not None
    told = advise(fit, allowance, **wishes)
    _tell(told, fit, basis.notes, _out(source), hardware, json=json)


def _train(folder: Path, going: Going, hardware: Hardware, *, allowance: float, **wishes: Any) -> None:
    from isoflop.cli.rounds import run_rounds

    print("".join(f"the allowance: {line}\n" for line in hardware.told(allowance)), end="", file=sys.stderr)
    run_rounds(folder, going, allowance=allowance, **wishes)


def _tell(told: Advice, fit: Fit, notes: tuple[str, ...], out: str, hardware: Hardware, *, json: bool) -> None:
    recipe = _recipe(fit.records)
    if recipe is not None:
        told = replace(told, runs=_joined(_real(one, fit, recipe) for one in told.runs))
    if json:
        first = _fresh_seed(fit.records)
        seeds: Counter[Run] = Counter()
        rows = []
        for one in told.runs:
            rows.append({**asdict(one), **_trained(one, fit.records, recipe, out, f"{first + seeds[one]}")})
            seeds[one] += 1
        print(json_module.dumps({**asdict(told), "runs": rows, **hardware.bill(told.spent)}))
    else:
        bill = [f"  together: {line}" for line in hardware.told(told.spent)]
        print(_advice(told, fit, recipe, out, notes, bill))


def _joined(runs: Iterable[Run]) -> tuple[Run, ...]:
    """Let runs that are built alike have one reason, that of the first, so that they are counted together."""
    known: dict[tuple[object, ...], Run] = {}
    return tuple(known.setdefault((run.params, run.tokens, run.flops, run.group), run) for run in runs)


def _fresh_seed(records: Records) -> int:
    """Return a seed that none of the runs has, nor any after it, so that each new run is another draw."""
    seeds = [run.config.get("train", {}).get("seed", 0) for run in records.runs if run.config]
    return 1 + max(seeds, default=-1)


def _out(source: str) -> str:
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    return str(folder / "runs") if (folder / "runs").is_dir() else str(folder)


def _recipe(records: Records) -> RunConfig | None:
    """Return what the runs share, where they know their own configuration: that of the last one."""
    known = [run.config for run in records.runs if set(PARTS) <= set(run.config)]
    return RunConfig.from_dict({"data_sha256": "", **known[-1]}) if len(known) == len(records) else None


def _near(N: float, records: Records, recipe: RunConfig) -> ModelConfig:
    """Return the model nearest to N with the parts of the runs, and their layers, or their aspect where layers vary."""
    base = recipe.model
    theirs = family([run.config["model"] for run in records.runs])
    grain = math.lcm(2 * (base.num_heads or 1), 4)

    def model(width: int) -> ModelConfig:
        ff = None if base.d_ff is None else round(width * base.d_ff / base.d_model)
        layers = theirs.num_layers or max(1, round(width / theirs.aspect))
        return replace(base, d_model=width, num_layers=layers, d_ff=ff)

    def away(width: int) -> float:
        return abs(math.log(params_by_convention(model(width))[records.convention] / N))

    width = grain
    while away(width + grain) < away(width):
        width += grain
    return model(width)


def _real(run: Run, fit: Fit, recipe: RunConfig) -> Run:
    """Return the run as it can be built; a branch keeps the size of its trunk."""
    if run.group is not None:
        return run
    model = _near(run.params, fit.records, recipe)
    N, D = params_by_convention(model)[fit.records.convention], run.flops / compute(model)
    loss = LAWS[fit.law].loss(fit.values, N=N, D=D, C=run.flops)
    return replace(run, params=N, tokens=D, loss=float(loss))


def _trained(run: Run, records: Records, recipe: RunConfig | None, out: str, seed: str) -> dict[str, Any]:
    """Return the shape of a run and the command that trains it; nulls where the runs do not know their recipe."""
    if recipe is None or run.group is not None:
        return {"d_model": None, "num_layers": None, "num_heads": None, "command": None}
    model = _near(run.params, records, recipe)
    shape = {"d_model": model.d_model, "num_layers": model.num_layers, "num_heads": model.heads}
    return shape | {"command": train_command(replace(recipe, model=model), run.flops, out=out, seed=seed)}


def train_command(recipe: RunConfig, flops: float, *, out: str, seed: str) -> str:
    """Write the `isoflop train` that makes a run of so many FLOPs by a recipe."""
    bases = {name: asdict(preset(name)) for name in PRESETS} | {"": asdict(ModelConfig())}
    model = asdict(recipe.model)
    name = min(bases, key=lambda name: (sum(model[key] != value for key, value in bases[name].items()), name))
    words = ["isoflop", "train", *(["--preset", name] if name else [])]
    for part, base in {"model": bases[name], "data": None, "optim": None, "train": None}.items():
        kept = asdict(PARTS[part]()) if base is None else base
        mine = asdict(getattr(recipe, part))
        for field in fields(PARTS[part]):
            if field.name in PLACES or field.name in LENGTHS or field.name == "seed":
                continue
            if mine[field.name] != kept[field.name]:
                words += _flag(field.name, mine[field.name])
    return " ".join([*words, "--flops", f"{flops:.6g}", "--seed", seed, "--out", out])


def _flag(name: str, value: Any) -> list[str]:
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return [f"--{flag}" if value else f"--no-{flag}"]
    return [f"--{flag}", f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)]


def _advice(told: Advice, fit: Fit, recipe: RunConfig | None, out: str, notes: tuple[str, ...], bill: list[str]) -> str:
    records = fit.records
    shape = "" if recipe is None else f" {'d_model':>7} {'layers':>6} {'heads':>5}"
    lines = [
        f"{number_of(len(told.runs), 'run')} for {told.spent:.3g} of {told.allowance:.3g} FLOPs, after those of "
        f"{records.source}; {fit.law}, N {counting(records.convention)}; noise of ln loss {told.noise:.2g}",
        "",
        f"  {'times':>5}{shape} {'N':>9} {'tokens':>9} {'FLOPs':>9} {'loss':>8}  for",
    ]
    commands, first = [], _fresh_seed(records)
    for run, times in Counter(told.runs).items():
        seeds = " ".join(f"{first + seed}" for seed in range(times))
        made = _trained(run, records, recipe, out, f"{first}" if times == 1 else "$s")
        if made["command"] is not None:
            commands.append(made["command"] if times == 1 else f"for s in {seeds}; do {made['command']}; done")
        columns = [
            f"{made[name] or '-':>{wide}}" for name, wide in (("d_model", 7), ("num_layers", 6), ("num_heads", 5))
        ]
        trunk = "" if run.group is None else f", a branch of {run.group}"
        lines.append(
            f"  {times:>5} {''.join(f'{column} ' for column in columns) if recipe else ''}{run.params:>9.3g} "
            f"{run.tokens:>9.3g} {run.flops:>9.3g} {run.loss:>8.4f}  {run.why}{trunk}"
        )
    lines += ["", *bill, *_meant(told), *(f"  note: {note}" for note in (*notes, *told.notes))]
    return "\n".join(lines + (["", *commands] if commands else []))


def _meant(told: Advice) -> list[str]:
    far = told.runs[0]
    low, high = far.loss * math.exp(-2 * told.far_sd), far.loss * math.exp(2 * told.far_sd)
    return [
        f"  standard deviations at {told.target:.3g} FLOPs, expected if the law holds:",
        f"    ln loss  {told.loss_sd[0]:.4f} → {told.loss_sd[1]:.4f}",
        f"    ln N*    {told.size_sd[0]:.3f} → {told.size_sd[1]:.3f}",
        f"  the first run contradicts the law if its loss lies outside {low:.4f} to {high:.4f} (two deviations)",
    ]
