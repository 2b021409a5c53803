"""The best loss of each budget, against what it cost in FLOPs, tokens or hours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import numpy as np

from isoflop.law.frontier import levels
from isoflop.record import Floats, Record, Records

Per = Literal["flop", "token", "hour"]


class Points(NamedTuple):
    """A recipe's best loss at each of its budgets (and seeds, where all its sizes were trained with several)."""

    budget: Floats
    """FLOPs."""
    seed: tuple[int | None, ...]
    x: Floats
    """What is counted, at the best size."""
    loss: Floats
    """Nats per token."""


def points(records: Records, per: Per) -> Points:
    """Return the best loss of each budget: the bottom of a parabola in ln N where sizes surround it, else the lowest.

    Raises:
        ValueError: a loss is not positive, or what is counted was not measured.
    """
    if wrong := [run for run in records.runs if run.loss is None or not 0 < run.loss < np.inf]:
        raise ValueError(f"run {wrong[0].id} of {records.source} has the loss {wrong[0].loss}; leave it out")
    for run, N in zip(records.runs, records.N, strict=True):
        if not 0 < N * run.tokens * run.flops * (run.budget or 1.0) < np.inf:
            raise ValueError(
                f"run {run.id} of {records.source} has params={N:g}, tokens={run.tokens:g} and flops={run.flops:g}, "
                "which no run has; correct them, or leave it out"
            )
    count = np.array([COUNTED[per](run) or np.nan for run in records.runs])
    if (lacking := np.flatnonzero(~((count > 0) & (count < np.inf)))).size:
        run = records.runs[lacking[0]].id
        raise ValueError(
            f"per={per!r} needs what run {run} of {records.source} did not measure; compare per flop or token"
        )
    named = [run.budget for run in records.runs]
    C = np.array([run.budget or run.flops for run in records.runs]) if any(named) else records.C
    level = levels(C)
    found = []
    for i in range(int(level.max()) + 1):
        rows = np.flatnonzero(level == i)
        budget = float(np.exp(np.log(C[rows]).mean()))
        found += [(budget, seed, *_best(records, count, part)) for seed, part in _by_seed(records, rows).items()]
    budgets, seeds, x, loss = zip(*found, strict=True)
    return Points(np.array(budgets), tuple(seeds), np.array(x), np.array(loss))


def _seed(run: Record) -> int | None:
    value = run.config.get("train", {}).get("seed", run.measured.get("seed"))
    return None if value is None else int(value)


def _by_seed(records: Records, rows: np.ndarray) -> dict[int | None, np.ndarray]:
    """Split a budget's runs by seed if every seed trained every size; single repeats stay with the others."""
    seeds = np.array([-1 if (seed := _seed(records.runs[i])) is None else seed for i in rows])
    parts = {int(seed): rows[seeds == seed] for seed in np.unique(seeds)}
    sizes = {len(np.unique(np.round(np.log(records.N[part]), 2))) for part in parts.values()}
    if len(sizes) > 1:
        return {None: rows}
    return {None if seed < 0 else seed: part for seed, part in parts.items()}


def _best(records: Records, count: Floats, rows: np.ndarray) -> tuple[float, float]:
    """Return what is counted and the loss at the best size."""
    ln_n, loss = np.log(records.N[rows]), records.L[rows]
    if len(np.unique(np.round(ln_n, 2))) >= 3:
        middle = ln_n.mean()
        bend, slope, _ = curve = np.polyfit(ln_n - middle, loss, 2)
        bottom = -slope / (2 * bend) if bend > 0 else np.inf
        if ln_n.min() - middle < bottom < ln_n.max() - middle:
            along = np.polyfit(ln_n - middle, np.log(count[rows]), 2)
            return float(np.exp(np.polyval(along, bottom))), float(np.polyval(curve, bottom))
    lowest = rows[int(np.argmin(loss))]
    return float(count[lowest]), float(records.L[lowest])


def _hours(run: Record) -> float | None:
    seconds, speed = run.measured.get("seconds"), run.measured.get("tokens_per_second")
    if seconds is None and speed:
        seconds = run.tokens / speed
    return None if seconds is None else float(seconds) / 3600


COUNTED: Mapping[Per, Callable[[Record], float | None]] = {
    "flop": lambda run: run.flops,
    "token": lambda run: run.tokens,
    "hour": _hours,
}
