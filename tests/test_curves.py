"""python -m pytest tests/test_curves.py"""

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.record import Record, Records
from isoflop.sources import curves as module
from isoflop.sources.curves import read_curves


def study(folder: Path) -> Records:
    """Two runs, one with a log whose losses alternate about 3."""
    runs = tuple(Record(id=name, params={"compute": 1e6}, tokens=1e5, flops=6e11, loss=2.9) for name in "ab")
    (folder / "runs" / "a").mkdir(parents=True)
    lines = [{"step": i, "tokens": 1e3 * i, "flops": 6e9 * i, "train_loss": 3 + 0.1 * (-1) ** i} for i in range(1, 101)]
    text = "".join(json.dumps(line) + "\n" for line in [*lines, {"step": 100, "val_loss": 2.9}])
    (folder / "runs" / "a" / "log.jsonl").write_text(text + '{"step": 101, "tok')
    return Records(runs, source=str(folder))


def test_points_along_a_run_are_smoothed_and_share_its_group(tmp_path: Path) -> None:
    curves = read_curves(tmp_path, study(tmp_path))
    assert {run.group for run in curves.runs} == {"a"}
    assert (curves.D.min(), curves.D.max(), len(curves)) == (1.1e4, 1e5, 90)
    assert np.abs(curves.L[-50:] - 3).max() < 0.02
    assert (curves.C / (6 * curves.N * curves.D)).max() < 1.0001


def test_what_has_no_logs_has_no_curves(tmp_path: Path) -> None:
    records = study(tmp_path)
    assert read_curves(tmp_path / "t.csv", records) is None
    (tmp_path / "runs" / "a" / "log.jsonl").unlink()
    assert read_curves(tmp_path, records) is None


def test_many_runs_are_not_read_along_their_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = study(tmp_path)
    monkeypatch.setattr(module, "MANY", 1)
    assert read_curves(tmp_path, records) is None
