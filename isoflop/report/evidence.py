"""What a folder knows of its study or run, read once for figures and pages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from isoflop.files import read_json
from isoflop.law.fit import SAME, Fit
from isoflop.law.frontier import Frontier, Minimum, approach2, approach3
from isoflop.law.laws import LAWS
from isoflop.law.uncertainty import Interval, interval
from isoflop.record import Floats, Record, Records
from isoflop.sources import read
from isoflop.study.locked import FORECAST, Locked, read_locked, read_target
from isoflop.study.study import Study


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
class Evidence:
    """All that is known of a study."""

    name: str
    records: Records
    study: Study | None = None
    fit: Fit | None = None
    frontiers: tuple[Frontier, ...] = ()
    """Lines of optima, by each approach that the data support."""
    refused: tuple[str, ...] = ()
    """Budgets without a minimum, each with its reason."""
    locked: Locked | None = None
    measured: Record | None = None
    """The larger run, once it is trained."""
    curves: Mapping[str, Curves] = field(default_factory=dict)
    """By run."""

    @property
    def minima(self) -> tuple[Minimum, ...]:
        """Where the parabolas of approach 2 are least."""
        return tuple(minimum for frontier in self.frontiers for minimum in frontier.minima)


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


def read_evidence(folder: Path) -> Evidence:
    """Read all that a study's folder holds.

    Raises:
        ValueError: the folder holds no runs, none of them is complete, or a file in it is damaged.
    """
    records = read(str(folder))
    fit = Fit.read(folder / "fit.json") if (folder / "fit.json").exists() else None
    if fit is not None:
        records = records.under(fit.records.convention)
    frontiers, refused = _frontiers(records, fit)
    locked = read_locked(folder / FORECAST) if (folder / FORECAST).exists() else None
    study = Study.from_dict(read_json(folder / "study.json")) if (folder / "study.json").exists() else None
    logs = sorted(folder.glob("runs/*/log.jsonl") if (folder / "runs").is_dir() else folder.glob("*/log.jsonl"))
    known = {run.id for run in records.runs}
    return Evidence(
        name=folder.resolve().name,
        records=records,
        study=study,
        fit=fit,
        frontiers=frontiers,
        refused=refused,
        locked=locked,
        measured=None if locked is None else read_target(folder, locked),
        curves={log.parent.name: read_curves(log.parent) for log in logs if log.parent.name in known},
    )


def _frontiers(records: Records, fit: Fit | None) -> tuple[tuple[Frontier, ...], tuple[str, ...]]:
    """Return the lines of optima, and why there are no others."""
    lines: list[Frontier] = []
    refused: list[str] = []
    try:
        lines.append(approach2(records))
        refused += lines[0].refused
    except ValueError as reason:
        refused.append(str(reason))
    if fit is not None:
        lines.append(approach3(fit))
        refused += [lines[-1].note] if lines[-1].note else []
    return tuple(lines), tuple(refused)


def optimal_loss(fit: Fit, C: Floats) -> Interval:
    """Return L(N*(C), D*(C)) of a fitted law, nats per token, with the interval of the curve."""
    law = LAWS[fit.law]
    value = law.loss(fit.values, **fit.optimum(C)._asdict())
    samples = {name: values[:, None] for name, values in fit.samples.items()}
    if not samples:
        return Interval(value, None, None)
    many = law.loss(samples, **law.optimum(samples, C[None])._asdict())
    return interval(value, np.asarray(many))


def sizes(records: Records) -> list[Records]:
    """Group runs by size, smallest first; sizes nearer than 1 % in ln N are one."""
    order = np.argsort(records.N, kind="stable")
    breaks = np.flatnonzero(np.diff(np.log(records.N[order])) > SAME) + 1
    groups = (records.take(part) for part in np.split(order, breaks))
    return [group.take(np.argsort(group.C, kind="stable")) for group in groups]
