"""python -m pytest tests/test_solve.py"""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.law.laws import LAWS
from isoflop.law.solve import (
    BLOCK,
    SAME_VALLEY,
    Prior,
    Problem,
    bounds,
    covariance,
    descend,
    expand,
    residuals,
    solve,
    starts,
)

NAMES = sorted(LAWS)


def problem(name: str = "chinchilla", *, seed: int = 0, noise: float = 0.0, delta: float = 1e-3) -> Problem:
    """Fifty runs of a law whose parameters lie somewhere in their ranges."""
    law, rng = LAWS[name], np.random.default_rng(seed)
    variables = {letter: np.exp(rng.uniform(-3, 3, 50)) for letter in law.variables}
    loss = law(**variables, **dict(zip(law.parameters, np.exp(truth(name, seed)), strict=True)))
    loss = loss * np.exp(noise * rng.standard_normal(50))
    return Problem(law, variables, np.log(loss / loss.min()), np.ones((1, 50)), np.array([delta]))


def truth(name: str, seed: int) -> np.ndarray:
    low, high = np.log(np.array(list(LAWS[name].ranges.values()))).T
    return np.random.default_rng(1000 + seed).uniform(low, high)


def from_starts(posed: Problem, count: int = 8):
    return solve(posed, np.repeat(starts(posed.law, count)[:, None], len(posed.weights), axis=1))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(3))
def test_a_simulated_law_is_recovered(name: str, seed: int) -> None:
    posed = problem(name, seed=seed)
    found = from_starts(posed)
    assert np.abs(residuals(posed, found.theta)).max() < 1e-6
    # whatever its unit, the loss over its minimum has the exponents of the loss
    free = [i for i, parameter in enumerate(posed.law.parameters) if parameter in ("alpha", "beta", "k")]
    np.testing.assert_allclose(found.theta[0, free], truth(name, seed)[free], atol=1e-3)


@given(name=st.sampled_from(NAMES), seed=st.integers(0, 100), delta=st.sampled_from([1e-3, 0.05, 10.0]))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_the_gradient_is_that_of_finite_differences(name: str, seed: int, delta: float) -> None:
    posed = problem(name, seed=seed, noise=0.02, delta=delta)
    posed = replace(posed, priors=(Prior((posed.law.parameters[-1],), np.array([0.4]), np.array([0.2])),))
    theta = truth(name, seed + 1)[None]
    near, h = expand(posed, theta), 1e-6
    for i in range(theta.shape[1]):
        step = h * np.eye(theta.shape[1])[i]
        slope = (expand(posed, theta + step).objective - expand(posed, theta - step).objective) / (2 * h)
        np.testing.assert_allclose(near.gradient[:, i], slope, rtol=1e-4, atol=1e-6 * np.abs(near.gradient).max())


def test_the_objective_is_hubers() -> None:
    posed = replace(problem(noise=0.05), delta=np.array([0.02]), weights=np.linspace(0, 2, 50)[None])
    r = np.abs(residuals(posed, truth("chinchilla", 5)[None])[0])
    assert 0 < (r < 0.02).sum() < 50
    rho = np.where(r < 0.02, r * r / 2, 0.02 * (r - 0.01))
    np.testing.assert_allclose(expand(posed, truth("chinchilla", 5)[None]).objective, posed.weights @ rho)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_answer_does_not_depend_on_the_objectives_scale(scale: float) -> None:
    posed = problem(noise=0.01)
    scaled = from_starts(replace(posed, weights=scale * posed.weights))
    np.testing.assert_allclose(scaled.theta, from_starts(posed).theta, atol=1e-6)
    np.testing.assert_allclose(scaled.objective, scale * from_starts(posed).objective)


def test_a_run_of_no_weight_is_a_run_left_out() -> None:
    posed, keep = problem(noise=0.01), np.arange(50) % 7 > 0
    without = replace(
        posed,
        variables={letter: column[keep] for letter, column in posed.variables.items()},
        ln_loss=posed.ln_loss[keep],
        weights=posed.weights[:, keep],
    )
    np.testing.assert_allclose(
        from_starts(replace(posed, weights=1.0 * keep[None])).theta, from_starts(without).theta, atol=1e-6
    )


def test_problems_solved_together_are_problems_solved_alone() -> None:
    posed, rng = problem(noise=0.01), np.random.default_rng(0)
    weights = rng.multinomial(50, np.full(50, 0.02), size=5).astype(float)
    together = from_starts(replace(posed, weights=weights, delta=np.repeat(posed.delta, 5)))
    for row in range(5):
        alone = from_starts(replace(posed, weights=weights[[row]]))
        np.testing.assert_allclose(together.objective[row], alone.objective[0], rtol=1e-9)
        np.testing.assert_allclose(together.theta[row], alone.theta[0], atol=1e-5)


