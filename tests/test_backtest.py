"""python -m pytest tests/test_backtest.py"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isoflop.cli.app import main
from isoflop.law.backtest import Band, backtest, score, split
from isoflop.law.forecast import forecast
from isoflop.law.laws import LAWS
from isoflop.record import Record, Records
from isoflop.sources import read
from isoflop.sources.series import names
from tests.shared import shared

KEYS = {
    "series",
    "law",
    "cut",
    "train",
    "test",
    "median_abs_rel_error",
    "max_abs_rel_error",
    "coverage",
    "interval_score",
    "naive_coverage",
    "naive_interval_score",
}


def study(*, k: float = 1.0, noise: float = 0.003, seed: int = 0, budgets: int = 5, sizes: int = 5) -> Records:
    """Budgets half a decade apart, sizes around C^0.5, losses of the coupled law with noise in ln L."""
    C = np.repeat(1e17 * 10 ** (0.5 * np.arange(budgets)), sizes)
    N = np.sqrt(C / 120) * np.tile(np.geomspace(0.3, 3, sizes), budgets)
    D = C / (6 * N)
    law = LAWS["coupled"]
    L = law(N=N, D=D, E=1.8, A=480 ** (1 / k), B=2100 ** (1 / k), alpha=0.35 / k, beta=0.37 / k, k=k)
    L = L * np.exp(noise * np.random.default_rng(seed).standard_normal(len(C)))
    runs = [
        Record(id=f"{i}", params={"given": n}, tokens=d, flops=c, loss=y)
        for i, (n, d, c, y) in enumerate(zip(*(x.tolist() for x in (N, D, C, L)), strict=True))
    ]
    return Records(tuple(runs), source="a study", convention="given")


def write(path: Path, **series: Records) -> Path:
    rows = ["series,params,tokens,flops,loss"]
    for name, records in series.items():
        columns = (records.N, records.D, records.C, records.L)
        rows += [f"{name},{n!r},{d!r},{c!r},{y!r}" for n, d, c, y in zip(*(x.tolist() for x in columns), strict=True)]
    path.write_text("\n".join(rows))
    return path


def test_the_cut_parts_the_runs_by_flops_and_keeps_a_rounded_budget_below_it() -> None:
    train, test = split(study(), 10.0)
    assert (len(train), len(test)) == (15, 10)
    assert train.C.max() <= 1e18 * (1 + 1e-6) < test.C.min()


@pytest.mark.parametrize("cut", [1.0, 0.1, float("nan")])
def test_a_cut_that_holds_out_nothing_is_refused(cut: float) -> None:
    with pytest.raises(ValueError, match="holds out nothing"):
        split(study(), cut)


def test_a_cut_below_every_run_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no run of a study takes at most 1/1000 of the largest one's 1e\+19 FLOPs"):
        split(study(), 1000.0)


def test_an_unknown_law_is_refused() -> None:
    with pytest.raises(ValueError, match="law='linear' is not known; choose one of average"):
        backtest(study(), law="linear")


def test_the_score_of_a_band_by_hand() -> None:
    band = Band(mean=np.array([2.0, 2.0]), low=np.array([1.9, 1.9]), high=np.array([2.1, 2.1]))
    judged = score(band, np.array([2.05, 2.2]))
    assert judged.coverage == 0.5
    assert judged.median_abs_rel_error == pytest.approx((0.05 / 2.05 + 0.2 / 2.2) / 2)
    assert judged.max_abs_rel_error == pytest.approx(0.2 / 2.2)
    assert judged.interval_score == pytest.approx(np.log(2.1 / 1.9) + 20 * np.log(2.2 / 2.1) / 2)


def test_on_a_law_that_approach_3_does_not_hold_the_average_is_nearer_and_better_bounded() -> None:
    made = backtest(study(k=0.6, noise=0.001), replicates=50)
    assert (made.train, made.test, made.law) == (15, 10, "average")
    assert made.score.median_abs_rel_error < 0.01
    assert made.score.coverage >= 0.8
    assert made.score.interval_score < made.naive.interval_score


def test_one_law_with_a_bootstrap_is_the_naive_forecast_itself() -> None:
    made = backtest(study(), law="chinchilla", replicates=20)
    assert made.score == made.naive


def test_another_law_is_judged_by_its_own_bootstrap() -> None:
    made = backtest(study(), law="symmetric", replicates=20)
    assert made.law == "symmetric" and made.score != made.naive


def test_the_series_of_a_source_are_named_in_order(tmp_path: Path) -> None:
    two = write(tmp_path / "two.csv", b=study(), a=study())
    assert names(two) == ("b", "a")
    (tmp_path / "columns.json").write_text(json.dumps({"Series": ["x", "y"], "N": [1, 2]}))
    assert names(tmp_path / "columns.json") == ("x", "y")
    (tmp_path / "one.json").write_text(json.dumps([{"N": 1}]))
    assert names(tmp_path / "one.json") == (None,)
    assert names(tmp_path) == (None,)


def test_the_command_goes_through_all_series_and_cuts(tmp_path: Path, capsys) -> None:
    source = write(tmp_path / "runs.csv", one=study(), two=study(seed=1))
    assert main(["backtest", str(source), "--bootstrap", "5", "--json"]) == 0
    said = capsys.readouterr()
    printed = [json.loads(line) for line in said.out.splitlines()]
    assert [(row["series"], row["cut"], row["train"], row["test"]) for row in printed] == [
        ("one", 10, 15, 10),
        ("one", 30, 10, 15),
        ("two", 10, 15, 10),
        ("two", 30, 10, 15),
    ]
    assert all(set(row) == KEYS for row in printed) and not said.err


def test_the_command_says_what_it_leaves_out(tmp_path: Path, capsys) -> None:
    source = write(tmp_path / "runs.csv", one=study(), small=study(budgets=2))
    assert main(["backtest", str(source), "--bootstrap", "5", "--cut", "10", "--series", "one"]) == 0
    assert "1/10     15       10" in capsys.readouterr().out
    assert main(["backtest", str(source), "--bootstrap", "5", "--cut", "10"]) == 0
    assert "left out, 1/10 of the largest FLOPs: no run of" in capsys.readouterr().out
    assert main(["backtest", str(source), "--bootstrap", "5", "--cut", "10", "--series", "small"]) == 2
    assert "can be back-tested" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--bootstrap", "0"), "bootstrap=0 leaves approach 3 without the interval that is compared; give 2 to"),
        (("--cut", "10", "inf"), "cut=inf holds out nothing"),
        (("--law", "chinchila"), "law='chinchila' is not known"),
    ],
)
def test_what_no_series_can_be_asked_is_refused_at_once(
    args: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "runs.csv", one=study())
    assert main(["backtest", str(source), *args]) == 2
    assert message in capsys.readouterr().err


def test_runs_that_no_law_holds_for_are_left_out_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "runs.csv", one=study())
    first, *rows = path.read_text().splitlines()
    repeated = [f"{row},{k}" for row in rows for k in (1, 50)]
    path.write_text("\n".join([f"{first},epochs", *repeated]))
    assert main(["backtest", str(path), "--bootstrap", "5", "--cut", "10"]) == 0
    assert "one: left out 25 of 50 runs that saw their tokens more than 4 times" in capsys.readouterr().out


def test_the_command_prints_no_object_for_what_it_leaves_out(tmp_path: Path, capsys) -> None:
    source = write(tmp_path / "runs.csv", one=study(), small=study(budgets=2))
    assert main(["backtest", str(source), "--bootstrap", "5", "--cut", "10", "--json"]) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["series"] for line in said.out.splitlines()] == ["one"]
    assert said.err.startswith("isoflop: left out, 1/10 of")


def test_three_budgets_of_four_sizes_are_forecast_with_intervals_that_hold() -> None:
    inside = []
    for seed in range(6):
        runs = study(k=(0.7, 1.0, 1.4)[seed % 3], noise=0.008, seed=seed, budgets=4, sizes=4)
        train, test = split(runs, 3.0)
        told = forecast(train, N=test.N, D=test.D, C=test.C)
        assert len(train) == 12 and told.backtests == 1
        inside += ((told.low <= test.L) & (told.high >= test.L)).tolist()
    assert 0.8 < np.mean(inside) < 1  # an interval that never misses says too little


def test_the_fewer_and_noisier_the_runs_the_wider_the_interval() -> None:
    far = {"N": 2e9, "D": 4e10}
    width = {
        (noise, sizes): np.log(told.high / told.low)[0]
        for noise in (0.001, 0.01)
        for sizes in (4, 8)
        if (told := forecast(study(noise=noise, sizes=sizes, budgets=4), **far))
    }
    assert width[0.01, 4] > width[0.001, 4] and width[0.01, 8] > width[0.001, 8]
    assert width[0.01, 4] > width[0.01, 8]


def test_noise_is_that_of_runs_with_like_tokens_per_parameter() -> None:
    runs = study(noise=0.001, sizes=7)
    ratio = np.log(runs.D / runs.N)
    wild = np.where(ratio < np.median(ratio), 0.05 * (-1.0) ** np.arange(len(runs)), 0.0)
    losses = (runs.L * np.exp(wild)).tolist()
    wilder = replace(runs, runs=tuple(replace(run, loss=y) for run, y in zip(runs.runs, losses, strict=True)))
    long, short = np.exp(np.quantile(ratio, (0.95, 0.05)))
    N = np.sqrt(1e20 / 6 / np.array([long, short]))
    calm, noisy = forecast(wilder, N=N, D=1e20 / 6 / N).noise
    assert noisy > 3 * calm


def test_the_parts_of_the_interval_make_it() -> None:
    told = forecast(study(), N=np.array([1e9, 4e9]), D=np.array([2e10, 8e10]))
    growth = told.kappa * np.maximum(0, np.log(told.reach))
    half = 1.645 * np.sqrt(told.noise**2 + told.sampling**2 + told.spread**2 + growth**2)
    np.testing.assert_allclose(np.log(told.high / told.mean), half)
    np.testing.assert_allclose(np.log(told.mean / told.low), half)


@pytest.mark.parametrize(("cut", "train", "error"), [(10.0, 226, 0.007), (30.0, 189, 0.009)])
def test_the_chinchilla_runs_are_forecast_from_the_cheap_ones(cut: float, train: int, error: float) -> None:
    made = backtest(read(shared("epoch_chinchilla.csv")), cut=cut, replicates=20)
    assert made.train == train
    assert made.score.median_abs_rel_error < min(error, made.naive.median_abs_rel_error)
    assert made.score.coverage >= 0.85
    assert made.score.interval_score < made.naive.interval_score / 2
