"""python -m pytest tests/test_uncertainty.py"""

import re
from dataclasses import replace

import numpy as np
import pytest

from isoflop.law.fit import check, fit, order, pose
from isoflop.law.laws import LAWS
from isoflop.law.uncertainty import bootstrap, draw, generator, groups, interval, profile, regroup
from tests.runs import hoffmann240, isoflop_grid, runs

TRUTH = {"E": 1.7, "A": 400.0, "B": 1200.0, "alpha": 0.34, "beta": 0.37}
NOISY = isoflop_grid(TRUTH, sizes=7, within=8, noise=0.01)


def test_an_interval_is_two_percentiles() -> None:
    told = interval(1.0, np.arange(101.0))
    assert (told.value, told.low, told.high) == (1.0, 5.0, 95.0)
    assert interval(1.0, np.empty(0)) == (1.0, None, None)


def test_the_same_seed_gives_the_same_replicates_and_another_gives_others() -> None:
    found = fit(NOISY)
    first, again, other = (bootstrap(found, replicates=40, seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.samples["alpha"], again.samples["alpha"])
    assert not np.isin(other.samples["alpha"], first.samples["alpha"]).any()


def test_the_order_of_rows_does_not_move_the_interval() -> None:
    turned = NOISY.take(np.arange(len(NOISY))[::-1])
    np.testing.assert_array_equal(
        bootstrap(fit(NOISY), replicates=20).samples["A"], bootstrap(fit(turned), replicates=20).samples["A"]
    )


def test_intervals_hold_the_value_and_the_truth() -> None:
    found = bootstrap(fit(NOISY), replicates=300)
    for name, parameter in found.parameters.items():
        assert parameter.low is not None and parameter.high is not None
        assert parameter.low < parameter.value < parameter.high
        assert parameter.low < TRUTH[name] < parameter.high
        assert len(found.samples[name]) == 300


def test_more_noise_gives_wider_intervals() -> None:
    widths = []
    for noise in (0.002, 0.02):
        alpha = bootstrap(fit(isoflop_grid(TRUTH, sizes=7, noise=noise)), replicates=100).parameters["alpha"]
        assert alpha.low is not None and alpha.high is not None
        widths.append(alpha.high - alpha.low)
    assert widths[1] > 3 * widths[0]


def test_the_runs_of_a_group_are_drawn_together() -> None:
    """Twice the same runs, pair by pair in a group, are drawn as the runs are once: weights of 2 where 1 was."""
    twice = runs(
        *(np.repeat(column, 2) for column in (NOISY.N, NOISY.D, NOISY.L)), group=np.repeat(np.arange(35), 2).astype(str)
    )
    alone = bootstrap(fit(NOISY), replicates=30).samples
    paired = bootstrap(fit(twice), replicates=30).samples
    apart = bootstrap(fit(runs(twice.N, twice.D, twice.L)), replicates=30).samples
    for name in TRUTH:
        np.testing.assert_allclose(paired[name], alone[name], rtol=1e-4)
        assert np.abs(apart[name] / alone[name] - 1).max() > 1e-3


def test_a_run_without_a_group_stands_alone() -> None:
    some = runs(NOISY.N[:5], NOISY.D[:5], NOISY.L[:5], group=["a", None, "b", "a", None])
    assert groups(some).tolist() == [0, 1, 2, 0, 3]


def test_too_few_groups_are_refused() -> None:
    trunks = runs(NOISY.N, NOISY.D, NOISY.L, group=[str(i % 4) for i in range(35)])
    with pytest.raises(ValueError, match="4 independent runs or trunks are too few to be drawn again for an interval"):
        bootstrap(fit(trunks))


def test_draws_that_never_suffice_are_refused() -> None:
    """Five runs fit five parameters only if each is drawn; the chance is 4 %, so 1000 replicates do not get there."""
    five = isoflop_grid(TRUTH, budgets=(1e18, 1e19, 1e20, 1e21, 1e22), sizes=1)
    five = runs(five.N * [1, 2, 0.5, 3, 0.3], five.D, five.L)
    with pytest.raises(
        ValueError, match="of 1000 draws of 5 runs or trunks never hold enough different runs for a fit"
    ):
        bootstrap(fit(five), replicates=1000)


def test_every_draw_could_be_fitted_by_itself() -> None:
    """Ten runs of one size and one each of two others, as in a public table: a draw without those has no third size."""
    N, D = np.array([0.8e8, *[1.4e8] * 10, 2.2e8]), np.geomspace(1e9, 1e11, 12)
    some = runs(N, D, TRUTH["E"] + TRUTH["A"] * N ** -TRUTH["alpha"] + TRUTH["B"] * D ** -TRUTH["beta"])
    some = some.take(order(some))
    posed, _ = pose(some, LAWS["chinchilla"])
    drawn, anew = draw(posed, groups(some), replicates=200, rng=generator(0))
    assert anew > 100
    for counts in drawn:
        check(some.take(np.flatnonzero(counts)), LAWS["chinchilla"])
    assert (drawn.sum(1) == 12).all() and (drawn[:, some.N != 1.4e8] > 0).all()
    told = bootstrap(fit(some), replicates=20).records.notes[-1]
    assert re.fullmatch(r"(\d+) of \d+ draws hold too few different runs or sizes for a fit and were drawn anew", told)
    # Kaplan's law has no floor, so two sizes will do
    posed, _ = pose(some, LAWS["kaplan"])
    assert not (draw(posed, groups(some), replicates=200, rng=generator(0)).counts[:, [0, 11]] > 0).all()


def test_the_fit_itself_is_unchanged() -> None:
    found = fit(NOISY)
    again = bootstrap(found, replicates=10)
    assert again.values == found.values and again.objective == found.objective
    assert replace(again, parameters=found.parameters, samples={}) == found


def test_runs_of_a_size_share_a_group_where_asked() -> None:
    some = runs(np.array([1e7, 2e7, 1e7]), np.array([1e9, 1e9, 2e9]), np.array([4.0, 3.9, 3.8]))
    assert groups(regroup(some, "params")).tolist() == [0, 1, 0]
    assert groups(regroup(some, "tokens")).tolist() == [0, 0, 1]
    assert groups(regroup(some, "budget")).tolist() == [0, 1, 2]
    assert regroup(some, "group") is some


def test_weights_and_objective_travel_into_the_replicates() -> None:
    """A heavy run: replicates that draw it pass through it, by squared residuals nearly."""
    weights = np.ones(len(NOISY))
    weights[4] = 1e4
    for weigh, within in ((weights, 1e-3), (None, 1e-5)):
        there = bootstrap(fit(NOISY, objective="squared", weights=weigh), replicates=40).samples
        loss = there["E"] + there["A"] * NOISY.N[4] ** -there["alpha"] + there["B"] * NOISY.D[4] ** -there["beta"]
        assert ((np.abs(np.log(loss / NOISY.L[4])) < within).mean() > 0.5) == (weigh is not None)


@pytest.mark.parametrize("name", list(TRUTH))
def test_a_profile_is_least_at_the_estimate(name: str) -> None:
    found = fit(NOISY, objective="squared")
    told = profile(found, name, points=17)
    assert told.objective.argmin() == 8
    assert told.values[8] == pytest.approx(found.values[name])
    assert told.objective[8] == pytest.approx(found.objective, rel=1e-6)
    assert (np.diff(told.objective[:9]) < 0).all() and (np.diff(told.objective[8:]) > 0).all()
    assert told.low is not None and told.high is not None
    assert told.low < found.values[name] < told.high


@pytest.mark.slow
def test_profiles_hold_the_truth_nine_times_in_ten() -> None:
    held = 0
    for seed in range(20):
        some = isoflop_grid(TRUTH, sizes=7, within=8, noise=0.01, seed=seed)
        told = profile(fit(some, objective="squared"), "alpha", points=7, reach=3)
        assert told.low is not None and told.high is not None
        held += told.low < 0.34 < told.high
    assert 15 <= held <= 20


def test_a_profile_agrees_with_the_bootstrap() -> None:
    found = bootstrap(fit(hoffmann240()), replicates=400)
    told = profile(found, "alpha", points=17)
    alpha = found.parameters["alpha"]
    assert told.low is not None and told.high is not None and alpha.low is not None and alpha.high is not None
    assert told.high - told.low == pytest.approx(alpha.high - alpha.low, rel=0.35)


def test_a_profile_that_does_not_rise_is_open() -> None:
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    told = profile(fit(runs(N, D, 30 * N**-0.1 + 50 * D**-0.1), objective="squared"), "E", points=9)
    assert told.low is None


def test_a_profile_of_what_the_law_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="name='k' is no parameter of chinchilla; choose one of E, A, B, alpha, beta"):
        profile(fit(NOISY), "k")


@pytest.mark.slow
def test_the_published_standard_errors() -> None:
    """arXiv:2404.10102, 4000 bootstraps: A, E, α, β within 15 %, B within 30 %."""
    samples = bootstrap(fit(hoffmann240()), replicates=4000).samples
    published = {
        "A": (124.5, 0.15),
        "E": (0.0257, 0.15),
        "alpha": (0.0154, 0.15),
        "beta": (0.0206, 0.15),
        "B": (1293, 0.3),
    }
    for name, (error, within) in published.items():
        assert samples[name].std() == pytest.approx(error, rel=within), name


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="seed=-1 must be a whole number, 0 or more"):
        generator(-1)
    assert generator(0).integers(9) == np.random.default_rng(0).integers(9)
