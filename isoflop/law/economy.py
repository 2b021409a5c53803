"""What tokens and sizes cost: served tokens, and the price of another size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from isoflop.law.laws import Optimum, Terms, Value

HALVINGS = 200
"""Steps of a bisection, more than the digits of a float need."""
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Sizes, over the optimum, whose price a plan tells."""


def inference_optimum(terms: Terms, quality: float, served: float) -> Optimum:
    """Return N and D of least 6ND + 2N·served at a fixed falling part of the loss (arXiv:2401.00448).

    Stationarity: αA·N^-α = βB·D^-β·(1 + served/(3D)).

    Args:
        terms: The falling part A·N^-α + B·D^-β.
        quality: Its value.
        served: Tokens that the trained model will read and write.
    """
    A, alpha, B, beta = (float(part) for part in terms)
    low = (np.log(B) - np.log(quality)) / beta
    high = low + np.log(1e12)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        tokens = B * np.exp(-beta * middle)
        if alpha * (quality - tokens) > beta * tokens * (1 + served * np.exp(-middle) / 3):
            high = middle
        else:
            low = middle
    return Optimum(((quality - B * np.exp(-beta * high)) / A) ** (-1 / alpha), np.exp(high))


def total_cost(N: Value, D: Value, served: float) -> Value:
    """FLOPs of training and serving, 6ND + 2N·served."""
    return 6 * N * D + 2 * N * served


@dataclass(frozen=True)
class Deviation:
    """What another size costs, in the law's own count with C = 6ND."""

    factor: float
    """N over its optimum."""
    params: float
    tokens: float
    """What the same budget pays for."""
    loss: float
    """At the same budget by the law alone, nats per token."""
    excess: float
    """Nats per token above the law's loss at its optimum."""
    flops_to_match: float | None
    """FLOPs for which this size reaches the optimum's loss; None: no number of tokens suffices."""


def tokens_to_reach(loss: float, D: Value, at: Value) -> float | None:
    """Return the D at which a falling curve of losses `at` reaches a loss, by interpolation in ln; None beyond."""
    curve = np.minimum.accumulate(np.asarray(at))
    if not curve[-1] <= loss <= curve[0]:
        return None
    # a curve that has become flat reaches its last loss where it first has it
    first = int(np.argmax(curve <= loss))
    near = slice(max(first - 1, 0), first + 1)
    return float(np.exp(np.interp(-loss, -curve[near], np.log(np.asarray(D)[near]))))
