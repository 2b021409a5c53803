"""python -m pytest tests/test_projection.py"""

import numpy as np
import pytest

from isoflop.law.projection import Projection, project, project_again

RNG = np.random.default_rng(0)
N, D = RNG.normal(size=60), RNG.normal(size=60)
"""ln N and ln D about their means."""
TRUTH = (0.3, 0.6, 2.0, 0.5, 0.7)


def loss(alpha: float, beta: float, E: float, A: float, B: float) -> np.ndarray:
    return E + A * np.exp(-alpha * N) + B * np.exp(-beta * D)


def plain(found: Projection, row: int = 0) -> tuple[float, ...]:
    return (found.alpha[row], found.beta[row], *found.linear[row])


def test_what_made_the_runs_is_found() -> None:
    assert plain(project(N, D, loss(*TRUTH))) == pytest.approx(TRUTH, rel=1e-5)


def test_no_term_is_negative() -> None:
    found = project(N, D, loss(-0.3, 0.6, 2.0, 0.5, 0.7))
    assert found.linear[0, 1] == 0 and (found.linear >= 0).all()


def test_other_weights_lead_to_their_own_optimum() -> None:
    noisy = loss(*TRUTH) * np.exp(0.01 * RNG.standard_normal(60))
    weights = RNG.multinomial(60, np.full(60, 1 / 60), size=5).astype(float)
    again = project_again(project(N, D, noisy), N, D, noisy, weights)
    for row, counts in enumerate(weights.astype(int)):
        repeated = [np.repeat(column, counts) for column in (N, D, noisy)]
        assert plain(again, row) == pytest.approx(plain(project(*repeated)), rel=1e-3)
    assert len(project_again(project(N, D, noisy), N, D, noisy, weights[:0]).alpha) == 0
