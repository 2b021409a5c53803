"""What a folder knows of its study or run, read once for figures and pages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from isoflop.files import read_json
from isoflop.law.fit import SAME, Fit
from isoflop.law.laws import LAWS, optimum
from isoflop.law.uncertainty import Interval, interval
from isoflop.record import Floats, Record, Records
from isoflop.study.design import Study

HORIZON = 1e24
"""FLOPs to which optima are extrapolated, somewhat above the 5.76e23 of arXiv:2203.15556's largest run."""
FEWEST_MINIMA = 3
"""Fewest minima that a line can be drawn through and be contradicted by."""


@dataclass(frozen=True, kw_only=True)
class Minimum:
    """The bottom of one budget's parabola L = loss + bend·ln(N/params)²."""

    budget: float
    """FLOPs, geometric mean of the runs."""
    params: float
    tokens: float
    loss: float
    """Nats per token."""
    bend: float
    """Nats per token."""
    sampled: tuple[float, float]
    """Smallest and largest N of the runs."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Optima along budgets, by one approach."""

    approach: Literal["approach 2", "approach 3"]
    C: Floats
    """FLOPs."""
    optima: Mapping[str, Interval]
    """N* and D* at each C."""
    slopes: Mapping[str, Interval]
    """Exponents a of N* ∝ C^a and b of D* ∝ C^b."""


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
    minima: tuple[Minimum, ...] = ()
    lines: tuple[Line, ...] = ()
    refused: tuple[str, ...] = ()
    """Budgets without a minimum, each with its reason."""
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


def read_evidence(folder: Path) -> Evidence:
    """Read all that a study's folder holds.

    Raises:
        ValueError: the folder holds no runs, none of them is complete, or a file in it is damaged.
    """
    fit = Fit.read(folder / "fit.json") if (folder / "fit.json").exists() else None
    records = read_records(folder)
    if fit is not None:
        records = records.under(fit.records.convention)
    minima, refused = find_minima(records)
    lines = (line_of_minima(minima, records), None if fit is None else line_of_law(fit))
    locked, measured = read_locked(folder)
    study = Study.from_dict(read_json(folder / "study.json")) if (folder / "study.json").exists() else None
    return Evidence(
        name=folder.resolve().name,
        records=records,
        study=study,
        fit=fit,
        minima=minima,
        lines=tuple(line for line in lines if line is not None),
        refused=refused,
        locked=locked,
        measured=measured,
        curves={
            run.parent.name: read_curves(run.parent) for run in _folders(folder) if (run.parent / "log.jsonl").exists()
        },
    )


def _folders(folder: Path) -> list[Path]:
    return sorted((folder / "runs" if (folder / "runs").is_dir() else folder).glob("*/record.json"))


def read_records(folder: Path) -> Records:
    """Read the runs of a study, its target left out.

    Raises:
        ValueError: there are none, or none is complete.
    """
    runs = [Record.read(path) for path in _folders(folder)]
    if not runs:
        raise ValueError(f"{folder} holds no finished run; `isoflop study run` trains some, or name another folder")
    complete = tuple(run for run in runs if run.status == "complete")
    if not complete:
        raise ValueError(f"none of the {len(runs)} runs of {folder} is complete ({runs[0].id}: {runs[0].status})")
    left_out = tuple(f"{run.id}: {run.status}" for run in runs if run.status != "complete")
    return Records(runs=complete, source=str(folder), left_out=left_out)


def find_minima(records: Records) -> tuple[tuple[Minimum, ...], tuple[str, ...]]:
    """Find the bottom of each budget's parabola in ln N, and say why a budget has none."""
    found, refused = [], []
    for budget in sorted({run.budget for run in records.runs if run.budget is not None}):
        runs = records.take([run.budget == budget for run in records.runs])
        x, center = np.log(runs.N), float(np.log(runs.N).mean())
        if len(np.unique(x)) < 3:
            refused.append(f"budget {budget:.3g} FLOPs: {len(np.unique(x))} sizes, a parabola needs three")
            continue
        bend, slope, level = (float(c) for c in np.polyfit(x - center, runs.L, 2))
        bottom = center - slope / (2 * bend) if bend > 0 else math.nan
        if not x.min() < bottom < x.max():
            why = "the parabola opens downward" if bend <= 0 else "the minimum lies outside the sampled sizes"
            refused.append(f"budget {budget:.3g} FLOPs: {why}; add sizes on the lower side")
            continue
        C = float(np.exp(np.log(runs.C).mean()))
        params = math.exp(bottom)
        by_size = np.argsort(x)
        tokens = math.exp(float(np.interp(bottom, x[by_size], np.log(runs.D)[by_size])))
        sampled = (float(runs.N.min()), float(runs.N.max()))
        loss = level - slope**2 / (4 * bend)
        found.append(Minimum(budget=C, params=params, tokens=tokens, loss=loss, bend=bend, sampled=sampled))
    return tuple(found), tuple(refused)


def _budgets(records: Records) -> Floats:
    return np.geomspace(records.C.min(), max(HORIZON, 10 * records.C.max()), 200)


def line_of_minima(minima: tuple[Minimum, ...], records: Records) -> Line | None:
    """Draw power laws through minima; None through fewer than three."""
    if len(minima) < FEWEST_MINIMA:
        return None
    C = _budgets(records)
    x = np.log([minimum.budget for minimum in minima])
    optima, slopes = {}, {}
    for letter, values in {"N": [m.params for m in minima], "D": [m.tokens for m in minima]}.items():
        slope, level = np.polyfit(x - x.mean(), np.log(values), 1)
        optima[letter] = Interval(np.exp(level + slope * (np.log(C) - x.mean())), None, None)
        slopes[letter] = Interval(float(slope), None, None)
    return Line(approach="approach 2", C=C, optima=optima, slopes=slopes)


def line_of_law(fit: Fit) -> Line:
    """Return the optima of a fitted law, with intervals where its runs were drawn again."""
    C = _budgets(fit.records)
    optima, slopes = {}, {}
    best = fit.optimum(C)
    samples = {name: values[:, None] for name, values in fit.samples.items()}
    many = optimum(LAWS[fit.law].terms(samples), C[None]) if samples else None
    for letter, values in best._asdict().items():
        drawn = np.empty((0, len(C))) if many is None else np.asarray(getattr(many, letter))
        optima[letter] = interval(values, drawn)
        steps = np.log(drawn[:, -1] / drawn[:, 0]) / np.log(C[-1] / C[0])
        slopes[letter] = interval(float(np.log(values[-1] / values[0]) / np.log(C[-1] / C[0])), steps)
    return Line(approach="approach 3", C=C, optima=optima, slopes=slopes)


def optimal_loss(fit: Fit, C: Floats) -> Interval:
    """Return L(N*(C), D*(C)) of a fitted law, nats per token, with the interval of the curve."""
    law = LAWS[fit.law]
    value = law(**fit.optimum(C)._asdict(), **fit.values)
    samples = {name: values[:, None] for name, values in fit.samples.items()}
    if not samples:
        return Interval(value, None, None)
    many = law(**optimum(law.terms(samples), C[None])._asdict(), **samples)
    return interval(value, np.asarray(many))


def sizes(records: Records) -> list[Records]:
    """Group runs by size, smallest first; sizes nearer than 1 % in ln N are one."""
    order = np.argsort(records.N, kind="stable")
    breaks = np.flatnonzero(np.diff(np.log(records.N[order])) > SAME) + 1
    groups = (records.take(part) for part in np.split(order, breaks))
    return [group.take(np.argsort(group.C, kind="stable")) for group in groups]
