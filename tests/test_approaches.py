"""python -m pytest tests/test_approaches.py"""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isoflop.law.approaches import APPROACHES, Question, approaches, envelope
from isoflop.law.fit import fit
from isoflop.law.uncertainty import bootstrap
from isoflop.record import Record, Records
from isoflop.sources import read

SHARED = Path(os.environ.get("ISOFLOP_DATA", Path(__file__).parents[2] / "shared" / "data"))
E, A, B, ALPHA, BETA = 1.8, 300.0, 1200.0, 0.33, 0.37
"""Made up."""


def table(points) -> Records:
    runs = tuple(
        Record(id=f"{i}", params={"given": N}, tokens=D, flops=6 * N * D, loss=E + A * N**-ALPHA + B * D**-BETA)
        for i, (N, D) in enumerate(points)
    )
    return Records(runs, source="t.csv", convention="given")


def isoflop(wide: float = 4.0) -> Records:
    """Seven sizes a budget about the optimum, ten budgets."""
    G = (ALPHA * A / BETA / B) ** (1 / (ALPHA + BETA))
    best = [(C, G * (C / 6) ** (BETA / (ALPHA + BETA))) for C in np.geomspace(1e18, 1e22, 10)]
    return table([(n * f, C / (6 * n * f)) for C, n in best for f in np.geomspace(1 / wide, wide, 7)])


def test_all_approaches_find_the_exponent_of_a_law_without_noise() -> None:
    records = isoflop()
    found = approaches(records, fit(records), 1e24)
    assert [answer.approach for answer in found.answers] == list(APPROACHES)
    truth = BETA / (ALPHA + BETA)
    exact = [answer for answer in found.answers if answer.approach in ("approach 3", "variable projection")]
    for answer in found.answers:
        assert answer.a.value == pytest.approx(truth, abs=0.02)
    for answer in exact:
        assert answer.a.value == pytest.approx(truth, abs=1e-6)
        assert pytest.approx(1.0) == 6 * answer.N.value * answer.D.value / 1e24
    low, high = found.spread_params
    assert low <= exact[0].N.value <= high and f"(×{high / low:.2f})" in found.sentence()
    assert found.uncertainty() == {
        "flops": 1e24,
        "a": found.spread_a,
        "params": found.spread_params,
        "sentence": found.sentence(),
    }
    assert set(found.answers[0].to_dict()) == {"approach", "a", "params", "tokens", "note"}


def test_curves_are_read_between_their_points() -> None:
    records = table([(N, D) for N in np.geomspace(1e7, 1e10, 25) for D in np.geomspace(1e8, 1e12, 60)])
    lines = envelope(Question(records, fit(records), records, 0, 0))
    assert "envelope of 25 curves" in lines.note
    assert lines.N.slope == pytest.approx(BETA / (ALPHA + BETA), abs=0.01)
    assert lines.N.slope + lines.D.slope == pytest.approx(1.0, abs=1e-3)


def noisy(sd: float, seed: int = 0) -> Records:
    records = isoflop()
    noise = np.exp(sd * np.random.default_rng(seed).standard_normal(len(records)))
    runs = tuple(replace(run, loss=run.loss * e) for run, e in zip(records.runs, noise, strict=True))
    return replace(records, runs=runs)


def test_every_approach_has_an_interval_that_grows_with_the_noise() -> None:
    widths = []
    for sd in (0.001, 0.01):
        records = noisy(sd)
        fitted = bootstrap(fit(records), replicates=40)
        found = approaches(records, fitted, 1e24, draws=40)
        for answer in found.answers:
            assert answer.a.low < answer.a.value < answer.a.high or answer.approach == "approach 1"
            assert answer.N.low < answer.N.high and answer.D.low < answer.D.high
        widths.append([answer.a.high - answer.a.low for answer in found.answers])
    assert all(wide > narrow for narrow, wide in zip(*widths, strict=True))
    assert approaches(records, fitted, 1e24, draws=40).answers == found.answers
    without = approaches(records, fit(records), 1e24, draws=0)
    assert all(answer.a.low is None for answer in without.answers)


def test_points_along_runs_are_curves_and_are_drawn_as_runs() -> None:
    sizes, lengths = np.geomspace(1e7, 1e10, 12), np.geomspace(1e8, 1e12, 40)
    runs = table([(N, D) for N in sizes for D in lengths]).runs
    along = tuple(replace(run, group=f"{i // len(lengths)}") for i, run in enumerate(runs))
    curves = replace(isoflop(), runs=along)
    records = isoflop()
    found = approaches(records, fit(records), 1e24, curves=curves, draws=50).answers[0]
    assert found.note == "envelope of 12 curves"
    assert found.a.value == pytest.approx(BETA / (ALPHA + BETA), abs=0.02) and found.a.low < found.a.high
    few = replace(curves, runs=along[: 5 * len(lengths)])
    found = approaches(records, fit(records), 1e24, curves=few, draws=50).answers[0]
    assert found.a.low is None and "the runs mostly leave no envelope" in found.note


