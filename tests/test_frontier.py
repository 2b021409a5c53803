"""python -m pytest tests/test_frontier.py"""

import json
from dataclasses import replace

import numpy as np
import pytest

from isoflop.law.fit import fit
from isoflop.law.frontier import approach2, approach3, budgets, levels
from isoflop.law.laws import LAWS, PUBLISHED, optimum
from isoflop.law.uncertainty import bootstrap
from tests.runs import cs336, isoflop_grid, runs

PAPER, TEX = (PUBLISHED[name].parameters for name in ("hoffmann2022", "hoffmann2022_tex"))
BUDGETS = (1e17, 1e18, 1e19, 1e20, 1e21)
NOISY = isoflop_grid(PAPER, budgets=BUDGETS, sizes=9, within=6, noise=0.003)


def test_parabolas_through_the_courses_runs() -> None:
    """The lowest run of each budget gives another line; that contrast is why a parabola is drawn."""
    records = cs336()
    by_parabola = approach2(records, replicates=0)
    assert len(by_parabola.minima) == 9 and not by_parabola.refused
    assert by_parabola.a.value == pytest.approx(0.5146, abs=5e-5)
    assert by_parabola.params(1e24).value == pytest.approx(2.98e11, rel=2e-3)
    lowest = [rows[np.argmin(records.L[rows])] for rows in budgets(records).values()]
    slope, level = np.polyfit(np.log(records.C[lowest]), np.log(records.N[lowest]), 1)
    assert slope == pytest.approx(0.4687, abs=5e-5)
    assert np.exp(level + slope * np.log(1e24)) == pytest.approx(2.06e11, rel=3e-3)


@pytest.mark.parametrize(
    ("truth", "bias"),
    [(PAPER, (-0.33, -1.30, -2.90, -5.10)), (TEX, (-0.30, -1.18, -2.63, -4.63))],
    ids=["paper", "TeX"],
)
def test_the_bias_of_parabolas_off_the_symmetric_case(truth: dict, bias: tuple) -> None:
    true = optimum(LAWS["chinchilla"].terms(truth), 1e24).D
    for within, percent in zip((2, 4, 8, 16), bias, strict=True):
        found = approach2(isoflop_grid(truth, within=within), replicates=0).tokens(1e24).value
        assert 100 * (found / true - 1) == pytest.approx(percent, abs=0.005)


@pytest.mark.parametrize("within", [2, 4, 8, 16])
def test_no_bias_where_both_exponents_are_alike(within: float) -> None:
    even = {"E": 1.7, "A": 300.0, "B": 900.0, "alpha": 0.33, "beta": 0.33}
    found = approach2(isoflop_grid(even, within=within), replicates=0)
    best = optimum(LAWS["chinchilla"].terms(even), 1e24)
    assert found.tokens(1e24).value == pytest.approx(best.D, rel=1e-8)
    assert found.params(1e24).value == pytest.approx(best.N, rel=1e-8)


def test_approach_3_is_the_laws_optimum() -> None:
    fitted = bootstrap(fit(NOISY), replicates=50)
    found = approach3(fitted)
    for C in (1e18, 1e24):
        assert found.params(C).value == pytest.approx(fitted.optimum(C).N)
        assert found.tokens(C).value == pytest.approx(fitted.optimum(C).D)
        assert found.tokens_per_param(C).value == pytest.approx(fitted.optimum(C).D / fitted.optimum(C).N)
    assert found.a.value + found.b.value == pytest.approx(1)
    assert found.a.low < found.a.value < found.a.high and found.note is None


def test_intervals_of_parabolas_hold_the_truth_and_grow_with_the_distance() -> None:
    found = approach2(NOISY, replicates=400)
    truth = optimum(LAWS["chinchilla"].terms(PAPER), np.array([1e19, 1e22, 1e25]))
    told = found.params(np.array([1e19, 1e22, 1e25]))
    width = np.log(told.high / told.low)
    assert (np.diff(width) > 0).all() and told.low[0] < truth.N[0] < told.high[0]
    assert found.a.low < 0.28 / 0.62 < found.a.high


def test_replicates_depend_on_the_seed_alone() -> None:
    first, again, other = (approach2(NOISY, replicates=20, seed=seed).samples["N"].slope for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).all()


def test_three_sizes_a_budget_tell_no_noise() -> None:
    found = approach2(isoflop_grid(PAPER, sizes=3))
    assert found.a.low is None and found.a.high is None


