"""The approaches to the compute optimum side by side; how far they disagree is model uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int64

from isoflop.counts import number_of
from isoflop.law.fit import SAME, Fit, check, order
from isoflop.law.frontier import SAME_BUDGET, Line, approach2, approach3
from isoflop.law.laws import LAWS, Terms, optimum
from isoflop.law.projection import EXPONENTS, project, project_again
from isoflop.law.uncertainty import FEWEST, Interval, generator, groups, interval
from isoflop.record import Floats, Records

FLOPS_VALUES = 1500
"""Values of C, evenly spread in ln C, at which the envelope of curves is read (arXiv:2203.15556, section 3.1)."""
FEWEST_POINTS = 3
"""Fewest points of a curve, and fewest sizes on an envelope."""
DRAWS = 200
"""Times that the runs are drawn again for the intervals of approaches 1 and 2 and of variable projection."""


@dataclass(frozen=True)
class Answer:
    """What one approach says; a, N and D are None where it refuses."""

    approach: str
    a: Interval | None
    """Exponent of N*."""
    N: Interval | None
    """N* of the target budget."""
    D: Interval | None
    """D* of the target budget."""
    note: str | None = None
    """What it read, or why it refuses."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = {"a": self.a, "params": self.N, "tokens": self.D}
        plain = {name: None if one is None else _plain(one) for name, one in names.items()}
        return {"approach": self.approach, **plain, "note": self.note}


def _plain(one: Interval) -> dict[str, float | None]:
    return {name: None if value is None else float(value) for name, value in one._asdict().items()}


@dataclass(frozen=True)
class Comparison:
    """All approaches on one table."""

    C: float
    """Target budget, FLOPs."""
    answers: tuple[Answer, ...]

    @property
    def spread_a(self) -> tuple[float, float] | None:
        """Smallest and largest exponent; None where fewer than two approaches answer."""
        return self._range([answer.a for answer in self.answers])

    @property
    def spread_params(self) -> tuple[float, float] | None:
        """Smallest and largest N*."""
        return self._range([answer.N for answer in self.answers])

    @staticmethod
    def _range(values: list[Interval | None]) -> tuple[float, float] | None:
        known = [float(one.value) for one in values if one is not None]
        return (min(known), max(known)) if len(known) > 1 else None

    def sentence(self) -> str:
        """Say how far the approaches are apart."""
        a, N = self.spread_a, self.spread_params
        if a is None or N is None:
            return "unknown, since fewer than two approaches answer"
        return (
            f"a from {a[0]:.3f} to {a[1]:.3f}, N*({self.C:.3g}) from {N[0]:.3g} to {N[1]:.3g} (×{N[1] / N[0]:.2f}), "
            "by approach; no interval above includes this"
        )

    def uncertainty(self) -> dict[str, Any]:
        """Plain values for JSON: the target, and the spread between the approaches."""
        return {"flops": self.C, "a": self.spread_a, "params": self.spread_params, "sentence": self.sentence()}


def approaches(
    records: Records, fit: Fit, C: float, *, curves: Records | None = None, draws: int = DRAWS, seed: int = 0
) -> Comparison:
    """Ask every approach of APPROACHES for the exponent of N*, and for N* and D* of a budget of C FLOPs.

    Args:
        records: The runs.
        fit: Approach 3, whose own replicates give its interval.
        C: Target budget, FLOPs.
        curves: Points along the runs, each run a group, for approach 1; None: the runs themselves.
        draws: Times that runs are drawn again for the other intervals; 0: no intervals.
        seed: Seed of the draws.

    Raises:
        ValueError: C is no positive number.
    """
    if not (np.isfinite(C) and C > 0):
        raise ValueError(f"flops={C:g} of a target must be a positive number")
    asked = Question(records, fit, records if curves is None else curves, draws, seed)
    return Comparison(C, tuple(_answer(name, ask, asked, C) for name, ask in APPROACHES.items()))


class Question(NamedTuple):
    """What the approaches are asked about."""

    records: Records
    fit: Fit
    curves: Records
    draws: int
    seed: int

    def drawn(self, records: Records) -> Int64[np.ndarray, "draws runs"]:
        """Draw how often each run counts, whole trunks together; no draws where too few are independent."""
        trunk = groups(records)
        count = int(trunk.max()) + 1
        rng = generator(self.seed)
        draws = self.draws if count >= FEWEST else 0
        return np.asarray(rng.multinomial(count, np.full(count, 1 / count), size=draws)[:, trunk])


class Lines(NamedTuple):
    """N* and D* as lines in ln C about a center, and their replicates."""

    N: Line
    D: Line
    center: float
    note: str | None
    samples: Mapping[str, Line]


