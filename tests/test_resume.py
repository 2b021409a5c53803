"""The short form of benchmarks/resume.py: python -m pytest -m slow tests/test_resume.py"""

import random
import signal
from pathlib import Path

import pytest

from benchmarks import resume
from isoflop.lm.checkpoint import load_required, save


@pytest.mark.slow
def test_a_run_stopped_by_every_signal_and_resumed_equals_an_unbroken_one(token_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokens").symlink_to(token_folder)
    outcome = resume.measure(tmp_path, "bf16", schedules=2, steps=120, chance=random.Random(1))
    assert outcome.different == []
    assert sum(outcome.stops.values()) >= 2


def test_whatever_differs_is_named(make_run, monkeypatch) -> None:
    from isoflop.lm.train import train

    whole, other = make_run(out="whole", steps=6), make_run(out="other", steps=6)
    train(whole)
    train(other)
    assert resume.differences(whole, other) == []
    checkpoint = load_required(other)
    checkpoint.tensors["optimizer"]["0.mean"].mul_(1.001)
    save(other, checkpoint, keep_last=2)
    (other / "log.jsonl").write_text((other / "log.jsonl").read_text().replace('"train_loss": 5', '"train_loss": 6'))
    assert resume.differences(whole, other) == ["losses in the log", "optimizer: 0.mean"]
    assert signal.SIGUSR1 in resume.WAYS
