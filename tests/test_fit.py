"""python -m pytest tests/test_fit.py"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.law.fit import OBJECTIVES, Fit, fit, level_of, statuses
from isoflop.law.laws import LAWS
from isoflop.law.solve import bounds
from isoflop.record import Records
from tests.runs import cs336, hoffmann240, hoffmann245, isoflop_grid, runs

TRUTH = {"E": 1.7, "A": 400.0, "B": 1200.0, "alpha": 0.34, "beta": 0.37}
NOISY = isoflop_grid(TRUTH, sizes=6, noise=0.01)


def test_the_usual_240_runs() -> None:
    found = fit(hoffmann240())
    assert len(found.records) == 240
    assert found.objective <= 1.01827402e-3
    expected = {"E": 1.81722, "A": 477.83, "B": 2143.4, "alpha": 0.34731, "beta": 0.36717}
    assert found.values == pytest.approx(expected, rel=1e-5)
    published = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
    residual = np.abs(np.log(LAWS["chinchilla"](N=found.records.N, D=found.records.D, **published) / found.records.L))
    there = np.where(residual < 1e-3, residual**2 / 2, 1e-3 * (residual - 5e-4)).sum()
    assert found.objective < there < 1.01 * found.objective


def test_five_runs_matter() -> None:
    values = fit(hoffmann245()).values
    assert values["beta"] == pytest.approx(0.453, abs=5e-4)
    assert values["beta"] / (values["alpha"] + values["beta"]) == pytest.approx(0.565, abs=5e-4)


def test_the_courses_noise_free_runs() -> None:
    found = fit(cs336())
    expected = {"E": 2.69, "A": 1606.4, "B": 3210.7, "alpha": 0.34, "beta": 0.36}
    assert found.values == pytest.approx(expected, rel=1e-6)
    assert {parameter.status for parameter in found.parameters.values()} == {"identified"}
    for C, N, D, L in ((1e23, 9.189e10, 1.8137e11, 3.2750), (1e24, 3.003e11, 5.550e11, 3.0811)):
        best = found.optimum(C)
        assert pytest.approx(N, rel=2e-4) == best.N and pytest.approx(D, rel=2e-4) == best.D
        assert found.loss(best.N, best.D) == pytest.approx(L, abs=5e-5)


@pytest.mark.parametrize("name", [name for name, law in LAWS.items() if set(law.variables) == {"N", "D"}])
def test_a_law_in_its_own_units_is_recovered(name: str) -> None:
    truths = {
        "kaplan": {"Nc": 6.4e13, "Dc": 1.8e13, "alpha": 0.076, "beta": 0.103},
        "symmetric": {"E": 1.9, "A": 300.0, "B": 900.0, "alpha": 0.33},
        "coupled": {"E": 1.8, "A": 2000.0, "B": 9000.0, "alpha": 0.42, "beta": 0.45, "k": 0.8},
    }
    truth = truths.get(name, TRUTH)
    found = fit(isoflop_grid(truth, law=name, within=8), law=name)
    # A of an exponent that is off by 1e-6 is off by ln(1e9) times as much
    assert found.values == pytest.approx(truth, rel=1e-3)
    assert found.objective < 1e-12


@given(st.randoms(use_true_random=False))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_the_order_of_rows_does_not_matter(random) -> None:
    rows = list(range(len(NOISY)))
    random.shuffle(rows)
    assert fit(NOISY.take(rows)).values == fit(NOISY).values


@given(n=st.floats(1e-6, 1e6), d=st.floats(1e-6, 1e6), loss=st.floats(0.1, 10))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_units_do_not_matter(n: float, d: float, loss: float) -> None:
    base, moved = fit(NOISY), fit(runs(n * NOISY.N, d * NOISY.D, loss * NOISY.L))
    units = {"E": loss, "A": loss * n ** base.values["alpha"], "B": loss * d ** base.values["beta"]}
    expected = {name: value * units.get(name, 1) for name, value in base.values.items()}
    assert moved.values == pytest.approx(expected, rel=1e-4)
    assert moved.objective == pytest.approx(base.objective, rel=1e-9)
    assert [p.status for p in moved.parameters.values()] == [p.status for p in base.parameters.values()]


@pytest.mark.parametrize(
    ("letter", "value"), [("N", np.nan), ("D", -1.0), ("L", 0.0), ("L", -2.0), ("L", np.nan), ("L", np.inf)]
)
def test_a_number_that_no_run_can_have_is_refused(letter: str, value: float) -> None:
    columns = {"N": NOISY.N.copy(), "D": NOISY.D.copy(), "L": NOISY.L.copy()}
    columns[letter][3] = value
    with pytest.raises(
        ValueError, match=r"=\S+ of run r3 of test must be a positive number; correct it or leave it out"
    ):
        fit(runs(**columns))


def test_one_size_or_one_length_is_refused() -> None:
    N, D = np.full(9, 61830912.0), np.geomspace(1e8, 1e10, 9)
    with pytest.raises(ValueError, match=r"all 9 runs of test have the same params=6.183e\+07, so what N contributes"):
        fit(runs(N, D, 2 + D**-0.1))
    with pytest.raises(
        ValueError, match=r"have the same tokens=6.183e\+07, so what D contributes .* add runs with other"
    ):
        fit(runs(D, N, 2 + D**-0.1))


@pytest.mark.parametrize("name", ["chinchilla", "coupled"])
def test_fewer_distinct_runs_than_parameters_are_refused(name: str) -> None:
    few = len(LAWS[name].parameters) - 1
    four = isoflop_grid(TRUTH, budgets=(1e18, 1e19), sizes=4).take(range(few))
    many = replace(four, runs=four.runs * 5)
    with pytest.raises(
        ValueError, match=f"{few} distinct runs of test cannot determine the {few + 1} parameters of {name}"
    ):
        fit(many, law=name)


def test_an_unknown_law_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"law='chinchila' is not known; choose one of .*chinchilla"):
        fit(NOISY, law="chinchila")


def test_a_law_without_a_floor_leaves_the_floor_on_its_bound() -> None:
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(1e9, 1e11, 6)))
    found = fit(runs(N, D, 30 * N**-0.1 + 50 * D**-0.1))
    assert found.parameters["E"].status != "identified"


def test_what_a_narrow_table_leaves_open_is_said() -> None:
    N, D = (grid.ravel() for grid in np.meshgrid([1e8, 1.05e8, 1.1e8], np.geomspace(1e9, 1e11, 6)))
    loss = LAWS["chinchilla"](N=N, D=D, **TRUTH) * np.exp(0.01 * np.random.default_rng(0).standard_normal(18))
    found = fit(runs(N, D, loss))
    assert "identified" not in {found.parameters[name].status for name in ("A", "alpha")}


def test_a_fit_comes_back_from_its_file(tmp_path: Path) -> None:
    found = fit(replace(NOISY, left_out=("r9: diverged",)))
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(found.to_dict()))
    back = Fit.read(path)
    assert isinstance(back.records, Records) and back.records.left_out == ("r9: diverged",)
    assert (back.law, back.values, back.objective) == (found.law, found.values, found.objective)
    np.testing.assert_array_equal(back.records.N, found.records.N)


@pytest.mark.parametrize("text", ["[]", "{}", '{"law": "none"}'])
def test_what_is_no_fit_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(ValueError, match=r"is not a fit .*; make it anew with `isoflop fit`"):
        Fit.read(tmp_path / "fit.json")


def test_absolute_residuals_give_the_published_refit() -> None:
    """Besiroglu et al. let their likelihood's scale run to 4.7e-6, which leaves least absolute deviations."""
    expected = {"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658}
    assert fit(hoffmann240(), objective="absolute").values == pytest.approx(expected, rel=3e-4)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_each_objective_is_least_where_its_fit_is(name: str) -> None:
    found = fit(NOISY, objective=name)
    assert found.by == name
    if name == "robust":
        return
    costs = {
        "huber": lambda r: np.where(r < 1e-3, r * r / 2, 1e-3 * (r - 5e-4)).sum(),
        "absolute": lambda r: r.sum(),
        "squared": lambda r: (r * r / 2).sum(),
    }
    rng = np.random.default_rng(0)
    for step in (0.0, 1e-4, 1e-3, 1e-2):
        values = {key: value * np.exp(step * rng.standard_normal()) for key, value in found.values.items()}
        cost = costs[name](np.abs(np.log(LAWS["chinchilla"](N=NOISY.N, D=NOISY.D, **values) / NOISY.L)))
        if step == 0:
            assert cost == pytest.approx(found.objective, rel=1e-4)
        else:
            assert cost > found.objective


def test_a_robust_scale_lies_between_many_outliers_and_none() -> None:
    """One run in ten is 10 % off: squared residuals follow it, Huber's at a robust scale hardly."""
    wild = runs(NOISY.N, NOISY.D, NOISY.L * np.where(np.arange(len(NOISY)) % 10 == 0, 1.1, 1.0))
    off = {name: abs(fit(wild, objective=name).values["E"] - 1.7) for name in ("robust", "squared")}
    assert off["robust"] < off["squared"]


def test_an_unknown_objective_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        ValueError, match="objective='hubber' is not known; choose one of huber, robust, absolute, squared"
    ):
        fit(NOISY, objective="hubber")


