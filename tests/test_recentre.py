"""python -m pytest tests/test_recentre.py"""

import math
from dataclasses import replace

import pytest

from isoflop.record import Record, Records
from isoflop.study.recentre import EXPONENTS, next_centre


def sweep(best: dict[float, float]) -> Records:
    """Five sizes a budget, the best of each known."""
    made = [
        Record(id=f"{C:g}-{k}", params={"compute": N * 2.0**k}, tokens=1, flops=C, budget=C, loss=2 + 0.1 * k**2)
        for C, N in best.items()
        for k in (-2, -1, 0, 1, 2)
    ]
    return Records(tuple(made), source="made up")


def test_a_finished_budget_recentres_the_next() -> None:
    assert next_centre(sweep({}), 2e10) is None
    assert next_centre(sweep({1e10: 1e4}), 4e10) == pytest.approx(2e4)
    two = sweep({1e10: 1e4, 4e10: 1e4 * 4**0.6})
    assert next_centre(two, 1.6e11) == pytest.approx(1e4 * 16**0.6)
    assert next_centre(sweep({1e10: 1e4, 4e10: 1e5}), 1.6e11) == pytest.approx(1e5 * 4 ** EXPONENTS[1])
    edge = [replace(run, loss=math.log(run.params["compute"]) ** 0.5) for run in sweep({1e10: 1e4}).runs]
    assert next_centre(Records(tuple(edge), source=""), 4e10) == pytest.approx(2500 * 2)
