"""python -m pytest tests/test_search.py"""

from dataclasses import replace

import numpy as np
import pytest

from isoflop.law.fit import STARTS, order, pose
from isoflop.law.laws import LAWS
from isoflop.law.search import _start_smoother, search, search_replicates
from isoflop.law.solve import Problem, Solution, solve
from isoflop.law.uncertainty import draw, groups
from isoflop.sources import read
from tests.shared import shared
from tests.test_solve import from_starts, problem


def test_a_search_is_as_good_as_sixty_starts() -> None:
    for seed in range(2):
        posed = problem("coupled", seed=seed, noise=0.05)
        assert search(posed, 8).objective[0] <= from_starts(posed, 60).objective[0] * (1 + 1e-6)


@pytest.mark.slow
def test_replicates_reach_what_sixty_starts_reach() -> None:
    posed, rng = problem("coupled", noise=0.02), np.random.default_rng(0)
    weights = rng.multinomial(50, np.full(50, 0.02), size=20).astype(float)
    many = replace(posed, weights=weights, delta=np.repeat(posed.delta, 20))
    found = search_replicates(many, search(posed, 8).theta, 8)
    assert (found.objective <= from_starts(many, 60).objective * (1 + 1e-6)).all()


@pytest.mark.parametrize(("law", "series", "replicate"), [("chinchilla", "c4", 58), ("chinchilla", "rw", 37)])
def test_replicates_find_the_optimum_beside_theirs(law: str, series: str, replicate: int) -> None:
    """Optima that neither the whole fit's nor the cheapest of the other replicates' optima lead to."""
    records = read(shared("gadre.csv"), series=series)
    runs = records.take(order(records))
    posed, _ = pose(runs, LAWS[law])
    drawn = draw(posed, groups(runs), replicates=200, rng=np.random.default_rng(0)).counts
    many = replace(posed, weights=drawn, delta=np.repeat(posed.delta, 200))
    found = search_replicates(many, search(posed, STARTS).theta, STARTS)
    best: Solution = from_starts(_alone(many, replicate), 100)
    assert found.objective[replicate] <= best.objective[0] * (1 + 1e-6)


@pytest.mark.parametrize(
    ("replicate", "beside"),
    [
        (70, [-0.2025, -1.3201, -0.5137, -2.2411, -1.9164, 1.4415]),
        (86, [-4.6052, -0.0904, -0.2863, -1.9675, -0.5289, -0.515]),
    ],
)
def test_a_larger_delta_leads_to_the_optimum_beside(replicate: int, beside: list[float]) -> None:
    """Optima 0.02 and 0.2 away along the second flattest direction, which no other replicate's optimum leads to."""
    records = read(shared("porian.csv"), series="owt2/base/long/kaplan/kaplan/train")
    runs = records.take(order(records))
    posed, _ = pose(runs, LAWS["coupled"])
    drawn, _ = draw(posed, groups(runs), replicates=200, rng=np.random.default_rng(0))
    one = replace(posed, weights=drawn[[replicate]])
    found, least = solve(one, np.array([[beside]])), from_starts(one, 100).objective[0]
    assert found.objective[0] > least * (1 + 4e-6)
    assert _start_smoother(one, found, np.array([0]))
    assert found.objective[0] <= least * (1 + 1e-7)


def _alone(many: Problem, replicate: int) -> Problem:
    return many.take(np.array([replicate]))