def test_a_run_of_weight_two_is_a_run_twice() -> None:
    weights = 1.0 + (np.arange(len(NOISY)) % 3 == 0)
    twice = replace(NOISY, runs=NOISY.runs + tuple(NOISY.runs[::3]))
    weighed = fit(NOISY, weights=weights)
    assert weighed.values == pytest.approx(fit(twice).values, rel=1e-5)
    assert weighed.weights == tuple(weights)


def test_the_weights_scale_does_not_matter_nor_does_the_order() -> None:
    weights = np.linspace(0.5, 2, len(NOISY))
    base, turned = fit(NOISY, weights=weights), np.arange(len(NOISY))[::-1]
    assert fit(NOISY, weights=1e6 * weights).values == pytest.approx(base.values, rel=1e-5)
    assert fit(NOISY.take(turned), weights=weights[turned]).values == base.values


def test_weights_that_cannot_be_are_refused() -> None:
    weights = np.ones(len(NOISY))
    weights[2] = 0.0
    with pytest.raises(
        ValueError, match="weight=0 of run r2 of test must be a positive number; leave the run out instead"
    ):
        fit(NOISY, weights=weights)
    with pytest.raises(ValueError, match="3 weights for 30 runs of test; give one a run"):
        fit(NOISY, weights=np.ones(3))


