"""The engine of every fit: Huber objectives of ln L, many starts and many weightings minimised together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from isoflop.law.laws import Law

FAR = 30.0
"""Bounds lie this factor outside the range where a parameter starts."""
NOTHING = 1e-12
"""A step that promises less than this part of the objective is the last."""
STEPS = 500
"""Most steps of one descent; 10 to 40 are usual, a flat curved valley takes hundreds."""
SAME_VALLEY = 0.01
"""Descents of one problem nearer than this in every coordinate of θ go on as one: over such a stretch a law is straight
to 1e-4, and Huber's loss of a straight law has one minimum."""
BLOCK = 30_000
"""Runs times descents handled at once, so that a block's arrays stay in the cache."""


@dataclass(frozen=True)
class Prior:
    """A normal prior on the product of some parameters, or on the product's logarithm."""

    of: tuple[str, ...]
    mean: Float64[np.ndarray, "batch"]
    sd: Float64[np.ndarray, "batch"]
    log: bool = False


@dataclass(frozen=True)
class Problem:
    """Minimise Σ w·ρ_δ(ln L(θ) − ln L) + ½·Σ ((prior − mean)/sd)² over θ, one row of weights a problem.

    ρ_δ(r) is r²/2 up to |r| = δ and δ·(|r| − δ/2) beyond (Huber). θ is the vector of ln parameters.
    """

    law: Law
    variables: Mapping[str, Float64[np.ndarray, "runs"]]
    """Over their geometric means."""
    ln_loss: Float64[np.ndarray, "runs"]
    """Of the loss over its minimum."""
    weights: Float64[np.ndarray, "batch runs"]
    delta: Float64[np.ndarray, "batch"]
    priors: tuple[Prior, ...] = ()

    def take(self, index: np.ndarray) -> Problem:
        """Return the problems at these positions; a position may occur many times."""
        priors = tuple(replace(prior, mean=prior.mean[index], sd=prior.sd[index]) for prior in self.priors)
        return replace(self, weights=self.weights[index], delta=self.delta[index], priors=priors)

    def join(self, other: Problem) -> Problem:
        """Return these problems and others of the same runs, law and priors."""
        priors = tuple(
            replace(prior, mean=np.append(prior.mean, more.mean), sd=np.append(prior.sd, more.sd))
            for prior, more in zip(self.priors, other.priors, strict=True)
        )
        weights = np.concatenate([self.weights, other.weights])
        return replace(self, weights=weights, delta=np.append(self.delta, other.delta), priors=priors)


class Quadratic(NamedTuple):
    """An objective near a point; curvature of the runs within δ, and of those beyond by iterative reweighting."""

    objective: Float64[np.ndarray, "batch"]
    gradient: Float64[np.ndarray, "batch params"]
    inner: Float64[np.ndarray, "batch params params"]
    outer: Float64[np.ndarray, "batch params params"]

    def take(self, index: np.ndarray) -> Quadratic:
        """Return the rows at these positions."""
        return Quadratic(*(part[index] for part in self))


class Solution(NamedTuple):
    """Where each problem is least, and how much it is there."""

    theta: Float64[np.ndarray, "batch params"]
    objective: Float64[np.ndarray, "batch"]


def bounds(law: Law) -> tuple[Float64[np.ndarray, "params"], Float64[np.ndarray, "params"]]:
    """Return the lowest and the highest θ."""
    low, high = np.log(np.array(list(law.ranges.values()))).T
    return low - np.log(FAR), high + np.log(FAR)


def starts(law: Law, count: int) -> Float64[np.ndarray, "count params"]:
    """Spread points evenly over the ranges of ln θ: the additive recurrence of the generalised golden ratio.

    Source: M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018.
    """
    low, high = np.log(np.array(list(law.ranges.values()))).T
    dimension = len(low)
    ratio = 2.0
    for _ in range(50):
        ratio = (1 + ratio) ** (1 / (dimension + 1))
    turns = np.arange(1, count + 1)[:, None] * ratio ** -np.arange(1.0, dimension + 1)
    return np.asarray(low + (0.5 + turns) % 1 * (high - low))


