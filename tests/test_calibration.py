"""python -m pytest tests/test_calibration.py"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.study.calibration import Outcome, calibrate, distinct, find, keep, look, loss_of
from isoflop.study.locked import Locked, Score, read_locked
from tests.studies import write_forecast, write_run, write_study

LOCKED = Locked(
    run=None,
    params=1e6,
    params_convention="given",
    tokens=2e7,
    flops=1.2e14,
    loss=2.0,
    low=1.9,
    high=2.1,
    level=0.9,
    basis="made up",
    made="2026-01-01T00:00:00+00:00",
    isoflop="0",
    inputs={},
)


@pytest.mark.parametrize(("of", "expected"), [(1, (0, 1)), (5, (3, 5)), (20, (16, 20))])
def test_chance_is_the_binomial(of: int, expected: tuple[int, int]) -> None:
    hits = calibrate([Score(LOCKED, 2.0)] * of)
    assert (hits.inside, hits.of, hits.expected, hits.median_abs_rel_error) == (of, of, expected, 0.0)
    misses = calibrate([Score(LOCKED, 2.2)] * of)
    assert misses.verdict == ("as chance allows" if of == 1 else "so these are too narrow")
    assert misses.median_abs_rel_error == pytest.approx(0.1) and misses.interval_score > hits.interval_score


def test_intervals_of_half_are_too_wide_when_all_hold() -> None:
    assert calibrate([Score(replace(LOCKED, level=0.5), 2.0)] * 10).verdict == "so these are too wide"


def test_forecasts_are_found_under_any_name_but_not_among_runs(tmp_path: Path) -> None:
    study = write_forecast(write_study(tmp_path / "deep" / "s", fitted=False))
    other = tmp_path / "mine.json"
    other.write_text((study / "forecast.json").read_text())
    (study / "runs" / "forecast.json").write_text("{}")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "forecast.json").write_text("{}")
    (tmp_path / "table.json").write_text("[]")
    assert find([tmp_path]) == [other, study / "forecast.json"]
    assert find([other, tmp_path, study]) == [other, study / "forecast.json"]
    with pytest.raises(ValueError, match=r"nowhere does not exist; `isoflop lock`"):
        find([tmp_path / "nowhere"])
    with pytest.raises(ValueError, match="large has no forecast in it"):
        find([study / "target" / "large"])


def test_what_was_measured_elsewhere_is_kept_with_the_forecast(tmp_path: Path) -> None:
    path = write_forecast(write_study(tmp_path / "s", fitted=False), measured=False) / "forecast.json"
    assert look(path).score is None and "its run is not measured yet" in (look(path).lacks or "")
    beside = keep(path, 1.5)
    assert keep(path, 1.5) == beside and (look(path).score or Score(LOCKED, 0)).measured == 1.5
    with pytest.raises(ValueError, match=r"forecast.measured.json says 1.5 already, not 1.6"):
        keep(path, 1.6)
    path.write_text(path.read_text().replace("made up", "made down"))
    with pytest.raises(ValueError, match=r"is not the forecast that forecast.measured.json measures: it was changed"):
        look(path)
    beside.write_text(json.dumps({"loss": -1}))
    with pytest.raises(ValueError, match="has no loss in it; delete it"):
        look(path)


def test_a_record_must_be_of_the_run_that_was_forecast(tmp_path: Path) -> None:
    folder = write_forecast(write_study(tmp_path / "s", fitted=False))
    path = folder / "forecast.json"
    with pytest.raises(ValueError, match="has its own measured run; leave --run and --measured out"):
        keep(path, 1.5)
    other = write_run(tmp_path / "other", N=1e5, C=1e12)
    with pytest.raises(ValueError, match=r"run other spent 1e\+12 FLOPs, but 4e\+12 were forecast"):
        loss_of(other, read_locked(path))
    wide = write_run(tmp_path / "wide", N=1e5, C=4e12)
    with pytest.raises(ValueError, match=r"run wide has N = 1e\+05 and D = 6.667e\+06, but .* were forecast"):
        loss_of(wide, read_locked(path))
    locked = read_locked(path)
    same = replace(wide, params={"compute": locked.params}, tokens=locked.tokens)
    with pytest.raises(ValueError, match="has a loss of -1, which no run has"):
        loss_of(replace(same, loss=-1.0), locked)
    with pytest.raises(ValueError, match="ended as diverged and has no loss"):
        loss_of(replace(same, status="diverged"), locked)
    lost = write_run(folder / "target" / "large", N=1e5, C=4e12, status="diverged")
    with pytest.raises(ValueError, match="run large ended as diverged and has no loss"):
        loss_of(lost, read_locked(path))
    assert look(path).score is None and "ended as diverged" in (look(path).lacks or "")


def test_copies_of_a_forecast_count_once_and_as_measured(tmp_path: Path) -> None:
    other, scored = replace(LOCKED, tokens=3e7), Score(LOCKED, 2.0)
    rows = [(LOCKED, None), (other, None), (LOCKED, scored), (LOCKED, None)]
    found = [Outcome(Path(f"{i}.json"), locked, score, None, ()) for i, (locked, score) in enumerate(rows)]
    kept, notes = distinct(found)
    assert kept == [found[2], found[1]]
    assert notes == ["2.json is a copy of 0.json; they count once", "3.json is a copy of 0.json; they count once"]
    assert distinct(found[:2]) == (found[:2], [])
