"""python -m pytest tests/test_compare.py"""

import json
from dataclasses import replace

import numpy as np
import pytest

from isoflop.law.compare import compare
from isoflop.law.points import points
from tests.recipes import recipe

RNG = np.random.default_rng(2)
SMALL = 1e-4 * RNG.standard_normal((2, 8))
EIGHT = np.geomspace(1e17, 1e20, 8)


@pytest.mark.parametrize("floor", [2.0, "common", "free"])
def test_for_equal_floor_and_exponent_the_multiplier_is_one_number(floor: str | float) -> None:
    made = compare(recipe(400, 0.15), recipe(360, 0.15), floor=floor, replicates=0)
    L_A, L_B = made.points[0].loss, made.points[1].loss
    closed = ((L_A - 2.0) / (L_B - 2.0)) ** (1 / 0.15)
    assert closed == pytest.approx(np.full(4, (400 / 360) ** (1 / 0.15)))
    assert [row.multiplier for row in made.rows] == pytest.approx([*closed, closed[0]], rel=2e-3)
    assert [row.trained for row in made.rows] == [True] * 4 + [False]
    assert made.rows[-1].x == pytest.approx(1e21)


def test_better_and_worse_are_said_with_the_interval() -> None:
    a, b = recipe(400, 0.15, budgets=EIGHT, noise=SMALL[0]), recipe(360, 0.15, budgets=EIGHT, noise=SMALL[1])
    made = compare(a, b, replicates=200)
    for row in made.rows:
        assert row.low is not None and row.high is not None and row.low < row.multiplier < row.high
        assert row.low < (400 / 360) ** (1 / 0.15) < row.high
    assert made.verdict.startswith("B is better from 1e+17 to 1e+21 FLOPs; at the last A needs 2.")
    assert "B is worse" in (worse := compare(b, a, replicates=200).verdict) and "suffice A for B's loss" in worse
    assert made.noise == pytest.approx(1e-4, rel=0.5)
    assert json.loads(json.dumps(made.to_dict()))["pairs"] == 8


def test_a_crossing_is_found_where_it_is() -> None:
    crossing = (750 / 400) ** (1 / 0.015)
    a, b = recipe(400, 0.15, budgets=EIGHT, noise=SMALL[0]), recipe(750, 0.165, budgets=EIGHT, noise=SMALL[1])
    made = compare(a, b, replicates=200)
    assert "worse below, better above" in made.verdict
    said = float(made.verdict.split("about ")[1].split(" FLOPs")[0])
    assert said == pytest.approx(crossing, rel=0.15)
    assert "better below, worse above" in compare(b, a, replicates=200).verdict


def test_noise_that_hides_the_difference_is_said_with_what_would_help() -> None:
    noise = 0.004 * np.random.default_rng(3).standard_normal((2, 8))
    a, b = (recipe(k, 0.15, budgets=EIGHT, noise=e) for k, e in zip((400, 399), noise, strict=True))
    made = compare(a, b, replicates=200)
    assert made.verdict.startswith("not decided by these runs; ") and "further points like these" in made.verdict
    b = recipe(400, 0.15, budgets=EIGHT, noise=noise[0] + 1e-9 * np.arange(8))
    same = compare(a, b, replicates=200)
    assert "more than 1000 further points" in same.verdict


def test_partly_decided() -> None:
    noise = 0.002 * np.random.default_rng(0).standard_normal((2, 8))
    a, b = (recipe(k, al, budgets=EIGHT, noise=e) for k, al, e in zip((400, 340), (0.15, 0.1465), noise, strict=True))
    verdict = compare(a, b, replicates=300).verdict
    assert verdict.startswith("B is better from") and "not decided elsewhere" in verdict


def test_noise_shared_by_pairs_makes_the_interval_narrower() -> None:
    shared, own = 0.003 * np.random.default_rng(4).standard_normal((2, 8))
    a = recipe(400, 0.15, budgets=EIGHT, noise=shared)
    paired = compare(a, recipe(390, 0.15, budgets=EIGHT, noise=shared + 0.03 * own), replicates=300)
    alone = compare(a, recipe(390, 0.15, budgets=EIGHT, noise=own), replicates=300)
    assert paired.correlation > 0.9 > 0.3 > alone.correlation

    def width(made: object) -> float:
        row = made.rows[3]  # type: ignore[attr-defined]
        return float(np.log(row.high / row.low)) / made.noise  # type: ignore[attr-defined]

    assert width(paired) < 0.5 * width(alone)
    few = [recipe(k, 0.15, noise=shared[:4]) for k in (400, 390)]
    assert compare(*few, replicates=10).correlation == 0.0


def test_a_bend_that_the_frontiers_lack_widens_the_interval_and_is_said() -> None:
    bend = 0.01 * (np.linspace(-1, 1, 8) ** 2 - 0.43)
    shuffled = bend[[0, 4, 1, 5, 2, 6, 3, 7]]
    smooth, rough = (
        compare(recipe(400, 0.15, budgets=EIGHT, noise=e), recipe(360, 0.15, budgets=EIGHT, noise=e), floor=2.0)
        for e in (bend, shuffled)
    )
    assert smooth.misfit > 0.3 > rough.misfit
    assert "neighbouring errors correlate" in smooth.verdict and "neighbouring" not in rough.verdict
    width = [np.log(made.rows[-1].high / made.rows[-1].low) / made.noise for made in (smooth, rough)]
    assert width[0] > 1.2 * width[1]