def solve(problem: Problem, start: Float64[np.ndarray, "starts batch params"]) -> Solution:
    """Minimise every problem from each of its starts and keep the least."""
    count, batch, params = start.shape
    rows = np.repeat(np.arange(batch), count)
    done = descend(problem, rows, start.transpose(1, 0, 2).reshape(-1, params))
    theta, objective = done.theta.reshape(batch, count, params), done.objective.reshape(batch, count)
    best = np.arange(batch), np.argmin(objective, axis=1)
    return Solution(theta[best], objective[best])


def residuals(problem: Problem, theta: Float64[np.ndarray, "batch params"]) -> Float64[np.ndarray, "batch runs"]:
    """Return ln L(θ) − ln L."""
    parameters = {name: np.exp(theta[:, [i]]) for i, name in enumerate(problem.law.parameters)}
    return np.asarray(np.log(problem.law(**problem.variables, **parameters)) - problem.ln_loss)


class Sandwich(NamedTuple):
    """The parts of Huber's covariance H⁻¹·M·H⁻¹ of θ."""

    inverse: Float64[np.ndarray, "batch params params"]
    """H⁻¹, H the expected curvature."""
    meat: Float64[np.ndarray, "batch params params"]
    """M = Σ w²ψ²·jjᵀ."""


def sandwich(problem: Problem, theta: Float64[np.ndarray, "batch params"]) -> Sandwich:
    """Estimate H and M (Huber 1967); H⁻¹ is huge where H is singular.

    Where only a few residuals lie within δ, H must know their density: ψ' is the mean of ψ's slope over r ± h, with
    Silverman's h = 1.06·σ·n^(-1/5) and σ = 1.4826·MAD.
    """
    residual, slope, _ = _linear(problem, theta)
    delta = problem.delta[:, None]
    away = np.abs(residual - np.median(residual, axis=1, keepdims=True))
    h = np.maximum(1.06 * 1.4826 * np.median(away, axis=1, keepdims=True) * residual.shape[1] ** -0.2, 1e-15)
    within = np.clip(residual + h, -delta, delta) - np.clip(residual - h, -delta, delta)
    across = slope.transpose(0, 2, 1)
    pull = problem.weights * within / (2 * h)
    bread = (slope * pull[:, None]) @ across
    bread = bread + 1e-12 * np.eye(theta.shape[1]) * bread.max((1, 2), keepdims=True)
    inverse = np.linalg.inv(bread)
    # a run that pulls the curve to itself leaves a small residual (HC3 of MacKinnon & White 1985)
    leverage = pull * np.einsum("bpr,bpq,bqr->br", slope, inverse, slope)
    score = problem.weights * np.clip(residual, -delta, delta) / np.maximum(1 - leverage, 0.1)
    return Sandwich(inverse, np.asarray((slope * score[:, None] ** 2) @ across))


def covariance(
    problem: Problem, theta: Float64[np.ndarray, "batch params"]
) -> Float64[np.ndarray, "batch params params"]:
    """Estimate the covariance of θ by the sandwich."""
    inverse, meat = sandwich(problem, theta)
    return np.asarray(inverse @ meat @ inverse)


def expand(problem: Problem, theta: Float64[np.ndarray, "batch params"]) -> Quadratic:
    """Evaluate the objective, its gradient and its two curvatures."""
    residual, slope, finite = _linear(problem, theta)
    delta = problem.delta[:, None]
    size = np.abs(residual)
    least = np.minimum(size, delta)
    pull = problem.weights * (delta / np.maximum(size, delta))
    inside = pull * (size <= delta)
    across = slope.transpose(0, 2, 1)
    near = Quadratic(
        objective=np.where(finite, np.einsum("br,br,br->b", problem.weights, least, size - 0.5 * least), np.inf),
        gradient=(slope @ (pull * residual)[:, :, None])[:, :, 0],
        inner=(slope * inside[:, None]) @ across,
        outer=(slope * (pull - inside)[:, None]) @ across,
    )
    for prior in problem.priors:
        near = _with_prior(near, prior, problem.law.parameters, theta)
    return near


