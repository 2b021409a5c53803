"""python -m pytest tests/test_locked.py"""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.config import DataConfig, OptimConfig, TrainConfig
from isoflop.presets import preset
from isoflop.sources import read
from isoflop.study import drive
from isoflop.study.locked import FORECAST, Score, lock, lock_target, read_locked, read_target
from isoflop.study.study import Study
from tests.studies import true_loss, true_size, write_run, write_study


@pytest.fixture
def study(tmp_path: Path, token_folder: Path) -> Path:
    """Twenty runs of a known law, and a target on a real token folder."""
    folder = write_study(tmp_path / "s", fitted=False)
    asked = Study(
        name="s",
        budgets=(1e11,),
        sizes=1,
        widths=(16,),
        target_flops=4e12,
        target_d_model=72,
        model=preset("small"),
        data=DataConfig(data=str(token_folder), val_tokens=1024),
        optim=OptimConfig(),
        train=TrainConfig(batch_size=8),
    )
    (folder / "study.json").unlink()
    drive.settle(asked, folder)
    return folder


def test_a_forecast_is_written_once_and_read_back(study: Path) -> None:
    made = lock_target(study)
    assert read_locked(study / FORECAST) == made == lock_target(study)
    with pytest.raises(ValueError, match=r"study.json exists already, and what stands there is never replaced"):
        lock_target(study, out=study / "study.json")
    assert made.low < made.loss < made.high and made.level == 0.9
    assert made.loss == pytest.approx(true_loss(made.params, made.tokens), rel=0.03)
    assert 6 * made.params * made.tokens == pytest.approx(made.flops)
    assert len(made.inputs) == 21 and "study.json" in made.inputs


def test_what_changes_afterwards_is_seen(study: Path) -> None:
    made = lock_target(study)
    assert made.changed(study) == []
    write_run(study / "runs" / "b0-s0", N=true_size(1e11) * 2, C=1e11)
    (study / "runs" / "b1-s1" / "record.json").unlink()
    assert set(made.changed(study)) == {"runs/b0-s0/record.json", "runs/b1-s1/record.json"}


def test_a_run_that_has_begun_is_refused(study: Path) -> None:
    target = drive.plan(drive.open_study(study), study, targets=True)[0]
    target.folder.mkdir(parents=True)
    (target.folder / "log.jsonl").write_text("")
    with pytest.raises(ValueError, match="has begun to train, and a forecast made after its run is none"):
        lock_target(study)
    assert not (study / FORECAST).exists()


def test_a_study_without_a_target_is_refused(study: Path) -> None:
    asked = replace(drive.open_study(study), target_flops=None, target_d_model=None)
    drive.settle(asked, study)
    with pytest.raises(ValueError, match="the study has no target"):
        lock_target(study)


def test_another_target_has_no_forecast_yet(study: Path) -> None:
    lock_target(study)
    drive.settle(replace(drive.open_study(study), target_flops=8e12), study)
    with pytest.raises(ValueError, match=r"is the forecast of run .* but the study's target is"):
        lock_target(study)


def test_a_file_is_never_replaced(study: Path, tmp_path: Path) -> None:
    records, path = read(study), tmp_path / "big.json"
    first = lock(records, path, N=1e5, D=1e7, C=6e12, inputs=[study / "study.json"])
    with pytest.raises(ValueError, match=r"big.json exists already, and what stands there is never replaced"):
        lock(records, path, N=1e5, D=1e8, C=6e13, inputs=[])
    assert read_locked(path) == first and list(first.inputs) == ["s/study.json"]


def test_a_score_tells_hit_from_miss(study: Path) -> None:
    made = lock_target(study)
    assert read_target(study, made) is None
    record = write_run(study / "target" / str(made.run), N=made.params, C=made.flops)
    found = read_target(study, made)
    assert found is not None and found.loss == record.loss
    assert Score(made, made.loss * 1.001).inside and Score(made, made.low).inside
    assert not Score(made, made.high * 1.001).inside
    assert Score(made, made.loss * 0.99).error == pytest.approx(-0.01)
    width = math.log(made.high / made.low)
    assert Score(made, made.loss).interval_score == pytest.approx(width)
    assert Score(made, made.high * 1.01).interval_score == pytest.approx(width + 20 * math.log(1.01))


@pytest.mark.parametrize(
    "change", [{"low": None}, {"loss": 0.0}, {"low": 9.0}, {"high": 1e-3}, {"loss": "x"}, {"inputs": 5}, {"level": 1.0}]
)
@pytest.mark.usefixtures("unchecked")
def test_a_forecast_that_lies_is_refused(change: dict, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock_target(study)
    path = study / FORECAST
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    assert main(["score", str(study)]) == 2
    assert "is not a forecast that `isoflop lock` wrote" in capsys.readouterr().err
