"""Power laws of one variable with an offset, L = L∞ + a·x^-α, fitted to many replicates of the losses at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from isoflop.record import Floats

GRID, ZOOMS = 33, 7
"""Values of L∞ tried at once, and how often the best is looked at closer: to 16^-7 of the smallest loss."""

FLATTEST = 1e-3
"""Least exponent."""


class Curves(NamedTuple):
    """Frontiers L = floor + exp(level)·x^-alpha: numbers, or replicates along the first axis."""

    floor: Float64[np.ndarray, "replicates"]
    level: Float64[np.ndarray, "replicates"]
    alpha: Float64[np.ndarray, "replicates"]

    def loss(self, x: Floats) -> Float64[np.ndarray, "replicates x"]:
        """L at x, nats per token."""
        return np.asarray(self.floor[:, None] + np.exp(self.level[:, None] - self.alpha[:, None] * np.log(x)))

    def needed(self, loss: Float64[np.ndarray, "replicates x"]) -> Float64[np.ndarray, "replicates x"]:
        """Return the x at which a loss is reached; infinite at the floor and below."""
        above = loss - self.floor[:, None]
        ln_x = (self.level[:, None] - np.log(np.where(above > 0, above, 1.0))) / self.alpha[:, None]
        return np.where(above > 0, np.exp(np.minimum(ln_x, 700.0)), np.inf)


class Lines(NamedTuple):
    """Frontiers for several floors of every replicate, and the sum of their squared errors in ln L."""

    floor: Float64[np.ndarray, "replicates floors"]
    level: Float64[np.ndarray, "replicates floors"]
    alpha: Float64[np.ndarray, "replicates floors"]
    cost: Float64[np.ndarray, "replicates floors"]


def pick(lines: Lines, best: np.ndarray | None = None) -> Curves:
    """Return one frontier of each replicate: the first, or those at the given positions."""
    where = np.arange(len(lines.floor)), np.zeros(len(lines.floor), dtype=int) if best is None else best
    return Curves(lines.floor[where], lines.level[where], lines.alpha[where])


def lines_at(x: Floats, loss: Float64[np.ndarray, "replicates points"], floor: Floats) -> Lines:
    """Fit level and exponent for given floors, by weighted least squares of ln(L − L∞)."""
    above = np.maximum(loss[:, None] - floor[:, :, None], 1e-12 * loss[:, None])
    y = np.log(above)
    # an error of ln L is one of ln(L − L∞), times (L − L∞)/L
    weight = (above / loss[:, None]) ** 2
    weight /= weight.sum(-1, keepdims=True)
    x_mean, y_mean = (weight * x).sum(-1, keepdims=True), (weight * y).sum(-1, keepdims=True)
    alpha = -(weight * (x - x_mean) * (y - y_mean)).sum(-1) / (weight * (x - x_mean) ** 2).sum(-1)
    # a frontier that does not fall is no frontier: it is held nearly flat
    alpha = np.maximum(alpha, FLATTEST)
    level = y_mean[..., 0] + alpha * x_mean[..., 0]
    found = floor[:, :, None] + np.exp(level[..., None] - alpha[..., None] * x)
    cost = ((np.log(found) - np.log(loss[:, None])) ** 2).sum(-1)
    return Lines(floor, level, alpha, cost)


def common_floor(x: list[Floats], losses: list[Floats]) -> list[Curves]:
    """Find the floor that all the given frontiers share."""
    least = np.min([loss.min(1) for loss in losses], axis=0)
    low, high = np.zeros(len(least)), np.full(len(least), 1 - 1e-6)
    for _ in range(ZOOMS):
        part = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, GRID)
        lines = [lines_at(at, loss, part * least[:, None]) for at, loss in zip(x, losses, strict=True)]
        best = np.argmin(sum(line.cost for line in lines), axis=1)
        step = (high - low) / (GRID - 1)
        centre = part[np.arange(len(best)), best]
        low, high = np.maximum(centre - step, 0.0), np.minimum(centre + step, 1 - 1e-6)
    return [pick(line, best) for line in lines]
