"""python -m pytest tests/test_economy.py"""

import numpy as np
import pytest

from isoflop.law.economy import inference_optimum, tokens_to_reach, total_cost
from isoflop.law.laws import LAWS, PUBLISHED, Terms


def test_serving_13b_for_two_trillion_tokens_wants_a_smaller_model() -> None:
    terms = LAWS["chinchilla"].terms(PUBLISHED["hoffmann2022_tex"].parameters)
    A, alpha, B, beta = terms
    N = 13e9
    D = (alpha * A * N**-alpha / (beta * B)) ** (-1 / beta)
    best = inference_optimum(terms, float(A * N**-alpha + B * D**-beta), 2e12)
    assert tuple(best) == pytest.approx((7.125e9, 1.297e12), rel=1e-3)
    assert total_cost(*best, 2e12) / total_cost(N, D, 2e12) - 1 == pytest.approx(-0.163, abs=5e-4)
    assert A * best.N**-alpha + B * best.D**-beta == pytest.approx(A * N**-alpha + B * D**-beta)


def test_the_inference_optimum_is_a_minimum() -> None:
    terms = Terms(400.0, 0.34, 2000.0, 0.36)
    best = inference_optimum(terms, 0.5, 1e12)
    for factor in (0.97, 1.03):
        N = best.N * factor
        D = ((0.5 - 400 * N**-0.34) / 2000) ** (-1 / 0.36)
        assert total_cost(N, D, 1e12) > total_cost(*best, 1e12)


def test_nothing_served_is_the_compute_optimum() -> None:
    terms = Terms(400.0, 0.34, 2000.0, 0.36)
    best = inference_optimum(terms, 0.5, 0.0)
    balance = 0.34 * 400 * best.N**-0.34 / (0.36 * 2000 * best.D**-0.36)
    assert balance == pytest.approx(1)


def test_tokens_to_reach_a_loss() -> None:
    D = np.geomspace(1e8, 1e12, 2001)
    curve = 2 + 1000 * D**-0.35
    assert tokens_to_reach(2 + 1000 * 1e10**-0.35, D, curve) == pytest.approx(1e10, rel=1e-4)
    assert tokens_to_reach(2.0, D, curve) is None
    assert tokens_to_reach(9.0, D, curve) is None


def test_a_flat_curve_reaches_its_loss_where_it_becomes_flat() -> None:
    D = np.array([1.0, 10.0, 100.0, 1000.0])
    assert tokens_to_reach(2.0, D, np.array([3.0, 2.0, 2.0, 2.0])) == pytest.approx(10)
    assert tokens_to_reach(2.5, D, np.array([3.0, 2.0, 2.0, 2.0])) == pytest.approx(10**0.5)
    assert tokens_to_reach(1.9, D, np.array([3.0, 2.0, 2.0, 2.0])) is None
