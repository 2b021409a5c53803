"""python -m pytest tests/test_cli_train.py"""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from isoflop.cli import train as cli
from isoflop.cli.app import main
from isoflop.config import read_run

TINY = ["--preset", "small", "--d_model", "8", "--context-length", "16", "--batch_size", "2", "--val_tokens", "256"]


@pytest.fixture
def trained(token_folder: Path, tmp_path: Path, capsys) -> Path:
    args = ["train", "--data", str(token_folder), *TINY, "--steps", "4", "--out", str(tmp_path / "runs"), "--json"]
    assert main(args) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["status"] == "complete"
    return tmp_path / "runs" / record["id"]


def test_flags_reach_the_run_and_the_same_command_finds_it(trained: Path, token_folder: Path, capsys) -> None:
    config = read_run(trained)
    assert (config.model.d_model, config.model.num_layers, config.train.batch_size) == (8, 2, 2)
    assert config.model.vocab_size == 256
    before = (trained / "log.jsonl").read_bytes()
    assert main(["train", str(trained), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == trained.name
    assert (trained / "log.jsonl").read_bytes() == before


def test_a_raw_file_of_the_course_trains_as_it_is(tmp_path: Path, capsys) -> None:
    np.random.default_rng(0).integers(0, 50, 20_000).astype("<i4").tofile(tmp_path / "data.bin")
    args = ["train", "--data", str(tmp_path / "data.bin"), *TINY, "--steps", "3", "--out", str(tmp_path), "--json"]
    assert main([*args, "--vocab-size", "50"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["measured"]["bits_per_byte"] is None
    assert record["measured"]["train_tokens"] == 19_800
    assert main([*args, "--vocab-size", "40"]) == 2
    assert "is not below vocab_size=40" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--steps", "3", "--batch_size", "9999999"], "batch_size=9999999 is more than the"),
        (["--steps", "3", "--tokens", "5k"], "exactly one of epochs, tokens, flops, steps"),
        (["--steps", "3", "--context_length", "99999999"], "less than one context of 99999999"),
        (["--steps", "3", "--core", "4096"], "core=4096 is no CPU core of this machine"),
        (["--steps", "3", "--threads", "0"], "threads=0 must be at least 1"),
    ],
)
def test_runs_that_cannot_be_are_refused(
    args: list[str], said: str, token_folder: Path, tmp_path: Path, capsys
) -> None:
    assert main(["train", "--data", str(token_folder), *TINY, "--out", str(tmp_path / "runs"), *args]) == 2
    assert said in capsys.readouterr().err


def test_a_stopped_run_says_how_to_go_on(token_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    from contextlib import nullcontext

    monkeypatch.setattr(cli, "stop_on_signal", lambda: nullcontext(lambda: True))
    with pytest.raises(SystemExit) as leave:
        main(["train", "--data", str(token_folder), *TINY, "--steps", "4", "--out", str(tmp_path)])
    assert leave.value.code == 130
    assert "goes on" in capsys.readouterr().err


@pytest.mark.parametrize("number", cli.STOPS)
def test_a_signal_is_a_question_and_then_as_before(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with cli.stop_on_signal() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), number)
        assert should_stop()
    assert signal.getsignal(number) == before


def test_lack_of_memory_is_told_with_the_peak() -> None:
    with pytest.raises(RuntimeError) as torch_says:
        torch.empty(2**60, dtype=torch.int8)
    for error in (torch_says.value, MemoryError("no more"), torch.OutOfMemoryError("CUDA out of memory")):
        assert re.match(r"out of memory at a peak of \d+\.\d\d GB: ", cli._failure(error)), error
    assert cli._failure(ValueError("two\n lines")) == "ValueError: two lines"