def test_without_spare_points_there_is_no_interval() -> None:
    a, b = (recipe(k, 0.15, budgets=(1e17, 1e18, 1e19)) for k in (400, 360))
    made = compare(a, b, floor="free")
    assert made.rows[0].low is None and made.noise is None and "so no interval" in made.verdict


def test_no_draws_give_no_interval_and_that_is_said() -> None:
    told = compare(recipe(400, 0.15), recipe(360, 0.15), replicates=0).verdict
    assert told == "not decided: without draws there is no interval (the curves alone say B is better at 1e+21 FLOPs)"


def test_seeds_are_pairs() -> None:
    a, b = (recipe(k, 0.15, seeds=(0, 1), sizes=(0.5, 1.0, 2.0)) for k in (400, 360))
    assert compare(a, b, replicates=10).pairs == 8


def test_tokens_and_hours_are_counted_too() -> None:
    a, b = recipe(400, 0.15, speed=1e15), recipe(400, 0.15, speed=2e15)
    hours = compare(a, b, per="hour", floor=2.0, replicates=0)
    assert [row.multiplier for row in hours.rows] == pytest.approx([2.0] * 5)
    assert hours.rows[0].x == pytest.approx(1e17 / 2e15 / 3600)
    assert compare(a, b, per="token", floor=2.0, replicates=0).rows[0].multiplier == pytest.approx(1.0)
    quick = replace(a.runs[0], measured={"tokens_per_second": 100.0})
    timed = replace(a, runs=(quick, *a.runs[1:]))
    assert points(timed, "hour").x[0] == pytest.approx(quick.tokens / 100 / 3600)


@pytest.mark.parametrize(
    ("b", "options", "message"),
    [
        ({"budgets": (3e17, 3e18, 3e19)}, {}, "A and B have no budget in common"),
        ({"budgets": (1e17,)}, {}, "B has budgets: 1, where a frontier with a common floor needs 2"),
        ({"budgets": (1e17, 1e18)}, {"floor": "free"}, "B has budgets: 2, where a frontier with a free floor needs 3"),
        ({}, {"floor": 9.0}, "floor=9 must lie below every loss of A, whose least is"),
        ({}, {"per": "hour"}, "per='hour' needs what run 0-None-1.0 of A did not measure"),
        ({}, {"at": -1.0}, "at=-1 FLOPs must be a positive, finite number"),
        ({}, {"at": 0.0}, "at=0 FLOPs must be a positive, finite number"),
        ({}, {"at": float("nan")}, "at=nan FLOPs must be a positive, finite number"),
        ({}, {"replicates": -1}, r"--replicates -1 must be 0 \(no intervals\) or 10 to 100000"),
        ({}, {"replicates": 1}, "--replicates 1 must be 0"),
    ],
)
def test_what_cannot_be_compared(b: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(recipe(400, 0.15, name="A"), recipe(360, 0.15, name="B", **b), **{"replicates": 0, **options})


def test_two_budgets_each_do_not_tell_a_common_floor() -> None:
    a, b = (recipe(k, 0.15, budgets=(1e17, 1e18)) for k in (400, 360))
    with pytest.raises(ValueError, match="two recipes of two budgets each cannot tell a common floor"):
        compare(a, b)
    assert compare(a, b, floor=2.0, replicates=0).rows[0].multiplier == pytest.approx((400 / 360) ** (1 / 0.15))


def test_runs_at_one_value_of_what_is_counted_are_refused() -> None:
    both = [recipe(50.0, 0.2, speed=None), recipe(60.0, 0.2, speed=None)]
    runs = [replace(one, runs=tuple(replace(run, measured={"seconds": 3600.0}) for run in one.runs)) for one in both]
    with pytest.raises(ValueError, match="has runs at 1 different values of what is counted"):
        compare(*runs, per="hour")


def test_a_recipe_beside_itself_is_not_decided() -> None:
    a = recipe(400, 0.15)
    for options in ({}, {"replicates": 0}, {"floor": "free"}):
        assert compare(a, a.take(np.arange(len(a))[::-1]), **options).verdict.startswith(
            "not decided: A and B are the same runs"
        )
    assert "same runs" not in compare(a, recipe(401, 0.15)).verdict


def test_what_ended_on_a_bound_is_said() -> None:
    a, b = recipe(400, 0.15, budgets=EIGHT, noise=SMALL[0]), recipe(360, 0.15, budgets=EIGHT, noise=SMALL[1])
    assert compare(a, b, replicates=0).on_bounds == []
    straight, flat = (
        replace(a, runs=tuple(replace(run, loss=float(loss)) for run, loss in zip(a.runs, losses, strict=True)))
        for losses in (3e3 * a.C**-0.15, 3 + 1e-3 * np.log(a.C / a.C[0]))
    )
    told = compare(straight, flat, floor="free", replicates=0).on_bounds
    assert told[0] == "L∞ of A ended on its bound, 0 nats per token: its losses tell no floor"
    assert "α of B ended on its bound, 0.001: its losses do not fall with what is counted" in told
    assert compare(straight, b, floor=0.0, replicates=0).on_bounds == []
