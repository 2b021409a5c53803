"""The coordinate check that a transferred rate has to pass: made once for a study's base model, kept in its folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from isoflop.config import RunConfig, read_run
from isoflop.files import read_json, write_json
from isoflop.law.transfer import CHECKED_OPTIM, CHECKED_TRAIN, Coordinates, Verdict, judge
from isoflop.lm.coordinates import measure, tasks
from isoflop.record import Record

FILE = "coordcheck.json"
TIMES = (1, 2, 4, 8, 16)
"""Widths and depths of the check, in those of the base model (SCIENCE: over ×16)."""
SEEDS = 3


def gate(
    folder: Path,
    runs: Sequence[Record],
    *,
    progress: Callable[[int], AbstractContextManager[Callable[[], None]]],
) -> list[Verdict]:
    """Return what the check says of the parametrizations of these runs, measured now unless the folder has it.

    Nothing is said where there is none but the standard one, or where the runs' folders or tokens are elsewhere.
    """
    kinds = sorted({str(run.config["model"].get("parametrization", "standard")) for run in runs if run.config})
    base = _base(folder, runs)
    if base is None or kinds == ["standard"]:
        return []
    model = base.model
    todo = tasks(kinds, [n * model.d_model for n in TIMES], [n * model.num_layers for n in TIMES])  # type: ignore[arg-type]
    known = _kept(folder / FILE, base.id)
    checked = [known[name, axis] for name, axis, _ in todo if (name, axis) in known]
    if len(checked) < len(todo):
        with progress(sum(len(sizes) for *_, sizes in todo) * SEEDS) as advance:
            checked = [measure(base, *task, seeds=SEEDS, on_run=advance) for task in todo]
        write_json(folder / FILE, {"base": base.id, "checked": [one.to_dict() for one in checked]})
    return judge(checked)


def _base(folder: Path, runs: Sequence[Record]) -> RunConfig | None:
    """Return the run of the smallest model as the check trains it, or nothing where it is not here."""
    here = [run for run in runs if run.config and (folder / "runs" / run.id / "config.json").exists()]
    if not here:
        return None
    least = min(here, key=lambda run: (run.config["model"]["d_model"], run.config["model"]["num_layers"]))
    config = read_run(folder / "runs" / least.id)
    if config.data.mix or not Path(config.data.data).exists():
        return None
    return replace(
        config,
        model=config.model.carried_over("standard", config.model),
        data=replace(config.data, val_tokens=1),
        optim=CHECKED_OPTIM,
        train=CHECKED_TRAIN,
        trunk=None,
    )


def _kept(path: Path, base: str) -> dict[tuple[str, str], Coordinates]:
    """Read what was measured of this base model."""
    if not path.exists() or (kept := read_json(path))["base"] != base:
        return {}
    read = map(Coordinates.from_dict, kept["checked"])
    return {(one.parametrization, one.axis): one for one in read}
