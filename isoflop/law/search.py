"""Searches for the best optimum there is: of one weighting of the runs, and of many replicates together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from jaxtyping import Float64, Int64

from isoflop.law.solve import Problem, Solution, residuals, solve, starts

AGREE = 1e-7
"""Objectives nearer than this part of themselves, or than 1e-15 a run, are one optimum."""
ROUNDS = 12
"""Most rounds of a search, with as many hops and fresh starts each as a fit has starts."""
SCOUTS = 64
"""Replicates that are minimised from many starts for the others."""
POOL = 256
"""Most optima that replicates try of each other's."""
UNLIKE = 0.3
"""Points farther apart than this in a coordinate of θ may lie in different valleys."""
BESIDE = (0.5, 0.2)
"""How far beside its optimum a replicate starts again, in standard deviations of all optima along their valley."""
SMOOTHER = (3.0, 10.0)
"""Factors of δ under which a replicate is minimised on the way to a neighbouring optimum: 3 finds most of those
known, 10 one more."""
RARE = 0.02
"""Where fewer replicates than this part gain by starting again, only they go on."""
AGAIN = 3
"""An optimum that so many fresh starts have reached is taken for the best."""
VALLEYS = 6
"""Other valleys that a replicate visits."""
EASY = 0.9
"""Where more than this part of the scouts' starts reach their best, replicates need few fresh starts."""
SAME_LEAST = 1e-6
"""Starts whose objectives differ by less than this part have reached the same optimum, or its neighbour at a kink."""


def search(problem: Problem, count: int) -> Solution:
    """Minimise one problem from `count` starts; where half of them disagree, hop about the best and start anew.

    The hops are starts shrunk towards the best, at most by half and at least to a thirtieth of their spread; a search
    ends when three rounds bring nothing new.
    """
    points = starts(problem.law, count * (1 + ROUNDS)).reshape(1 + ROUNDS, count, -1)
    one = problem.take(np.zeros(count, dtype=np.int64))
    found = solve(one, points[:1])
    best = int(found.objective.argmin())
    theta, least = found.theta[best], float(found.objective[best])
    same = AGREE * least + _rounding(problem)
    quiet = 3 if (found.objective <= least + same).mean() > 0.5 else 0
    low, high = np.log(np.array(list(problem.law.ranges.values()))).T
    reach = np.geomspace(0.03, 0.5, count)[:, None]
    for fresh in points[1:]:
        if quiet == 3:
            break
        found = solve(one, np.stack([fresh, theta + reach * (fresh - (low + high) / 2)]))
        best = int(found.objective.argmin())
        quiet = 0 if found.objective[best] < least - same else quiet + 1
        if found.objective[best] < least:
            theta, least = found.theta[best], float(found.objective[best])
    return Solution(theta[None], np.array([least]))