def _answer(name: str, ask: Callable[[Question], Lines], asked: Question, C: float) -> Answer:
    try:
        found = ask(asked)
    except ValueError as refusal:
        return Answer(name, None, None, None, str(refusal))
    away = np.log(C / found.center)
    a = interval(found.N.slope, np.asarray(found.samples["N"].slope))
    N, D = (
        interval(float(line.at(away)), np.asarray(samples.at(away)))
        for line, samples in ((found.N, found.samples["N"]), (found.D, found.samples["D"]))
    )
    return Answer(name, a, N, D, found.note)


NONE = {"N": Line(np.empty(0), np.empty(0)), "D": Line(np.empty(0), np.empty(0))}
"""No replicates."""


class Points(NamedTuple):
    """Columns of runs, or of points along runs."""

    N: Floats
    D: Floats
    C: Floats
    L: Floats
    trunk: Int64[np.ndarray, "runs"]

    def take(self, index: np.ndarray) -> Points:
        """Return the points at these positions."""
        return Points(*(column[index] for column in self))


class Front(NamedTuple):
    """Where sizes are best: values of ln C, ln N and ln D."""

    ln_c: Floats
    ln_n: Floats
    ln_d: Floats
    note: str

    def lines(self, middle: float) -> tuple[Line, Line]:
        """Draw lines of ln N and of ln D about a value of ln C."""
        solver = np.linalg.pinv(np.vander(self.ln_c - middle, 2, increasing=True))
        N, D = (Line(*map(float, solver @ column)) for column in (self.ln_n, self.ln_d))
        return N, D


def envelope(asked: Question) -> Lines:
    """Approach 1: which size has the least loss at each C, and a line through those sizes.

    Runs with points along them are curves, read between their points, and so are sizes with three lengths or more;
    where there are too few, the runs that no cheaper run beats stand for the envelope.

    Raises:
        ValueError: fewer than three sizes lie on the envelope.
    """
    runs = asked.curves.take(order(asked.curves))
    points = Points(runs.N, runs.D, runs.C, runs.L, groups(runs))
    front = _front(points, runs.source)
    middle = float(front.ln_c.mean())
    N, D = front.lines(middle)
    found = []
    for counts in asked.drawn(runs):
        try:
            found.append(_front(points.take(np.flatnonzero(counts)), runs.source).lines(middle))
        except ValueError:  # of these draws too few sizes lie on the envelope
            continue
    samples, note = NONE, front.note
    if 2 * len(found) > asked.draws:
        samples = {name: Line(*np.array([pair[i] for pair in found]).T) for i, name in enumerate("ND")}
    elif asked.draws:
        note += "; no interval: drawn again, the runs mostly leave no envelope"
    return Lines(N, D, float(np.exp(middle)), note, samples)


def _front(points: Points, source: str) -> Front:
    curves = [rows for rows in _curves(points) if len(rows) >= FEWEST_POINTS]
    curves = [rows for rows in curves if points.C[rows].max() > SAME_BUDGET * points.C[rows].min()]
    return _of_curves(points, curves, source) if len(curves) >= FEWEST_POINTS else _of_runs(points, source)


def _curves(points: Points) -> list[Int64[np.ndarray, "_"]]:
    """Rows of each run with points along it or else of each size, smallest size first, cheapest first."""
    along = np.bincount(points.trunk).max() >= FEWEST_POINTS
    rows = np.argsort(points.N, kind="stable")
    if along:
        keys, first = np.unique(points.trunk[rows], return_index=True)
        parts = [np.flatnonzero(points.trunk == key) for key in keys[np.argsort(first)]]
    else:
        parts = np.split(rows, np.flatnonzero(np.diff(np.log(points.N[rows])) > SAME) + 1)
    return [part[np.argsort(points.C[part], kind="stable")] for part in parts]


def _of_curves(points: Points, curves: list[Int64[np.ndarray, "_"]], source: str) -> Front:
    ln_c = np.linspace(np.log(points.C.min()), np.log(points.C.max()), FLOPS_VALUES)
    at = [np.log(points.C[rows]) for rows in curves]
    known = [np.interp(ln_c, x, np.log(points.L[rows]), np.inf, np.inf) for x, rows in zip(at, curves, strict=True)]
    loss = np.stack(known)
    there = np.isfinite(loss)
    best = loss.argmin(0)
    # an optimum is one only if smaller and larger sizes were seen at the same C and did worse
    size = np.array([np.log(points.N[rows]).mean() for rows in curves])
    smallest = np.where(there, size[:, None], np.inf).min(0)
    largest = np.where(there, size[:, None], -np.inf).max(0)
    inside = (size[best] > smallest + SAME) & (size[best] < largest - SAME) & there.any(0)
    chosen, C = best[inside], ln_c[inside]
    if (sizes := _count(size[chosen])) < FEWEST_POINTS:
        raise ValueError(
            f"too few sizes of {source} ({sizes}) are the best of those seen at some C; approach 1 needs "
            f"{FEWEST_POINTS}, so add sizes at the same FLOPs"
        )
    tokens = np.stack([np.interp(C, x, np.log(points.D[rows])) for x, rows in zip(at, curves, strict=True)])
    ln_d = tokens[chosen, np.arange(len(chosen))]
    return Front(C, size[chosen], ln_d, f"envelope of {number_of(len(curves), 'curve')}")