def _linear(
    problem: Problem, theta: Float64[np.ndarray, "batch params"]
) -> tuple[Float64[np.ndarray, "batch runs"], Float64[np.ndarray, "batch params runs"], Bool[np.ndarray, "batch"]]:
    """Return residuals, their derivatives, and whether all are finite (a wild step may overflow)."""
    names = problem.law.parameters
    with np.errstate(all="ignore"):
        parameters = {name: np.exp(theta[:, [i]]) for i, name in enumerate(names)}
        value, slopes = problem.law.linearise(problem.variables, parameters)
        residual = np.log(value) - problem.ln_loss
        slope = np.empty((len(theta), len(names), len(problem.ln_loss)))
        inverse = 1 / value
        for i, name in enumerate(names):
            np.multiply(slopes[name], inverse, out=slope[:, i])
        # a sum is finite only if all of it is, and costs half of asking each
        finite = np.isfinite(residual.sum(1) + slope.sum((1, 2)))
    if not finite.all():
        residual[~finite], slope[~finite] = 0.0, 0.0
    return residual, slope, finite


def _with_prior(
    near: Quadratic, prior: Prior, names: tuple[str, ...], theta: Float64[np.ndarray, "batch params"]
) -> Quadratic:
    member = np.array([float(name in prior.of) for name in names])
    ln_product = theta @ member
    product = ln_product if prior.log else np.exp(ln_product)
    z = (product - prior.mean) / prior.sd
    slope = np.outer(np.ones(len(theta)) if prior.log else product, member) / prior.sd[:, None]
    return near._replace(
        objective=near.objective + 0.5 * z * z,
        gradient=near.gradient + z[:, None] * slope,
        inner=near.inner + slope[:, :, None] * slope[:, None, :],
    )


class Descents(NamedTuple):
    """Descents under way."""

    problem: Problem
    theta: Float64[np.ndarray, "batch params"]
    near: Quadratic
    damping: Float64[np.ndarray, "batch"]
    steps: Int64[np.ndarray, "batch"]
    """Taken so far."""
    place: Int64[np.ndarray, "batch"]
    """Of each among all that were asked for."""

    def take(self, index: np.ndarray) -> Descents:
        """Return the descents at these positions."""
        problem, theta, near, *rest = self
        return Descents(problem.take(index), theta[index], near.take(index), *(part[index] for part in rest))

    def join(self, other: Descents) -> Descents:
        """Return these and the others."""
        near = Quadratic(*map(np.concatenate, zip(self.near, other.near, strict=True)))
        theta, *rest = map(np.concatenate, zip((self.theta, *self[3:]), (other.theta, *other[3:]), strict=True))
        return Descents(self.problem.join(other.problem), theta, near, *rest)


