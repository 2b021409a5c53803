"""python -m pytest tests/test_points.py"""

from dataclasses import replace

import numpy as np
import pytest

from isoflop.law.points import points
from tests.recipes import recipe


def test_seeds_are_points_of_their_own() -> None:
    a = recipe(400, 0.15, seeds=(0, 1), sizes=(0.5, 1.0, 2.0))
    assert points(a, "flop").seed == (0, 1) * 4
    lonely = replace(
        a, runs=(*a.runs[:6], *(run for run in a.runs[6:] if not (run.id.startswith("1-1") and "0.5" in run.id)))
    )
    assert points(lonely, "flop").seed == (0, 1, None, 0, 1, 0, 1)


def test_the_best_size_is_the_bottom_of_a_parabola_or_else_the_lowest_run() -> None:
    around = points(recipe(400, 0.15, sizes=(0.4, 0.7, 1.9)), "flop")
    assert around.loss == pytest.approx(2.0 + 400 * around.budget**-0.15, abs=1e-9)
    beside = points(recipe(400, 0.15, sizes=(2.0, 3.0, 4.0)), "token")
    assert beside.loss == pytest.approx(2.0 + 400 * beside.budget**-0.15 + 0.02 * np.log(2) ** 2)
    assert beside.x == pytest.approx((beside.budget * 120) ** 0.5 / 6 / 2)


def test_a_run_without_a_loss_is_refused() -> None:
    a = recipe(400, 0.15, name="A")
    for loss in (None, float("nan"), float("inf"), -1.0):
        broken = replace(a, runs=(replace(a.runs[0], loss=loss), *a.runs[1:]))
        with pytest.raises(ValueError, match=rf"run 0-None-1\.0 of A has the loss {loss}; leave it out"):
            points(broken, "flop")


@pytest.mark.parametrize("change", [{"tokens": float("nan")}, {"flops": float("inf")}, {"params": {"given": 0.0}}])
def test_a_run_with_numbers_that_no_run_has_is_refused(change: dict) -> None:
    a = recipe(400, 0.15, name="A")
    broken = replace(a, runs=(replace(a.runs[0], **change), *a.runs[1:]))
    with pytest.raises(ValueError, match=r"run 0-None-1\.0 of A has params=.*which no run has"):
        points(broken, "flop")