def _count(ln_n: Floats) -> int:
    return 1 + int((np.diff(np.sort(ln_n)) > SAME).sum()) if len(ln_n) else 0


def _of_runs(points: Points, source: str) -> Front:
    rows = np.argsort(points.C, kind="stable")
    # runs of one budget stand at nearly one C: they compete, whoever is a little cheaper
    front = [i for i in rows if not ((SAME_BUDGET * points.C[i] >= points.C) & (points.L[i] > points.L)).any()]
    if _count(np.log(points.N[front])) < FEWEST_POINTS:
        verb, they = ("is", "it has") if len(front) == 1 else ("are", "they have")
        raise ValueError(
            f"only {number_of(len(front), 'run')} of {source} {verb} beaten by no cheaper one, and {they} fewer than "
            f"{FEWEST_POINTS} sizes; approach 1 needs more budgets"
        )
    note = f"envelope of final losses: the {number_of(len(front), 'run')} that no cheaper one beats"
    return Front(np.log(points.C[front]), np.log(points.N[front]), np.log(points.D[front]), note)


def parabolas(asked: Question) -> Lines:
    """Approach 2.

    Raises:
        ValueError: as `isoflop.law.frontier.approach2`.
    """
    # with no draws it would not see which minima noise moves about
    found = approach2(asked.records, replicates=asked.draws or DRAWS, seed=asked.seed)
    samples, note = found.samples if asked.draws else NONE, f"parabolas of {number_of(len(found.minima), 'budget')}"
    if asked.draws and not len(np.atleast_1d(samples["N"].slope)):
        note += "; no interval: three sizes a budget leave no residuals to draw from"
    return Lines(found.N, found.D, found.center, note, samples)


def parametric(asked: Question) -> Lines:
    """Approach 3.

    Raises:
        ValueError: as `isoflop.law.frontier.approach3`, or a parameter that decides the optimum ended on a bound.
    """
    found = approach3(asked.fit)
    parameters = asked.fit.parameters.items()
    if bound := [name for name, p in parameters if p.status == "on bound" and name != "E"]:
        raise ValueError(
            f"{', '.join(bound)} of the fitted {asked.fit.law} ended on a bound, so its optimum is no answer; add runs"
        )
    return Lines(found.N, found.D, found.center, found.note or f"the fitted law {asked.fit.law}", found.samples)


def projection(asked: Question) -> Lines:
    """Variable projection: squared loss, E, A, B ≥ 0 by linear algebra for each (α, β), whose best is searched.

    Raises:
        ValueError: the runs cannot determine the law, or the best one does not fall with both N and D.
    """
    check(asked.records, LAWS["chinchilla"])
    runs = asked.records.take(order(asked.records))
    scale = [float(np.exp(np.log(column).mean())) for column in (runs.N, runs.D)]
    ln_n, ln_d = np.log(runs.N / scale[0]), np.log(runs.D / scale[1])
    best = project(ln_n, ln_d, runs.L)
    _, A, B = best.linear[0]
    if A <= 0 or B <= 0:
        raise ValueError(
            f"the least squared loss of {runs.source} needs no term of {'N' if A <= 0 else 'D'}, so it has no "
            "optimum; add runs of other sizes and lengths"
        )
    if not all(1.01 * EXPONENTS[0] < float(power[0]) < EXPONENTS[1] / 1.01 for power in (best.alpha, best.beta)):
        raise ValueError(
            f"the least squared loss of {runs.source} has an exponent on its bound (α = {best.alpha[0]:.3g}, β = "
            f"{best.beta[0]:.3g}), so its optimum is no answer; add runs"
        )
    center = float(np.exp(np.log(runs.C).mean()))

    def lines(alpha: Floats, beta: Floats, A: Floats, B: Floats) -> dict[str, Line]:
        N, D = optimum(Terms(A * scale[0] ** alpha, alpha, B * scale[1] ** beta, beta), center)
        a = beta / (alpha + beta)
        return {"N": Line(np.log(N), a), "D": Line(np.log(D), 1 - a)}

    again = project_again(best, ln_n, ln_d, runs.L, asked.drawn(runs).astype(np.float64))
    falls = (again.linear[:, 1:] > 0).all(1)
    found = lines(best.alpha, best.beta, best.linear[:, 1], best.linear[:, 2])
    samples = lines(again.alpha[falls], again.beta[falls], again.linear[falls, 1], again.linear[falls, 2])
    N, D = (Line(float(found[name].level[0]), float(found[name].slope[0])) for name in "ND")  # type: ignore[index]
    return Lines(N, D, center, "least squared loss of chinchilla", samples)


APPROACHES: Mapping[str, Callable[[Question], Lines]] = {
    "approach 1": envelope,
    "approach 2": parabolas,
    "approach 3": parametric,
    "variable projection": projection,
}