def descend(problem: Problem, rows: Int64[np.ndarray, "batch"], start: Float64[np.ndarray, "batch params"]) -> Solution:
    """Minimise the problems of these rows, each from its start; neighbours of one row that meet go on as one.

    A block of descents is filled up whenever half of it is done, so that the few slow ones never run alone.
    """
    start = np.clip(start, *bounds(problem.law))
    out = Solution(start.copy(), np.empty(len(start)))
    size = max(2, BLOCK // len(problem.ln_loss))
    now, begun = _begin(problem, rows[:0], start[:0], 0), 0
    while begun < len(rows) or len(now.place):
        if begun < len(rows) and len(now.place) <= size // 2:
            new = slice(begun, begun + size - len(now.place))
            now, begun = now.join(_begin(problem, rows[new], start[new], begun)), new.stop
        now, on = _advance(now)
        out.theta[now.place], out.objective[now.place] = now.theta, now.near.objective
        on &= ~_met(now, rows[now.place])
        if not on.all():
            now = now.take(on)
    return out


def _begin(
    problem: Problem, rows: Int64[np.ndarray, "batch"], theta: Float64[np.ndarray, "batch params"], first: int
) -> Descents:
    some, count = problem.take(rows), len(rows)
    place = np.arange(first, first + count)
    return Descents(some, theta, expand(some, theta), np.ones(count), np.zeros(count, dtype=np.int64), place)


def _met(now: Descents, row: Int64[np.ndarray, "batch"]) -> Bool[np.ndarray, "batch"]:
    """Whether a neighbour that descends in the same valley for the same problem is not above this one."""
    met = np.zeros(len(row), dtype=bool)
    for k in (1, 2):
        near = (row[k:] == row[:-k]) & (np.abs(now.theta[k:] - now.theta[:-k]).max(1) < SAME_VALLEY)
        above = now.near.objective[k:] >= now.near.objective[:-k]
        met[k:] |= near & above
        met[:-k] |= near & ~above
    return met


def _advance(now: Descents) -> tuple[Descents, Bool[np.ndarray, "batch"]]:
    """Take one damped Newton step of each; also return which go on: not where it was under 1e-9 or promised nothing.

    The damping μ leads from Huber's own curvature (μ → 0, fast at the end) to that of iterative reweighting (μ = 1,
    sure to descend where the law is nearly linear) and beyond, by the ratio of gain to promise (Nielsen 1999).
    """
    problem, theta, near, damping, steps, place = now
    trial, promise, cut = _step(near, theta, damping, problem.law)
    there = expand(problem, trial)
    known = np.isfinite(there.objective)
    gain = np.where(known, near.objective, 0.0) - np.where(known, there.objective, np.inf)
    short = np.abs(trial - theta).max(1) < 1e-9
    better = gain >= 0
    theta = np.where(better[:, None], trial, theta)
    near = Quadratic(*(np.where(_like(better, new), new, old) for new, old in zip(there, near, strict=True)))
    # a step cut by a bound may promise less than nothing
    faith = np.where((gain <= 0) | (gain < 0.25 * promise), 6, np.where(gain > 0.7 * promise, 0.15, 1))
    damping = np.clip(damping * faith, 1e-8, 1e12)
    # what is left after a step of Newton's is far less than the step has promised
    on = ~(short | (~cut & (promise < NOTHING * near.objective))) & (steps < STEPS)
    return Descents(problem, theta, near, damping, steps + 1, place), on


def _like(mask: Bool[np.ndarray, "batch"], part: np.ndarray) -> np.ndarray:
    return mask.reshape(-1, *[1] * (part.ndim - 1))


def _step(
    near: Quadratic,
    theta: Float64[np.ndarray, "batch params"],
    damping: Float64[np.ndarray, "batch"],
    law: Law,
) -> tuple[Float64[np.ndarray, "batch params"], Float64[np.ndarray, "batch"], Bool[np.ndarray, "batch"]]:
    """Return the next point within the bounds, the descent promised there, and whether a bound cut it short."""
    low, high = bounds(law)
    free = ~(((theta <= low) & (near.gradient > 0)) | ((theta >= high) & (near.gradient < 0)))
    size = np.einsum("bii->bi", near.inner + near.outer)
    top = size.max(1, keepdims=True)
    curvature = near.inner + damping[:, None, None] * near.outer
    curvature += np.eye(len(low)) * (0.01 * damping[:, None] * size + 1e-12 * top + 1e-300)[:, None]
    step = _newton(curvature, near.gradient, free)
    step *= np.minimum(1.0, 2.0 / np.maximum(np.abs(step).max(1, keepdims=True), 1e-300))
    beyond = (theta + step < low) | (theta + step > high)
    cut = beyond.any(1)
    if cut.any():  # what meets a bound stops there, and the rest steps again knowing it
        stopped = np.where(beyond, np.clip(theta + step, low, high) - theta, 0.0)[cut]
        left = near.gradient[cut] + np.einsum("bij,bj->bi", curvature[cut], stopped)
        again = stopped + np.clip(_newton(curvature[cut], left, (free & ~beyond)[cut]), -2.0, 2.0)
        step[cut] = np.clip(theta[cut] + again, low, high) - theta[cut]
    promise = -(near.gradient * step).sum(1) - 0.5 * np.einsum("bi,bij,bj->b", step, curvature, step)
    return np.clip(theta + step, low, high), promise, np.asarray(cut)


def _newton(
    curvature: Float64[np.ndarray, "batch params params"],
    gradient: Float64[np.ndarray, "batch params"],
    free: Bool[np.ndarray, "batch params"],
) -> Float64[np.ndarray, "batch params"]:
    """Step to the bottom of a quadratic along the free coordinates."""
    size = np.maximum(np.einsum("bii->bi", curvature).max(1), 1e-300)
    held = np.where(free[:, :, None] & free[:, None, :], curvature, size[:, None, None] * np.eye(free.shape[1]))
    return np.asarray(-np.linalg.solve(held, (gradient * free)[:, :, None])[:, :, 0])