@pytest.mark.slow
def test_standard_errors_are_the_spread_of_fits_to_new_noise() -> None:
    fits = [
        fit(isoflop_grid(TRUTH, sizes=9, within=8, noise=0.01, seed=seed), objective="squared") for seed in range(120)
    ]
    for name in ("E", "alpha", "beta"):
        told = np.mean([found.parameters[name].error or np.nan for found in fits])
        assert told == pytest.approx(np.std([found.values[name] for found in fits]), rel=0.25)


def test_errors_follow_the_units() -> None:
    """A in its own unit is uncertain mostly because α is: many times more than A at the centre of the data."""
    center = np.exp(np.log(NOISY.N).mean())
    own, central = (
        fit(some, objective="squared").parameters for some in (NOISY, runs(NOISY.N / center, NOISY.D, NOISY.L))
    )
    assert own["alpha"].error == pytest.approx(central["alpha"].error, rel=1e-3)
    errors = [(told["A"].error or np.nan) / told["A"].value for told in (own, central)]
    assert errors[0] > 3 * errors[1]


@pytest.mark.parametrize(
    "edit",
    [
        {"samples": {"E": [1.0, 2.0]}},
        {"samples": {name: [-1.0, 2.0] for name in TRUTH}},
        {"by": "luck"},
        {"weights": [1.0, 2.0]},
        {"runs": [{"id": "a", "params": {"given": 1e6}, "tokens": 10**400, "flops": 1.0, "loss": 2.0}]},
    ],
    ids=["samples missing", "samples negative", "objective", "weights", "a number beyond all"],
)
def test_an_edited_fit_is_refused(tmp_path: Path, edit: dict) -> None:
    path = tmp_path / "fit.json"
    path.write_text(json.dumps(fit(NOISY).to_dict() | edit))
    with pytest.raises(ValueError, match=r"is not a fit .*make it anew with `isoflop fit`"):
        Fit.read(path)


def test_on_a_bound_nothing_else_is_identified_but_a_floor_may_be_nought() -> None:
    law = LAWS["chinchilla"]
    low, high = bounds(law)
    middle = (low + high) / 2
    at = {name: np.where(np.array(law.parameters) == name, low, middle) for name in ("alpha", "E")}
    for name, others in (("alpha", "flat valley"), ("E", "identified")):
        found = dict(zip(law.parameters, statuses(law, at[name], at[name] - 0.1, at[name] + 0.1), strict=True))
        assert found.pop(name) == "on bound" and set(found.values()) == {others}


def test_sizes_that_differ_by_rounding_are_one_level() -> None:
    assert level_of(np.array([2e8, 1e8, 1.004e8, 0.5e8, 2.001e8])).tolist() == [2, 1, 1, 0, 2]
