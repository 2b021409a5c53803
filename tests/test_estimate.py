"""python -m pytest tests/test_estimate.py"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.config import DataConfig, OptimConfig, TrainConfig
from isoflop.presets import preset
from isoflop.study import drive, estimate
from isoflop.study.estimate import Speed
from isoflop.study.study import Study


@pytest.fixture
def study(token_folder: Path) -> Study:
    return Study(
        budgets=(1e8, 2e8),
        sizes=2,
        widths=(8, 16, 8, 16),
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        optim=OptimConfig(warmup_steps=1),
        train=TrainConfig(batch_size=1),
    )


def test_times_between_measured_shapes_and_beyond_them() -> None:
    speeds = [
        Speed(params=100, step=1.0, rest=2.0, memory=10),
        Speed(params=400, step=2.0, rest=4.0, memory=20),
    ]
    middle = estimate._between(speeds, 200)
    assert middle is not None
    assert (middle.step, middle.rest, middle.memory) == pytest.approx((2**0.5, 8**0.5, 200**0.5))
    larger, smaller = estimate._between(speeds, 4000), estimate._between(speeds, 50)
    assert larger is not None and (larger.step, larger.rest) == (20.0, 40.0)
    assert smaller is not None and (smaller.step, smaller.rest) == (0.5, 2.0)
    assert estimate._between([], 50) is None


def test_the_wall_time_is_that_of_the_fullest_worker(study: Study, tmp_path: Path) -> None:
    planned = drive.plan(study, tmp_path)
    known = [Speed(params=1e4, step=0.01, rest=1.0, memory=1e8)]
    priced = estimate.price(planned, known, study, train_tokens=10_000)
    times = sorted((run.seconds or 0.0 for run in priced), reverse=True)
    wall = estimate.wall_seconds(priced, workers=2)
    assert wall is not None and sum(times) / 2 <= wall <= sum(times)
    assert estimate.wall_seconds(priced, workers=1) == pytest.approx(sum(times))
    unknown = estimate.price(planned, [], study, train_tokens=10_000)
    assert estimate.wall_seconds(unknown, workers=2) is None
    assert unknown[0].memory is None


def test_what_is_doubtful_is_said(study: Study, tmp_path: Path) -> None:
    planned = drive.plan(study, tmp_path)
    assert all(run.warnings == () for run in estimate.price(planned, [], study, train_tokens=10**6)[:0])
    few = estimate.price(planned, [], study, train_tokens=100)
    assert "repeats the data" in few[0].warnings[0]
    slow = replace(study, optim=OptimConfig(warmup_steps=10_000))
    said = estimate.price(drive.plan(slow, tmp_path), [], slow, train_tokens=10**9)
    assert any("warm-up" in warning for warning in said[0].warnings)
    far = replace(study, tokens_per_param=1e6)
    assert any(
        "times the guessed optimum" in w for w in estimate.price(planned, [], far, train_tokens=10**9)[0].warnings
    )


def test_trials_are_short_and_few(study: Study, tmp_path: Path) -> None:
    wide = replace(study, budgets=(1e10,), sizes=20, widths=tuple(range(8, 88, 4)))
    shapes = estimate._shapes(drive.plan(wide, tmp_path))
    assert len(shapes) == estimate.SHAPES
    assert (shapes[0].model.d_model, shapes[-1].model.d_model) == (8, 84)
    trial = estimate._trial(shapes[-1]).train
    assert trial.flops is None and trial.steps is not None and 8 <= trial.steps <= 400


@pytest.mark.slow
def test_a_study_is_priced_before_it_is_trained(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive.settle(study, tmp_path)
    assert main(["study", "plan", str(tmp_path), "--price-per-hour", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert len(said["runs"]) == 4 and all(run["seconds"] > 0 and run["memory_bytes"] > 1e7 for run in said["runs"])
    assert said["total"]["price"] == pytest.approx(said["total"]["worker_seconds"] / 1800)
    assert not (tmp_path / "runs").exists()
    assert main(["study", "plan", str(tmp_path), "--seconds", "0"]) == 0
    assert "time not measured" in capsys.readouterr().out
