"""Forecasts written down before their runs exist, and how they held."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from isoflop import __version__
from isoflop.fields import fraction, of_their_types, positive
from isoflop.files import read_json, sha256, write_json
from isoflop.flops import params_by_convention
from isoflop.law.fit import SAME
from isoflop.law.forecast import forecast
from isoflop.law.lawful import lawful
from isoflop.record import Record, Records
from isoflop.sources import read
from isoflop.sources.folder import TARGET
from isoflop.study.drive import open_study, plan

FORECAST = "forecast.json"
"""A study's forecast, in its folder."""
LEVEL = 0.9
"""Nominal coverage of the intervals of `isoflop.law.forecast`."""


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A forecast of one run that is not trained yet, and what it was made from."""

    run: str | None
    """Name of the run, where it is the target of a study."""
    params: float
    params_convention: str
    """How N is counted."""
    tokens: float
    flops: float
    loss: float
    """Nats per token."""
    low: float
    high: float
    level: float
    """Nominal coverage of low to high."""
    basis: str
    """Where the interval comes from."""
    made: str
    """When, ISO 8601, UTC."""
    isoflop: str
    """Version that made it."""
    inputs: Mapping[str, str]
    """SHA-256 of each file that it was made from, by its path from the forecast's folder."""

    def changed(self, folder: Path) -> list[str]:
        """List the inputs that are not as they were."""
        paths = {name: folder / name for name in self.inputs}
        return [name for name, path in paths.items() if not path.exists() or sha256(path) != self.inputs[name]]


@dataclass(frozen=True)
class Score:
    """A forecast beside what was measured."""

    locked: Locked
    measured: float
    """Nats per token."""

    @property
    def error(self) -> float:
        """Measured loss over the forecast one, minus 1."""
        return self.measured / self.locked.loss - 1

    @property
    def inside(self) -> bool:
        """Whether the measured loss lies in the interval."""
        return self.locked.low <= self.measured <= self.locked.high

    @property
    def interval_score(self) -> float:
        """Width of the interval in ln L, and 2/(1 − level) times how far outside the loss lies; less is better."""
        low, high, loss = (float(np.log(value)) for value in (self.locked.low, self.locked.high, self.measured))
        outside = max(0.0, low - loss) + max(0.0, loss - high)
        return high - low + 2 / (1 - self.locked.level) * outside


def lock(
    records: Records, path: Path, *, N: float, D: float, C: float, inputs: Sequence[Path], run: str | None = None
) -> Locked:
    """Forecast a run and write that down; what was written down earlier is never replaced.

    Raises:
        ValueError: the file exists already, the run is one of the records, or these allow no forecast.
    """
    if path.exists():
        raise ValueError(f"{path} exists already, and what stands there is never replaced; give another --out")
    same = (abs(np.log(records.N / N)) < SAME) & (abs(np.log(records.D / D)) < SAME)
    if same.any():
        known = records.runs[int(same.argmax())].id
        raise ValueError(f"{known} of {records.source} is this very run, and its loss is known; forecast another one")
    kept, notes = lawful(records)
    made = forecast(kept, N=N, D=D, C=C)
    locked = Locked(
        run=run,
        params=N,
        params_convention=records.convention,
        tokens=D,
        flops=C,
        loss=float(made.mean[0]),
        low=float(made.low[0]),
        high=float(made.high[0]),
        level=LEVEL,
        basis="; ".join([made.basis(), *notes]),
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        isoflop=__version__,
        inputs={Path(os.path.relpath(file, path.parent)).as_posix(): sha256(file) for file in inputs},
    )
    write_json(path, asdict(locked))
    return locked


def lock_target(folder: Path, *, out: Path | None = None) -> Locked:
    """Forecast the larger run of a study from its complete runs; a forecast that stands already is returned as it is.

    Raises:
        ValueError: the study has no target, its training has begun, or the runs allow no forecast.
    """
    path = out or folder / FORECAST
    target = plan(open_study(folder), folder, targets=True)[0]
    if path.exists():
        if out is not None:
            raise ValueError(f"{path} exists already, and what stands there is never replaced; give another --out")
        before = read_locked(path)
        if before.run != target.config.id:
            raise ValueError(
                f"{path} is the forecast of run {before.run}, but the study's target is {target.config.id} now; "
                "give another --out"
            )
        return before
    if (target.folder / "log.jsonl").exists() or target.record is not None:
        raise ValueError(
            f"{target.folder} has begun to train, and a forecast made after its run is none; change the target "
            "of the study, or delete that folder"
        )
    records = read(folder)
    counts = params_by_convention(target.config.model)
    return lock(
        records,
        path,
        N=counts[records.convention],
        D=target.flops / (6 * counts["compute"]),
        C=target.flops,
        inputs=[folder / "study.json", *(folder / "runs" / run.id / "record.json" for run in records.runs)],
        run=target.config.id,
    )


def read_locked(path: Path) -> Locked:
    """Read what `lock` wrote.

    Raises:
        ValueError: the file is no forecast.
    """
    value = read_json(path)
    if not isinstance(value, dict) or set(value) != {field.name for field in fields(Locked)}:
        raise ValueError(f"{path} is not a forecast that `isoflop lock` wrote; bring the old one back, or delete it")
    locked = Locked(**value)
    try:
        of_their_types(locked)
        positive(locked, "params", "tokens", "flops", "loss", "low", "high")
        fraction(locked, "level")
        if not locked.low <= locked.loss <= locked.high:
            raise ValueError(f"loss={locked.loss:g} must lie between low={locked.low:g} and high={locked.high:g}")
    except ValueError as error:
        raise ValueError(f"{path} is not a forecast that `isoflop lock` wrote: {error}") from None
    return locked


def read_target(folder: Path, locked: Locked) -> Record | None:
    """Read the record of the run that a study's forecast speaks of; None until it is trained."""
    path = folder / TARGET / str(locked.run) / "record.json"
    return Record.read(path) if locked.run is not None and path.exists() else None
