"""Variable projection: of L = E + A·N^-α + B·D^-β only the exponents are searched, the rest is linear algebra."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64

EXPONENTS = (0.02, 1.5)
"""Range of α and β searched."""
SETS = ((0, 1), (0, 2), (1, 2), (0,), (1,), (2,))
"""Terms that may be left where the best solution has a negative one."""
STEPS = 30
"""Most steps from one optimum to that of other weights; six are usual."""


class Projection(NamedTuple):
    """Exponents, and the E, A, B ≥ 0 of least squared loss for them; one row a weighting of the runs."""

    alpha: Float64[np.ndarray, "batch"]
    beta: Float64[np.ndarray, "batch"]
    linear: Float64[np.ndarray, "batch three"]


def project(
    ln_n: Float64[np.ndarray, "runs"], ln_d: Float64[np.ndarray, "runs"], loss: Float64[np.ndarray, "runs"]
) -> Projection:
    """Return the least Σ(E + A·N^-α + B·D^-β − L)²: a grid of exponents that closes in, then steps."""
    center = np.log(EXPONENTS).mean() * np.ones(2)
    half = float(np.ptp(np.log(EXPONENTS))) / 2
    count = 25
    while half > 1e-9:
        axes = [np.exp(np.clip(c + half * np.linspace(-1, 1, count), *np.log(EXPONENTS))) for c in center]
        alpha, beta = (grid.ravel() for grid in np.meshgrid(*axes, indexing="ij"))
        cost, linear = _linear(alpha, beta, ln_n, ln_d, loss, np.ones((1, len(loss))))
        best = int(cost.argmin())
        center, half, count = np.log([alpha[best], beta[best]]), half * (0.25 if count == 25 else 0.6), 9
    found = Projection(alpha[[best]], beta[[best]], linear[[best]])
    # along a flat valley the grid may close in beside the bottom
    return project_again(found, ln_n, ln_d, loss, np.ones((1, len(loss))))


def project_again(
    start: Projection,
    ln_n: Float64[np.ndarray, "runs"],
    ln_d: Float64[np.ndarray, "runs"],
    loss: Float64[np.ndarray, "runs"],
    weights: Float64[np.ndarray, "batch runs"],
) -> Projection:
    """Return the optima of other weights, by damped Gauss-Newton steps of the exponents from this one."""
    exponents = np.log(np.repeat([[start.alpha[0], start.beta[0]]], len(weights), axis=0))
    damping = np.full(len(weights), 1e-4)
    cost, linear = _linear(np.exp(exponents[:, 0]), np.exp(exponents[:, 1]), ln_n, ln_d, loss, weights)
    for _ in range(STEPS if len(weights) else 0):
        step = _step(exponents, linear, damping, ln_n, ln_d, loss, weights)
        trial = np.clip(exponents + np.clip(step, -0.5, 0.5), *np.log(EXPONENTS))
        there, found = _linear(np.exp(trial[:, 0]), np.exp(trial[:, 1]), ln_n, ln_d, loss, weights)
        better = there < cost
        moved = np.abs(trial - exponents).max(1) * better
        exponents, cost = np.where(better[:, None], trial, exponents), np.where(better, there, cost)
        linear = np.where(better[:, None], found, linear)
        damping = np.clip(damping * np.where(better, 0.1, 10.0), 1e-12, 1e6)
        # far below what an interval of a few hundred draws can tell
        if moved.max() < 1e-5 and (better | (damping > 1e-2)).all():
            break
    return Projection(np.exp(exponents[:, 0]), np.exp(exponents[:, 1]), linear)


def _step(
    exponents: Float64[np.ndarray, "batch two"],
    linear: Float64[np.ndarray, "batch three"],
    damping: Float64[np.ndarray, "batch"],
    ln_n: Float64[np.ndarray, "runs"],
    ln_d: Float64[np.ndarray, "runs"],
    loss: Float64[np.ndarray, "runs"],
    weights: Float64[np.ndarray, "batch runs"],
) -> Float64[np.ndarray, "batch two"]:
    """Return the Gauss-Newton step of ln α and ln β, E, A and B free to follow."""
    alpha, beta = np.exp(exponents).T[:, :, None]
    n, d = np.exp(-alpha * ln_n), np.exp(-beta * ln_d)
    E, A, B = linear.T[:, :, None]
    slopes = np.stack([np.ones_like(n), n, d, -A * alpha * ln_n * n, -B * beta * ln_d * d], axis=1)
    pulled = slopes * weights[:, None]
    gram = pulled @ slopes.transpose(0, 2, 1)
    size = np.einsum("bii->bi", gram)
    gram = gram + np.eye(5) * (damping[:, None] * size + 1e-12 * size.max(1, keepdims=True))[:, None]
    residual = loss - (E + A * n + B * d)
    return np.asarray(np.linalg.solve(gram, pulled @ residual[:, :, None])[:, 3:, 0])


def _linear(
    alpha: Float64[np.ndarray, "batch"],
    beta: Float64[np.ndarray, "batch"],
    ln_n: Float64[np.ndarray, "runs"],
    ln_d: Float64[np.ndarray, "runs"],
    loss: Float64[np.ndarray, "runs"],
    weights: Float64[np.ndarray, "any runs"],
) -> tuple[Float64[np.ndarray, "batch"], Float64[np.ndarray, "batch three"]]:
    """Solve for (E, A, B) ≥ 0: all three where all are positive, else the best set of terms whose solution is."""
    n, d = np.exp(-np.outer(alpha, ln_n)), np.exp(-np.outer(beta, ln_d))
    design = np.stack([np.ones_like(n), n, d], axis=1)
    weights = np.broadcast_to(weights, n.shape)
    cost, out = _solved(design, loss, weights, (0, 1, 2))
    rest = np.flatnonzero(~np.isfinite(cost))
    for terms in SETS if len(rest) else ():
        misfit, found = _solved(design[rest], loss, weights[rest], terms)
        better: Bool[np.ndarray, "rest"] = misfit < cost[rest]
        cost[rest[better]], out[rest[better]] = misfit[better], found[better]
    return cost, out


def _solved(
    design: Float64[np.ndarray, "batch three runs"],
    loss: Float64[np.ndarray, "runs"],
    weights: Float64[np.ndarray, "batch runs"],
    terms: tuple[int, ...],
) -> tuple[Float64[np.ndarray, "batch"], Float64[np.ndarray, "batch three"]]:
    """Solve for these terms, the others 0; an infinite cost where one is negative."""
    part = design[:, list(terms)]
    pulled = part * weights[:, None]
    gram = pulled @ part.transpose(0, 2, 1)
    gram += 1e-14 * np.trace(gram, axis1=1, axis2=2)[:, None, None] * np.eye(len(terms))
    found = np.linalg.solve(gram, (pulled @ loss)[:, :, None])
    misfit = (weights * ((found.transpose(0, 2, 1) @ part)[:, 0] - loss) ** 2).sum(1)
    out = np.zeros((len(design), 3))
    out[:, list(terms)] = found[:, :, 0]
    return np.where((out >= 0).all(1), misfit, np.inf), out
