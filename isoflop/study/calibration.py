"""Every forecast that was written down, found again: which intervals held, and how many should have."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from isoflop.files import read_json, sha256, write_json
from isoflop.record import Record
from isoflop.study.locked import FORECAST, Locked, Score, read_locked, read_target

MARKS = (b'"params_convention"', b'"low"', b'"level"')
"""What stands in the first bytes of a forecast under any name."""
PEEK = 600
"""Bytes that are looked at for them."""
PASSED_BY = frozenset({"node_modules", "site-packages"})
"""Folders, beside hidden ones and those of single runs, where no forecast is looked for."""
LIKELY = 0.9
"""How likely it is that right intervals hold as often as is said, at least."""
SAME_SHAPE = 0.1
"""A run is the one forecast if its N and D lie this near: a real shape seldom has the N that was asked for."""
SAME_COST = 0.02
"""A run is the one that was forecast if its FLOPs lie within this part of those forecast."""


@dataclass(frozen=True)
class Outcome:
    """What became of one forecast."""

    path: Path
    locked: Locked
    score: Score | None
    """None: not measured."""
    lacks: str | None
    """Why there is no score."""
    changed: tuple[str, ...]
    """Inputs that are not as they were when the forecast was made."""

    @property
    def name(self) -> str:
        """The study's folder, or the file of a forecast that stands alone."""
        return str(self.path.parent if self.path.name == FORECAST and self.locked.run is not None else self.path)


@dataclass(frozen=True)
class Calibration:
    """How a set of forecasts held."""

    inside: int
    of: int
    expected: tuple[int, int]
    """As many of the intervals hold, nine times in ten, if they are right: the binomial's central part."""
    median_abs_rel_error: float
    interval_score: float
    """Mean in ln L: the width, and 2/(1 − level) times how far outside (Gneiting & Raftery 2007, section 6.2)."""

    @property
    def verdict(self) -> str:
        """Say what the count means."""
        low, high = self.expected
        if self.inside < low:
            return "so these are too narrow"
        return "so these are too wide" if self.inside > high else "as chance allows"


