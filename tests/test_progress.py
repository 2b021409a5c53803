"""Run: python -m pytest tests/test_progress.py"""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.config import DataConfig, TrainConfig, write_run
from isoflop.data.tokens import read_meta
from isoflop.flops import compute
from isoflop.presets import preset
from isoflop.record import Record
from isoflop.study import drive
from isoflop.study.progress import QUIET, progress
from isoflop.study.study import Study


@pytest.fixture
def study(tmp_path: Path, token_folder: Path) -> Path:
    """A study of six runs: one done, one under way, four open."""
    vocab_size = read_meta(token_folder)["vocab_size"]
    asked = Study(
        name="mine",
        budgets=(2e8, 4e8),
        sizes=3,
        widths=(8, 12, 16, 12, 16, 20),
        model=preset("small", vocab_size=vocab_size, context_length=8, num_heads=2),
        data=DataConfig(data=str(token_folder), val_tokens=64),
        train=TrainConfig(batch_size=2),
    )
    folder = tmp_path / "mine"
    drive.settle(asked, folder)
    done, going, *_ = drive.plan(asked, folder)
    for run in (done, going):
        write_run(run.config, run.folder.parent)
    Record(id=done.config.id, params={"compute": 1e3}, tokens=1.0, flops=done.flops, loss=2.0).write(
        done.folder / "record.json"
    )
    lines = [
        {"step": step, "tokens": 16 * step, "train_loss": 9.0 / step, "seconds": 2.0 * step, "flops": 1e6 * step}
        for step in (1, 2)
    ] + [{"step": 2, "val_loss": 4.0}]
    (going.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 3, "tok')
    return folder


def test_what_is_done_under_way_and_open_is_read_from_the_folders(study: Path) -> None:
    now = progress(study)
    assert (len(now.planned), len(now.records), len(now.underway)) == (6, 1, 1)
    (going,) = now.underway
    per_token = compute(going.planned.config.model)
    assert (going.step, going.loss, going.flops) == (2, 4.5, 32 * per_token)
    assert going.running
    done = next(run for run in now.planned if run.folder in now.records)
    assert now.spent == done.flops + going.flops
    assert now.seconds_left == pytest.approx((now.flops - now.spent) / (8 * per_token))


def test_a_log_that_fell_silent_is_not_running(study: Path) -> None:
    (log,) = study.glob("runs/*/log.jsonl")
    os.utime(log, (time.time() - 2 * QUIET, time.time() - 2 * QUIET))
    now = progress(study)
    assert not now.underway[0].running
    assert now.seconds_left is None


@pytest.mark.parametrize("silent", [0.0, 2e5])
@pytest.mark.parametrize("columns", [80, 100])
def test_watch_fits_the_terminal(
    columns: int, silent: float, study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (log,) = study.glob("runs/*/log.jsonl")
    os.utime(log, (time.time() - silent, time.time() - silent))
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["study", "watch", str(study), "--once"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "d_model" in line and "FLOPs" in line]
    assert len(line) == columns and ("silent" if silent else "loss 4.500") in line


def test_watch_shows_runs_curves_and_law(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "watch", str(study), "--once"]) == 0
    shown = capsys.readouterr().out
    assert "mine: 1 of 6 runs" in shown
    assert "loss 4.500" in shown
    assert "no law yet" in shown
    assert main(["study", "status", str(study)]) == 0
    assert "running" not in (rows := capsys.readouterr().out) and "stopped" in rows and "~4.5000" in rows
    assert main(["study", "watch", str(study), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    assert (value["runs"], value["complete"], value["underway"][0]["step"]) == (6, 1, 2)
    assert main(["study", "watch", str(study), "--every", "0"]) == 2
    assert "--every 0 must be above 0" in capsys.readouterr().err


def test_watch_of_a_study_that_is_done_shows_it_and_ends(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run in progress(study).planned:
        Record(id=run.config.id, params={"compute": 1e3}, tokens=1.0, flops=run.flops, loss=2.0).write(
            run.folder / "record.json"
        )
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("there is nothing to wait for"))
    assert main(["study", "watch", str(study)]) == 0
    assert "mine: 6 of 6 runs" in capsys.readouterr().out