def test_a_parabola_that_opens_downward_is_refused() -> None:
    records = isoflop_grid(PAPER, sizes=7)
    loss = np.append(2 * records.L[3] - records.L[:7], records.L[7:])
    found = approach2(runs(records.N, records.D, loss, budget=np.repeat(BUDGETS, 7)), replicates=0)
    assert len(found.minima) == 4
    assert found.refused[0].startswith("the parabola of budget 1e+17 opens downward between N = ")


def test_a_minimum_at_the_edge_is_refused() -> None:
    records = isoflop_grid(PAPER, sizes=13, within=16)
    keep = (records.C > 2e17) | (np.arange(len(records)) % 13 < 6)
    found = approach2(records.take(keep), replicates=0)
    assert len(found.minima) == 4 and "is not inside the sampled sizes" in found.refused[0]
    assert "budget 1e+17" in found.refused[0]


def test_a_minimum_that_noise_moves_out_is_refused() -> None:
    wide, narrow = (
        isoflop_grid(PAPER, sizes=7, noise=0.003),
        isoflop_grid(PAPER, budgets=(1e22,), sizes=7, within=1.5),
    )
    found = approach2(replace(wide, runs=wide.runs + narrow.runs), replicates=300)
    assert len(found.minima) == 5 and "noise moves the minimum of budget 1e+22 out of" in found.refused[0]


def test_too_few_budgets_are_refused_with_each_reason() -> None:
    with pytest.raises(ValueError, match=r"approach 2 needs 3 budgets .* test has 2; add runs, or use approach 3"):
        approach2(isoflop_grid(PAPER, budgets=(1e18, 1e19)))
    two_sizes = isoflop_grid(PAPER, budgets=(1e18, 1e19, 1e20), sizes=2)
    with pytest.raises(ValueError, match=r"has 0 \(budget 1e\+18 has only 2 sizes, a parabola needs 3;"):
        approach2(two_sizes)


def test_budgets_are_named_or_found() -> None:
    records = isoflop_grid(PAPER, sizes=5)
    C = records.C * np.exp(np.random.default_rng(0).uniform(-0.05, 0.05, len(records)))
    unnamed = runs(records.N, C / (6 * records.N), records.L)
    assert [len(rows) for rows in budgets(records).values()] == [5] * 5
    for named, found in zip(budgets(records).values(), budgets(unnamed).values(), strict=True):
        assert set(named) == set(found)
    assert levels(np.array([3e18, 1e18, 1.05e18])).tolist() == [1, 0, 0]


def test_another_count_of_flops_is_noted() -> None:
    records = isoflop_grid(PAPER, sizes=5)
    assert approach3(fit(records)).note is None
    doubled = replace(records, runs=tuple(replace(run, flops=2 * run.flops) for run in records.runs))
    assert "the runs' C is 2 times that under this count of N" in (approach3(fit(doubled)).note or "")


def test_to_dict_is_plain() -> None:
    said = approach2(NOISY, replicates=30).to_dict()
    assert json.loads(json.dumps(said)) is not None and said["approach"] == 2 and len(said["minima"]) == 5


def test_budgets_that_differ_by_rounding_are_one() -> None:
    records = isoflop_grid({"E": 1.8, "A": 300.0, "B": 1200.0, "alpha": 0.33, "beta": 0.37}, sizes=6)
    rounded = [replace(run, budget=run.budget * (1.004 if i % 2 else 1.0)) for i, run in enumerate(records.runs)]
    parts = budgets(replace(records, runs=tuple(rounded)))
    assert [len(rows) for rows in parts.values()] == [6] * 5
    assert list(parts) == pytest.approx([1e17, 1e18, 1e19, 1e20, 1e21], rel=0.005)
    some = tuple(replace(run, budget=None) if i < 3 else run for i, run in enumerate(records.runs))
    assert [len(rows) for rows in budgets(replace(records, runs=some)).values()] == [3, 6, 6, 6, 6]


def test_extreme_replicates_overflow_nothing() -> None:
    records = isoflop_grid({"E": 1.8, "A": 300.0, "B": 1200.0, "alpha": 0.33, "beta": 0.37})
    samples = {"E": [1.0], "A": [1e147], "B": [1e-3], "alpha": [0.003], "beta": [1.5]}
    wild = replace(fit(records), samples={name: np.array(values) for name, values in samples.items()})
    assert np.isfinite(approach3(wild).samples["N"].level).all()