def test_the_result_stays_within_bounds() -> None:
    posed = problem()
    posed = replace(posed, ln_loss=0.01 * np.random.default_rng(0).standard_normal(50))  # nothing falls: A, B → 0
    low, high = bounds(posed.law)
    found = from_starts(posed).theta[0]
    assert (found >= low).all() and (found <= high).all()


def test_a_strong_prior_decides() -> None:
    tight = np.array([1e-6])
    posed = problem(noise=0.01)
    held = replace(
        posed, priors=(Prior(("alpha",), np.array([0.3]), tight), Prior(("E",), np.array([-0.5]), tight, log=True))
    )
    theta = from_starts(held).theta[0]
    assert np.exp(theta[posed.law.parameters.index("alpha")]) == pytest.approx(0.3, abs=1e-4)
    assert theta[posed.law.parameters.index("E")] == pytest.approx(-0.5, abs=1e-4)


def test_starts_fill_the_ranges_evenly() -> None:
    law = LAWS["chinchilla"]
    points = starts(law, 64)
    low, high = np.log(np.array(list(law.ranges.values()))).T
    assert ((points >= low) & (points <= high)).all()
    eighths = np.floor(8 * (points - low) / (high - low)).astype(int)
    assert all(np.bincount(column, minlength=8).min() >= 5 for column in eighths.T)


def test_the_sandwich_is_the_spread_of_fits_to_new_noise() -> None:
    """Squared loss, 100 repetitions: the standard deviation is known to 7 %."""
    exact, rng = problem(delta=10.0), np.random.default_rng(0)
    noisy = [replace(exact, ln_loss=exact.ln_loss + 0.002 * rng.standard_normal(50)) for _ in range(100)]
    fits = [from_starts(one, 1).theta for one in noisy]
    told = [np.diagonal(covariance(one, found)[0]) for one, found in zip(noisy, fits, strict=True)]
    np.testing.assert_allclose(np.sqrt(np.mean(told, axis=0)), np.concatenate(fits).std(0), rtol=0.25)


@pytest.mark.parametrize("name", ["chinchilla", "coupled"])
def test_a_descent_along_a_bound_ends_where_the_objective_is_stationary(name: str) -> None:
    """No floor, so E runs into its bound; a failed step that the bound cut must not shrink the damping for ever."""
    posed = problem(name, noise=0.02)
    loss = posed.law(**posed.variables, **dict(zip(posed.law.parameters, np.exp(truth(name, 0)), strict=True)))
    posed = replace(posed, ln_loss=posed.ln_loss - 0.9 * np.log(loss / loss.min()) ** 0.7)
    found = from_starts(posed, 4)
    again = solve(posed, found.theta[None])
    assert again.objective >= found.objective * (1 - 1e-9)


def test_descents_of_one_problem_that_meet_go_on_as_one() -> None:
    posed = problem(noise=0.02)
    best = from_starts(posed)
    near = best.theta + np.array([1e-3, 2e-3, 3e-3])[:, None]
    done = descend(posed, np.zeros(3, dtype=np.int64), near)
    assert done.objective.min() == pytest.approx(float(best.objective[0]), rel=1e-9)
    # those that met another were left where they stood, a little above it
    assert (np.abs(done.theta - best.theta).max(1) < 2 * SAME_VALLEY).all()


def test_more_descents_than_a_block_holds_are_all_done() -> None:
    posed, count = problem(noise=0.02), 3 * BLOCK // 50
    many = posed.take(np.zeros(count, dtype=np.int64))
    start = np.repeat(starts(posed.law, 3), count // 3, axis=0)
    found = solve(many, start[None])
    few = solve(posed.take(np.zeros(3, dtype=np.int64)), starts(posed.law, 3)[None])
    assert found.objective[:: count // 3] == pytest.approx(few.objective, rel=1e-9)
    assert np.isfinite(found.objective).all()


def test_a_start_without_a_finite_loss_stays_where_it_is() -> None:
    law = LAWS["kaplan"]
    variables = {"N": np.full(20, 1e-300), "D": np.full(20, 1e-300)}
    posed = Problem(law, variables, np.zeros(20), np.ones((1, 20)), np.array([1e-3]))
    found = solve(posed, bounds(law)[1][None, None])
    assert found.objective[0] == np.inf
