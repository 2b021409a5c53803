"""python -m pytest tests/test_tracker.py"""

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.app import main
from isoflop.lm import tracker as trackers
from isoflop.lm.tracker import TRACKERS
from isoflop.lm.train import train
from isoflop.record import Record
from isoflop.sources import read
from isoflop.study.study import study_from_tables


class Listed:
    """A tracker that keeps what it is shown."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.seen: dict[str, float] = {}
        self.closed = 0

    def show(self, step: int, values: Any) -> None:
        self.steps.append(step)
        self.seen |= values

    def close(self) -> None:
        self.closed += 1


def stopped_after(folder: Path, steps: int) -> None:
    """Train for so many steps, past the last checkpoint, and leave like a killed process: nothing more is saved."""
    asked = iter(range(10_000))

    class Killed(BaseException):
        pass

    def die() -> bool:
        if next(asked) == steps:
            raise Killed
        return False

    with pytest.raises(Killed):
        train(folder, should_stop=die)


def test_a_run_that_goes_on_shows_every_step_once(make_run: Callable[..., Path], monkeypatch) -> None:
    opened: list[Listed] = []

    def begin(folder: Path, config: object) -> Listed:
        opened.append(Listed())
        return opened[-1]

    monkeypatch.setitem(TRACKERS, "wandb", begin)
    folder = make_run(steps=10, log_every=1, eval_every=20, trackers=("wandb",))
    stopped_after(folder, 8)  # saved at step 6
    record = train(folder)
    assert opened[0].steps == list(range(1, 9)) and opened[0].closed == 1
    assert opened[1].steps == [*range(1, 11), 10]  # the last evaluation is a line of its own
    seen = opened[1].seen
    assert record is not None
    assert (seen["tokens"], seen["flops"], seen["val_loss"]) == (record.tokens, record.flops, record.loss)
    assert seen["params"] == record.params["compute"]
    assert {"train_loss", "lr", "grad_norm", "seconds"} < set(seen)


@pytest.mark.parametrize("where", ["open", "show", "close"])
def test_a_tracker_that_fails_never_ends_a_run(
    make_run: Callable[..., Path], monkeypatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    class Broken(Listed):
        def show(self, step: int, values: Any) -> None:
            if where == "show":
                raise OSError("no room")

        def close(self) -> None:
            if where == "close":
                raise RuntimeError("no room")

    def begin(folder: Path, config: object) -> Broken:
        if where == "open":
            raise ValueError("no room")
        return Broken()

    monkeypatch.setitem(TRACKERS, "tensorboard", begin)
    with caplog.at_level(logging.WARNING):
        record = train(make_run(steps=3, log_every=1, trackers=("tensorboard",)))
    assert record is not None and record.status == "complete"
    assert [line.message.partition(" goes on ")[2] for line in caplog.records] == [
        "without the tracker tensorboard, which failed: no room"
    ]


def test_what_is_not_installed_is_said_before_training(token_folder: Path, monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    command = ["train", "--data", str(token_folder), "--steps", "2", "--out", str(tmp_path / "runs"), "--trackers"]
    assert main([*command, "tensorboard", "wandb"]) == 2
    assert "trackers=tensorboard needs tensorboard; install it with `pip install 'isoflop[" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_study_file_names_trackers() -> None:
    tables = {"design": {"budgets": [1e9]}, "train": {"trackers": ["wandb"]}}
    assert study_from_tables(tables, where="here").train.trackers == ("wandb",)


def outside(folder: Path) -> None:
    """Train in a process of its own, where warnings of other packages are no errors."""
    assert subprocess.run([sys.executable, "-m", "isoflop", "train", str(folder), "--json"]).returncode == 0


def test_tensorboard_is_read_back(make_run: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    folder = make_run(steps=6, log_every=1, eval_every=20, trackers=("tensorboard",))
    stopped_after(folder, 5)
    record = train(folder)
    assert record is not None
    (events,) = folder.glob("events.*")
    elsewhere = tmp_path / "boards" / folder.name
    elsewhere.mkdir(parents=True)
    shutil.copy(events, elsewhere)
    back = read(tmp_path / "boards")
    assert back.runs[0].id == folder.name
    same(back.runs[0], record)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(elsewhere))
    board.Reload()
    assert [event.step for event in board.Scalars("train_loss")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
def test_wandb_is_read_back(make_run: Callable[..., Path], tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    folder = make_run(steps=6, log_every=1, eval_every=20, trackers=("wandb",))
    stopped_after(folder, 5)
    outside(folder)
    (offline,) = folder.glob("wandb/offline-run-*")
    shutil.copytree(offline, tmp_path / "mine" / "wandb" / offline.name)
    back = read(tmp_path / "mine")
    assert back.runs[0].id == folder.name
    same(back.runs[0], Record.read(folder / "record.json"))


def same(back: Record, record: Record) -> None:
    assert (back.params["given"], back.tokens, back.flops, back.loss) == pytest.approx(
        (record.params["compute"], record.tokens, record.flops, record.loss), rel=1e-6
    )
