"""How sure a number is: runs drawn again with replacement, and the percentiles of what they give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray

from isoflop.law.fit import (
    LEVELS,
    OBJECTIVES,
    SAME,
    STARTS,
    Fit,
    jacobian,
    level_of,
    order,
    pose,
    rescale,
    statuses,
    unscale,
)
from isoflop.law.laws import LAWS, Law, Value
from isoflop.law.search import search_replicates
from isoflop.law.solve import Problem, sandwich, solve
from isoflop.record import Floats, Records

FEWEST = 5
"""Fewest independent runs (or trunks) that are drawn again; fewer have too few different draws for percentiles."""


class Interval(NamedTuple):
    """Numbers and their 90 % intervals; without low and high where the data say nothing of them."""

    value: Value
    low: Value | None
    high: Value | None


FEWEST_DRAWS, MOST_DRAWS = 10, 100_000
"""Of fewer draws the 5th and 95th percentiles are about the least and the most; more only fill the memory."""


def check_draws(name: str, count: int) -> None:
    """Check how often something is to be drawn; 0 stands for no interval.

    Raises:
        ValueError: so many draws give no interval, or fill the memory.
    """
    if count and not FEWEST_DRAWS <= count <= MOST_DRAWS:
        raise ValueError(f"{name} {count} must be 0 (no intervals) or {FEWEST_DRAWS} to {MOST_DRAWS}, such as 1000")


def generator(seed: int) -> np.random.Generator:
    """Return the source of draws.

    Raises:
        ValueError: the seed is negative.
    """
    if seed < 0:
        raise ValueError(f"seed={seed} must be a whole number, 0 or more")
    return np.random.default_rng(seed)


def interval(value: Value, samples: NDArray[np.float64]) -> Interval:
    """Return the value with the 5th and 95th percentiles of its replicates, which lie along the first axis."""
    if not len(samples):
        return Interval(value, None, None)
    low, high = np.percentile(samples, (5, 95), axis=0)
    return Interval(value, low, high)


def groups(records: Records) -> Int64[np.ndarray, "runs"]:
    """Number the trunk of each run; a run without a group stands alone."""
    names = [f"run {i}" if run.group is None else f"group {run.group}" for i, run in enumerate(records.runs)]
    known = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], dtype=np.int64)


def regroup(records: Records, by: Literal["group", "params", "tokens", "budget"]) -> Records:
    """Let runs with the same value of a field share a group: points along one run have the same params."""
    if by == "group":
        return records
    runs = records.runs
    values = records.N if by == "params" else [getattr(run, by) for run in runs]
    named = (None if value is None else f"{by}={value:.17g}" for value in values)
    return replace(records, runs=tuple(replace(run, group=name) for run, name in zip(runs, named, strict=True)))


def bootstrap(fit: Fit, *, replicates: int = 1000, seed: int = 0) -> Fit:
    """Return the fit with intervals from its whole runs (trunks, where they share one) drawn again.

    A draw that `isoflop.law.fit.check` would refuse is no fit and is drawn anew; a note of the runs says how many were.

    Raises:
        ValueError: there are too few runs or trunks to draw from.
    """
    law = LAWS[fit.law]
    problem, scale = _pose(fit)
    trunk = groups(fit.records.take(order(fit.records)))
    drawn, anew = draw(problem, trunk, replicates=replicates, rng=generator(seed))
    many = replace(problem, weights=problem.weights * drawn, delta=np.repeat(problem.delta, replicates))
    best = rescale(law, scale, fit.values)
    theta = search_replicates(many, best[None], STARTS).theta
    samples = unscale(law, scale, theta)
    status = statuses(law, best, *np.percentile(theta, (5, 95), axis=0))
    parameters = {}
    for i, (name, values) in enumerate(samples.items()):
        low, high = np.percentile(values, (5, 95))
        # of two intervals the more doubtful one is believed: the sandwich's, or that of the draws
        doubt = fit.parameters[name].status
        judged = status[i] if doubt == "identified" else doubt
        parameters[name] = replace(fit.parameters[name], low=float(low), high=float(high), status=judged)
    told = f"{anew} of {replicates + anew} draws hold too few different runs or sizes for a fit and were drawn anew"
    records = replace(fit.records, notes=(*fit.records.notes, told)) if anew else fit.records
    return replace(fit, parameters=parameters, samples=samples, records=records)


def _pose(fit: Fit) -> tuple[Problem, dict[str, float]]:
    weights = None if fit.weights is None else np.array(fit.weights)
    return pose(fit.records, LAWS[fit.law], objective=fit.by, weights=weights)


@dataclass(frozen=True)
class Profile:
    """The least objective at each value of one parameter, all others free."""

    name: str
    values: Floats
    objective: Floats
    low: float | None
    """End of the 90 % interval; None: the objective does not rise enough within the values."""
    high: float | None


def profile(fit: Fit, name: str, *, points: int = 33, reach: float = 4.0) -> Profile:
    """Fix a parameter at values within `reach` standard errors of its estimate, in logarithms, and fit the rest.

    The interval holds what raises the objective by less than ½·2.706·V, where 2.706 is χ²'s 90 % and V the variance of
    the parameter by the sandwich over that by the curvature alone, since the objective is no likelihood.

    Raises:
        ValueError: the law has no such parameter.
    """
    law = LAWS[fit.law]
    if name not in law.parameters:
        raise ValueError(f"name={name!r} is no parameter of {fit.law}; choose one of {', '.join(law.parameters)}")
    problem, scale = _pose(fit)
    best = rescale(law, scale, fit.values)
    inverse, meat = (part[0] for part in sandwich(problem, best[None]))
    row = jacobian(law, scale, best)[law.parameters.index(name)]
    variance = row @ inverse @ meat @ inverse @ row
    away = np.linspace(-1, 1, points | 1) * min(reach * np.sqrt(variance), np.log(FARTHEST))
    values = fit.values[name] * np.exp(away)
    least = np.empty(len(values))
    middle, rest = len(values) // 2, np.delete(best, law.parameters.index(name))
    for side in (range(middle, len(values)), range(middle, -1, -1)):
        theta = rest
        for i in side:
            held = replace(problem, law=_held(law, scale, name, float(values[i])))
            found = solve(held, np.stack([theta, rest])[:, None])
            theta, least[i] = found.theta[0], found.objective[0]
    rise = 0.5 * 1.645**2 * variance / (row @ inverse @ row)
    below, above = least[middle::-1] - least[middle], least[middle:] - least[middle]
    low, high = _crossing(away[middle::-1], below, rise), _crossing(away[middle:], above, rise)
    unit = OBJECTIVES[fit.by].unit
    ends = (None if end is None else float(fit.values[name] * np.exp(end)) for end in (low, high))
    return Profile(name, values, least / unit, *ends)


FARTHEST = 100.0
"""A profile reaches at most this factor from the estimate."""


def _held(law: Law, scale: Mapping[str, float], name: str, value: float) -> Law:
    """Return the law of scaled variables whose parameter `name` has this value in its own unit."""

    def formula(**values: Value) -> Value:
        free = {key: values[key] for key in law.parameters if key != name}
        # units look only at exponents: at A itself any number will do
        unit = law.units(scale, {**free, name: value})
        return law.formula(**values, **{name: value / unit.get(name, 1.0)})

    ranges = {key: span for key, span in law.ranges.items() if key != name}
    return replace(law, formula=formula, ranges=ranges, slopes=None)


def _crossing(away: Floats, risen: Floats, level: float) -> float | None:
    """Where a curve first exceeds a level, between two points by a line through the roots (a parabola's are one)."""
    if not (over := np.flatnonzero(risen > level)).size:
        return None
    i = int(over[0])
    before, after = np.sqrt(np.maximum(risen[i - 1 : i + 1], 0.0))
    part = (np.sqrt(level) - before) / (after - before)
    return float(away[i - 1] + part * (away[i] - away[i - 1]))


class Draws(NamedTuple):
    """Runs drawn with replacement."""

    counts: Float64[np.ndarray, "replicates runs"]
    """How often each run counts."""
    anew: int
    """Draws that could not be fitted and were drawn again."""


def draw(problem: Problem, trunk: Int64[np.ndarray, "runs"], *, replicates: int, rng: np.random.Generator) -> Draws:
    """Draw how often each run counts, until every replicate could be fitted by itself."""
    count = int(trunk.max()) + 1
    if count < FEWEST:
        raise ValueError(
            f"{count} independent runs or trunks are too few to be drawn again for an interval; add runs, at least "
            f"{FEWEST} in all, or ask for no interval (--bootstrap 0)"
        )
    draws = np.empty((replicates, len(trunk)))
    open_, anew = np.arange(replicates), 0
    for _ in range(100):
        draws[open_] = rng.multinomial(count, np.full(count, 1 / count), size=len(open_))[:, trunk]
        open_ = open_[~_usable(problem, draws[open_] > 0)]
        if not len(open_):
            return Draws(draws, anew)
        anew += len(open_)
    raise ValueError(
        f"{len(open_)} of {replicates} draws of {count} runs or trunks never hold enough different runs for a fit of "
        f"{problem.law.name}; add runs of other sizes and lengths, or ask for no interval (--bootstrap 0)"
    )


def _usable(problem: Problem, drawn: Bool[np.ndarray, "replicates runs"]) -> Bool[np.ndarray, "replicates"]:
    """Whether `isoflop.law.fit.check` would let each draw be fitted by itself."""
    law = problem.law
    columns = np.log(np.column_stack(list(problem.variables.values())))
    _, point = np.unique(columns, axis=0, return_inverse=True)
    usable = _different(drawn, point.ravel()) >= len(law.parameters)
    for letter in law.varied:
        column = np.log(problem.variables[letter])
        high = np.where(drawn, column, -np.inf).max(1)
        usable &= high - np.where(drawn, column, np.inf).min(1) >= SAME
        if "E" in law.parameters:
            usable &= _different(drawn, level_of(problem.variables[letter])) >= LEVELS
    return usable


def _different(
    drawn: Bool[np.ndarray, "replicates runs"], kind: Int64[np.ndarray, "runs"]
) -> Int64[np.ndarray, "replicates"]:
    """Count the kinds of runs in each draw."""
    return np.asarray((drawn.astype(np.float64) @ np.eye(kind.max() + 1)[kind] > 0).sum(1))