def find(places: Sequence[Path]) -> list[Path]:
    """Return the forecasts among files, and below folders, each once.

    Raises:
        ValueError: a place does not exist, or has no forecast below it.
    """
    found: dict[Path, Path] = {}
    for place in places:
        if not place.exists():
            raise ValueError(f"{place} does not exist; `isoflop lock` writes a forecast down before its run")
        here = [place] if place.is_file() else list(_below(place))
        if not here:
            raise ValueError(f"{place} has no forecast in it; `isoflop lock` writes one down before its run")
        for path in here:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _below(place: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(place):
        runs = {"runs", "target"} if "study.json" in files else set()
        folders[:] = sorted(name for name in folders if not _passed_by(Path(folder, name), runs))
        for name in sorted(files):
            if name == FORECAST or name.endswith(f".{FORECAST}") or (name.endswith(".json") and _marked(folder, name)):
                yield Path(folder, name)


def _passed_by(folder: Path, runs: set[str]) -> bool:
    return (
        folder.name.startswith(".")
        or folder.name in PASSED_BY | runs
        or (folder / "config.json").exists()
        or (folder / "record.json").exists()
    )


def _marked(folder: str, name: str) -> bool:
    try:
        with Path(folder, name).open("rb") as file:
            start = file.read(PEEK)
    except OSError:
        return False
    return all(mark in start for mark in MARKS)


def look(path: Path) -> Outcome:
    """Read a forecast and, if there is one, what was measured.

    Raises:
        ValueError: the file is no forecast, or what was measured is of another one.
    """
    locked = read_locked(path)
    changed = tuple(locked.changed(path.parent))
    if (loss := _kept(path)) is not None:
        return Outcome(path, locked, Score(locked, loss), None, changed)
    record = read_target(path.parent, locked)
    if record is None:
        how = (
            f"`isoflop study run {path.parent} --target` trains it"
            if locked.run is not None
            else "give --run DIR or --measured LOSS"
        )
        return Outcome(path, locked, None, f"its run is not measured yet; {how}", changed)
    try:
        return Outcome(path, locked, Score(locked, loss_of(record, locked)), None, changed)
    except ValueError as error:
        return Outcome(path, locked, None, str(error), changed)


def distinct(found: Sequence[Outcome]) -> tuple[list[Outcome], list[str]]:
    """Return each forecast once, measured if one of its copies is, and say which files are copies."""
    kept: dict[Path, Outcome] = {}
    notes = []
    for one in found:
        same = next((path for path, other in kept.items() if other.locked == one.locked), None)
        if same is None:
            kept[one.path] = one
            continue
        notes.append(f"{one.path} is a copy of {same}; they count once")
        if kept[same].score is None and one.score is not None:
            kept[same] = one
    return list(kept.values()), notes


def loss_of(record: Record, locked: Locked) -> float:
    """Return the loss of the run that was forecast.

    Raises:
        ValueError: the record is of another run, or has no loss.
    """
    if not abs(record.flops / locked.flops - 1) < SAME_COST:
        raise ValueError(
            f"run {record.id} spent {record.flops:.4g} FLOPs, but {locked.flops:.4g} were forecast; name that run"
        )
    if record.status != "complete" or record.loss is None:
        raise ValueError(f"run {record.id} ended as {record.status} and has no loss to set beside the forecast")
    N = record.params.get(locked.params_convention, locked.params)
    if not (abs(N / locked.params - 1) < SAME_SHAPE and abs(record.tokens / locked.tokens - 1) < SAME_SHAPE):
        raise ValueError(
            f"run {record.id} has N = {N:.4g} and D = {record.tokens:.4g}, but {locked.params:.4g} and "
            f"{locked.tokens:.4g} were forecast; name that run"
        )
    if not 0 < record.loss < math.inf:
        raise ValueError(f"run {record.id} has a loss of {record.loss:g}, which no run has; measure it again")
    return record.loss


def keep(path: Path, loss: float, *, run: str | None = None) -> Path:
    """Write down beside a forecast what was measured elsewhere, so that it counts from now on; return the file.

    Raises:
        ValueError: another loss was written down already, or the study has measured its own run.
    """
    locked, beside = read_locked(path), _beside(path)
    if read_target(path.parent, locked) is not None:
        raise ValueError(f"{path} has its own measured run; leave --run and --measured out")
    before = _kept(path)
    if before is not None and before != loss:
        raise ValueError(f"{beside} says {before:g} already, not {loss:g}; delete it if that was a slip")
    if before is None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(beside, {"loss": loss, "run": run, "written": now, "forecast": sha256(path)})
    return beside


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.stem}.measured.json")


def _kept(path: Path) -> float | None:
    beside = _beside(path)
    if not beside.exists():
        return None
    value = read_json(beside)
    loss = value.get("loss") if isinstance(value, dict) else None
    if not isinstance(loss, float | int) or not 0 < loss < float("inf"):
        raise ValueError(f"{beside} has no loss in it; delete it, and say --measured again")
    if value.get("forecast") != sha256(path):
        raise ValueError(f"{path} is not the forecast that {beside.name} measures: it was changed; bring it back")
    return float(loss)


def calibrate(scores: Sequence[Score]) -> Calibration:
    """Sum up scores, one at least."""
    inside = sum(score.inside for score in scores)
    chances = np.ones(1)
    for score in scores:
        level = score.locked.level
        chances = np.convolve(chances, (1 - level, level))
    below = np.cumsum(chances)
    tail = (1 - LIKELY) / 2
    return Calibration(
        inside=inside,
        of=len(scores),
        expected=(int((below <= tail).sum()), int((below < 1 - tail).sum())),
        median_abs_rel_error=float(np.median([abs(score.error) for score in scores])),
        interval_score=float(np.mean([score.interval_score for score in scores])),
    )