def search_replicates(problem: Problem, theta: Float64[np.ndarray, "1 params"], count: int) -> Solution:
    """Minimise many weightings of the same runs, each from `theta` and from two optima of other replicates.

    A few replicates are scouts, who descend from fresh starts. All weightings are judged at one point by one product
    of weights and costs, so every replicate can choose among hundreds: the cheapest optimum, and the cheapest that is
    unlike it; again for as long as others have found what is better for it; then from points to either side of its
    optimum, and from where a larger δ leads from there. Where a scout finds what lies beyond
    `theta`, all replicates descend from fresh starts, too, until one has reached what is best; where the scouts' starts
    disagree, until AGAIN have, for POOL of the replicates, from whom the others learn.
    """
    batch = len(problem.weights)
    scouts = np.arange(0, batch, max(1, batch // SCOUTS))[:SCOUTS]
    fresh = starts(problem.law, count // 2)
    found = solve(problem.take(np.tile(scouts, len(fresh))), np.repeat(fresh, len(scouts), axis=0)[None])
    objectives = found.objective.reshape(len(fresh), -1)
    least = objectives.min(0)
    easy = (objectives <= least * (1 + SAME_LEAST) + _rounding(problem)).mean() > EASY
    led = solve(problem.take(scouts), np.repeat(theta, len(scouts), axis=0)[None])
    pool = np.concatenate([theta, found.theta, led.theta])
    best = solve(problem, np.stack([np.repeat(theta, batch, axis=0), *_two(pool, problem)]))
    if not easy or (led.objective > least * (1 + AGREE) + _rounding(problem)).any():
        _start_afresh(problem, best, 1 if easy else AGAIN, count if easy else 2 * count)
    _exchange(problem, best)
    _sampled(problem, best, _start_beside)
    _sampled(problem, best, _start_smoother)
    _exchange(problem, best)
    sample = np.arange(0, batch, max(1, batch // POOL))
    if _visit(problem, best, sample) > RARE and len(sample) < batch:
        _visit(problem, best, np.setdiff1d(np.arange(batch), sample))
    return best


def _visit(problem: Problem, best: Solution, rows: Int64[np.ndarray, "rows"]) -> float:
    """Start these replicates from the cheapest of the optima in each other valley; return the part that gained."""
    asked, before = rows, best.objective[rows]
    for _ in range(ROUNDS):
        pool = best.theta[:: max(1, len(best.theta) // POOL)]
        now = best.objective[rows]
        costs = problem.weights[rows] @ _costs(problem, pool).T
        near = [best.theta[rows]]
        for _ in range(VALLEYS):
            away = np.abs(near[-1][:, None] - pool).max(2) > UNLIKE
            costs = np.where(away, costs, np.inf)
            there = np.asarray(np.isfinite(costs).any(1))
            near.append(np.where(there[:, None], pool[costs.argmin(1)], near[-1]))
            some = np.flatnonzero(there)
            if not len(some):
                break
            _accept(best, rows[some], solve(problem.take(rows[some]), near[-1][None, some]))
        rows = rows[np.flatnonzero(best.objective[rows] < now * (1 - AGREE) - _rounding(problem))]
        if not len(rows):
            break
    return float((best.objective[asked] < before * (1 - AGREE) - _rounding(problem)).mean())


def _start_afresh(problem: Problem, best: Solution, again: int, count: int) -> None:
    """Start each replicate afresh until so many starts have reached its best, at most `count` times."""
    rows, points = np.arange(len(problem.weights)), starts(problem.law, count)
    hits = np.zeros(len(rows), dtype=np.int64)
    while len(points) and len(rows):
        now, points = np.split(points, [max(1, SCOUTS // len(rows))])
        # a row for each start, so that none stops where it meets another
        found = solve(problem.take(np.tile(rows, len(now))), np.repeat(now, len(rows), axis=0)[None])
        for part in range(0, len(found.objective), len(rows)):
            one = Solution(*(column[part : part + len(rows)] for column in found))
            same = SAME_LEAST * best.objective[rows] + _rounding(problem)
            hits[rows[one.objective < best.objective[rows] - same]] = 0
            _accept(best, rows, one)
            hits[rows[one.objective <= best.objective[rows] + same]] += 1
        rows = rows[hits[rows] < again]


def _sampled(
    problem: Problem, best: Solution, start: Callable[[Problem, Solution, Int64[np.ndarray, "rows"]], bool]
) -> None:
    """Let a sample of the replicates start again, and all others where one of it gains."""
    batch = len(problem.weights)
    sample = np.arange(0, batch, max(1, batch // POOL))
    if start(problem, best, sample) and len(sample) < batch:
        start(problem, best, np.setdiff1d(np.arange(batch), sample))


def _start_smoother(problem: Problem, best: Solution, rows: Int64[np.ndarray, "rows"]) -> bool:
    """Start these replicates from where they are least under a larger δ; say whether it helped.

    The kinks of Huber's loss make neighbouring optima along a flat valley, and fewer where δ is larger (graduated
    non-convexity, Blake & Zisserman 1987).
    """
    some, before = problem.take(rows), best.objective[rows]
    for factor in SMOOTHER:
        smooth = solve(replace(some, delta=factor * some.delta), best.theta[None, rows])
        _accept(best, rows, solve(some, smooth.theta[None]))
    return bool((best.objective[rows] < before * (1 - AGREE) - _rounding(problem)).any())


def _start_beside(problem: Problem, best: Solution, rows: Int64[np.ndarray, "rows"]) -> bool:
    """Start these replicates beside their optima and, where that helps many, hop about; say whether it helped.

    The kinks of Huber's loss make neighbouring optima along a flat valley, and none is the cheapest of others' to
    start from. The valley is the first principal axis of the replicates' optima.
    """
    helped = False
    hops = starts(problem.law, 2 * ROUNDS) - starts(problem.law, 2 * ROUNDS).mean(0)
    reach = np.geomspace(0.05, 0.7, ROUNDS)
    for turn in range(len(BESIDE) + ROUNDS):
        if turn < len(BESIDE):
            start = _sides(problem.take(rows), best.theta[rows], best.theta, BESIDE[turn])
        else:
            hop = turn - len(BESIDE)
            start = best.theta[rows] + reach[hop] * hops[2 * hop : 2 * hop + 2, None]
        before = best.objective[rows]
        _accept(best, rows, solve(problem.take(rows), start))
        better = best.objective[rows] < before * (1 - AGREE) - _rounding(problem)
        helped |= bool(better.any())
        if turn + 1 >= len(BESIDE) and better.mean() < RARE:
            rows = rows[better]
        if not len(rows):
            break
    return helped


def _sides(
    problem: Problem, own: Float64[np.ndarray, "batch params"], known: Float64[np.ndarray, "known params"], gap: float
) -> Float64[np.ndarray, "two batch params"]:
    """Return each problem's cheapest known point to either side of its own, at least `gap` of their spread away."""
    pool = known[:: max(1, len(known) // POOL)]
    middle = pool.mean(0)
    axis = np.linalg.svd(pool - middle, full_matrices=False)[2][0]
    along, here = (pool - middle) @ axis, (own - middle) @ axis
    costs = problem.weights @ _costs(problem, pool).T
    away = along - here[:, None]
    sides = []
    for side in (away, -away):
        there = side > gap * along.std()
        nearest = pool[np.where(there, costs, np.inf).argmin(1)]
        sides.append(np.where(there.any(1)[:, None], nearest, own))
    return np.stack(sides)


def _exchange(problem: Problem, best: Solution) -> None:
    """Let replicates start from each other's optima while that helps one of them."""
    batch = len(problem.weights)
    for _ in range(ROUNDS):
        first, _ = _two(best.theta[:: max(1, batch // POOL)], problem)
        cost = (problem.weights * _costs(problem, first)).sum(1)
        worth = np.flatnonzero(cost < best.objective * (1 - AGREE) - _rounding(problem))
        if not len(worth):
            break
        _accept(best, worth, solve(problem.take(worth), first[None, worth]))


def _accept(best: Solution, where: np.ndarray, found: Solution) -> None:
    """Write what is better over the best."""
    better = found.objective < best.objective[where]
    best.theta[where[better]], best.objective[where[better]] = found.theta[better], found.objective[better]


def _rounding(problem: Problem) -> float:
    """What noise-free runs leave of an objective."""
    return 1e-15 * len(problem.ln_loss)


def _two(
    pool: Float64[np.ndarray, "points params"], problem: Problem
) -> tuple[Float64[np.ndarray, "batch params"], Float64[np.ndarray, "batch params"]]:
    """Return each problem's cheapest point, and its cheapest that is unlike that one."""
    costs = problem.weights @ _costs(problem, pool).T
    first = costs.argmin(1)
    unlike = np.abs(pool[:, None] - pool).max(2) > UNLIKE
    second = np.where(unlike[first], costs, np.inf).argmin(1)
    return pool[first], pool[second]


def _costs(problem: Problem, theta: Float64[np.ndarray, "points params"]) -> Float64[np.ndarray, "points runs"]:
    """Huber's loss of each run at each point, at the first problem's δ."""
    size, delta = np.abs(residuals(problem, theta)), float(problem.delta[0])
    return np.asarray(np.where(size <= delta, 0.5 * size * size, delta * (size - 0.5 * delta)))
