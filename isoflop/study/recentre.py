"""Where a study's next budget has its optimum, from the budgets that are done."""

from __future__ import annotations

import math

import numpy as np

from isoflop.record import Floats, Records

EXPONENTS = (0.37, 0.7)
"""Least and greatest exponent of N* that a recentred study follows: what one sweep gives under every count of N."""


def next_centre(records: Records, budget: float) -> float | None:
    """N where the next budget's optimum is expected: N* of the last one along the line through all that are smaller.

    N* of a budget is the bottom of a parabola in ln N, or the best size where that lies outside the sampled ones. Its
    exponent is held within `EXPONENTS`, and is ½ until two budgets are known.

    Returns:
        None while no smaller budget has three complete runs.
    """
    found: list[tuple[float, float]] = []
    for smaller in sorted({run.budget for run in records.runs if run.budget is not None and run.budget < budget}):
        group = records.take([run.budget == smaller for run in records.runs])
        if len(group) >= 3:
            found.append((math.log(smaller), _best_size(np.log(group.N), group.L)))
    if not found:
        return None
    C, N = np.array(found).T
    slope = float(np.polyfit(C, N, 1)[0]) if len(C) > 1 else 0.5
    low, high = EXPONENTS
    return math.exp(N[-1] + min(high, max(low, slope)) * (math.log(budget) - C[-1]))


def _best_size(ln_n: Floats, losses: Floats) -> float:
    bend, slope, _ = np.polyfit(ln_n, losses, 2)
    bottom = -slope / (2 * bend) if bend > 0 else math.inf
    return float(bottom if ln_n.min() < bottom < ln_n.max() else ln_n[losses.argmin()])
