"""What a folder knows of its study or run, read once for figures and pages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from isoflop.files import read_json
from isoflop.law.fit import Fit
from isoflop.law.frontier import Frontier, Minimum
from isoflop.record import Floats, Record, Records
from isoflop.study.design import Study


@dataclass(frozen=True)
class Curves:
    """How a run's loss fell, nats per token."""

    tokens: Floats
    """Training tokens seen, at each training loss."""
    train: Floats
    """Mean training loss since the point before."""
    val_tokens: Floats
    """Training tokens seen, at each validation loss."""
    val: Floats


@dataclass(frozen=True, kw_only=True)
class Locked:
    """A forecast that was written down before its run was trained."""

    flops: float
    loss: float
    """Nats per token."""
    low: float
    high: float
    level: float
    """Nominal coverage of low to high."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of a study."""

    name: str
    records: Records
    study: Study | None = None
    fit: Fit | None = None
    frontiers: tuple[Frontier, ...] = ()
    """Lines of optima by each approach that the data support."""
    minima: tuple[Minimum, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader must know of the frontiers: budgets refused, and why."""
    locked: Locked | None = None
    measured: Record | None = None
    """The larger run, once it is trained."""
    curves: Mapping[str, Curves] = field(default_factory=dict)
    """By run."""


def read_curves(folder: Path) -> Curves:
    """Read a run's log.

    Raises:
        ValueError: there is no log, or it holds no training loss yet.
    """
    path = folder / "log.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    # a run under way may have written half a line
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    train = [line for line in lines if math.isfinite(line.get("train_loss", math.nan))]
    if not train:
        raise ValueError(f"{path} holds no training loss yet; `isoflop train {folder}` trains the run")
    a_step = train[-1]["tokens"] / train[-1]["step"]
    val = [line for line in lines if math.isfinite(line.get("val_loss", math.nan))]
    return Curves(
        tokens=_column([line["tokens"] for line in train]),
        train=_column([line["train_loss"] for line in train]),
        val_tokens=_column([line["step"] * a_step for line in val]),
        val=_column([line["val_loss"] for line in val]),
    )


def _column(values: list[float]) -> Floats:
    return np.array(values, dtype=np.float64)


def read_locked(folder: Path) -> tuple[Locked | None, Record | None]:
    """Read forecast.json, and the record of the run that it speaks of; None where there is none.

    Raises:
        ValueError: forecast.json is no forecast.
    """
    path = folder / "forecast.json"
    if not path.exists():
        return None, None
    value = read_json(path)
    try:
        target = value["target"]
        locked = Locked(
            flops=float(target["flops"]), **{name: float(value[name]) for name in ("loss", "low", "high", "level")}
        )
        record = folder / "target" / target["id"] / "record.json"
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a forecast ({error!r}); make it anew with `isoflop lock {folder}`") from error
    return locked, Record.read(record) if record.exists() else None