def test_three_sizes_a_budget_give_approach_2_no_interval() -> None:
    G = (ALPHA * A / BETA / B) ** (1 / (ALPHA + BETA))
    best = [(C, G * (C / 6) ** (BETA / (ALPHA + BETA))) for C in np.geomspace(1e18, 1e22, 6)]
    records = table([(n * f, C / (6 * n * f)) for C, n in best for f in (0.4, 1.0, 2.5)])
    found = approaches(records, fit(records), 1e24, draws=50).answers[1]
    assert found.a.low is None and "three sizes a budget leave no residuals" in found.note


def test_refusals_stand_beside_the_answers() -> None:
    records = table([(N, D) for N in (1e7, 1e8, 1e9) for D in (1e9, 1e10, 1e11)])
    with pytest.raises(ValueError, match=r"flops=-1 of a target must be a positive number"):
        approaches(records, fit(records), -1.0)
    found = approaches(records, fit(records), 1e24)
    refused = {answer.approach: answer.note for answer in found.answers if answer.a is None}
    assert "approach 2 needs 3 budgets" in refused["approach 2"]
    one = isoflop().take(range(7))
    with pytest.raises(ValueError, match=r"only 1 run of t\.csv is beaten by no cheaper one, and it has"):
        envelope(Question(one, fit(isoflop()), one, 0, 0))
    thin = table([(N, D) for N in (1e7, 1e8, 1e9) for D in (1e9, 3e9, 1e10)])
    with pytest.raises(ValueError, match=r"too few sizes of t\.csv \(\d\) are the best of those seen"):
        envelope(Question(thin, fit(isoflop()), thin, 0, 0))
    rising = Records(
        tuple(
            Record(id=str(i), params={"given": n}, tokens=d, flops=6 * n * d, loss=2 + 1e-9 * n + 1000 * d**-0.4)
            for i, (n, d) in enumerate((n, d) for n in (1e8, 3e8, 1e9) for d in (1e9, 1e10, 1e11))
        ),
        "u.csv",
        "given",
    )
    with pytest.raises(ValueError, match=r"least squared loss of u\.csv needs no term of N"):
        APPROACHES["variable projection"](Question(rising, fit(isoflop()), rising, 0, 0))
    alone = approaches(one, fit(isoflop(), law="power_C"), 1e24)
    assert alone.spread_a is None and "fewer than two" in alone.sentence()


@pytest.mark.skipif(not SHARED.exists(), reason="the public tables lie beside the repository, not in it")
def test_the_courses_table() -> None:
    records = read(SHARED / "cs336_isoflops.csv")
    found = {answer.approach: answer for answer in approaches(records, fit(records), 1e24).answers}
    assert found["approach 1"].a.value == pytest.approx(0.4687, abs=5e-5)
    assert pytest.approx(2.06e11, rel=3e-3) == found["approach 1"].N.value
    assert found["approach 2"].a.value == pytest.approx(0.5146, abs=5e-5)
    for name in ("approach 3", "variable projection"):
        assert pytest.approx(3.003e11, rel=2e-4) == found[name].N.value


def test_parameters_on_their_bounds_give_no_optimum() -> None:
    records = isoflop()
    fitted = fit(records)
    bound = replace(
        fitted, parameters={**fitted.parameters, "alpha": replace(fitted.parameters["alpha"], status="on bound")}
    )
    with pytest.raises(
        ValueError, match="alpha of the fitted chinchilla ended on a bound, so its optimum is no answer"
    ):
        APPROACHES["approach 3"](Question(records, bound, records, 0, 0))
    points = [(n, d) for n in (1e8, 3e8, 1e9, 3e9) for d in (1e9, 1e10, 1e11)]
    runs = tuple(
        Record(id=str(i), params={"given": n}, tokens=d, flops=6 * n * d, loss=9 - 0.1 * np.log(n) + 1000 * d**-0.4)
        for i, (n, d) in enumerate(points)
    )
    straight = Records(runs, "l.csv", "given")
    with pytest.raises(ValueError, match=r"least squared loss of l\.csv has an exponent on its bound \(α = 0\.02"):
        APPROACHES["variable projection"](Question(straight, fitted, straight, 0, 0))
