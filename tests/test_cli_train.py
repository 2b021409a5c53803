"""python -m pytest tests/test_cli_train.py"""

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from isoflop.cli import dry_run, worker
from isoflop.cli import train as cli
from isoflop.cli.app import main
from isoflop.config import read_run
from isoflop.data.tokens import open_tokens
from isoflop.lm.train import train as train_run

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
    said = capsys.readouterr()
    assert json.loads(said.out)["id"] == trained.name
    assert said.err == f"isoflop: {trained} had finished before; nothing was trained\n"
    assert (trained / "log.jsonl").read_bytes() == before
    assert main(["train", str(trained)]) == 0
    assert "(compute count) · D 128 tokens" in capsys.readouterr().out


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
        (
            ["--steps", "3", "--tokens", "5k"],
            "exactly one of epochs, tokens, flops, steps; tokens=5000 and steps=3 were given",
        ),
        (["--steps", "3", "--context_length", "99999999"], "less than one context of 99999999"),
        (["--steps", "3", "--core", "4096"], "core=4096 is no CPU core of this machine"),
        (["--steps", "3", "--threads", "0"], "threads=0 must be at least 1"),
        (["--steps", "3", "--core", "-1"], "core=-1 is no CPU core of this machine"),
        (["--flops", "inf"], "flops=inf must be positive and finite"),
        (["--steps", "0"], "steps=0 must be positive"),
        (["--steps", "3", "--lr", "nan"], "lr=nan must be positive and finite"),
        (["--steps", "3", "--weight-decay", "nan"], "must not be negative or infinite"),
        (["--steps", "3", "--decay-to", "5k"], "a branch needs both --from DIR@STEP and --decay-to TOKENS"),
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


@pytest.mark.parametrize("number", worker.STOPS)
def test_a_signal_is_a_question_and_then_as_before(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with worker.stop_on_signal() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), number)
        assert should_stop()
    assert signal.getsignal(number) == before


def test_lack_of_memory_is_told_with_the_peak() -> None:
    with pytest.raises(RuntimeError) as torch_says:
        torch.empty(2**60, dtype=torch.int8)
    for error in (torch_says.value, MemoryError("no more"), torch.OutOfMemoryError("CUDA out of memory")):
        assert re.match(r"out of memory at a peak of \d+\.\d\d GB: ", worker.failure(error)), error
    assert worker.failure(ValueError("two\n lines")) == "ValueError: two lines"


@pytest.fixture
def trunk(token_folder: Path, tmp_path: Path) -> Path:
    schedule = ["--schedule", "constant", "--warmup-steps", "2", "--keep-steps", "4"]
    args = ["train", "--data", str(token_folder), *TINY, *schedule, "--steps", "8", "--out", str(tmp_path / "runs")]
    assert main([*args, "--json"]) == 0
    return next((tmp_path / "runs").iterdir())


def test_a_branch_leaves_a_run_and_goes_on_as_any_other(trunk: Path, capsys) -> None:
    args = ["--decay-to", "384", "--out", str(trunk.parent.parent / "branches"), "--json"]
    capsys.readouterr()
    assert main(["train", "--from", f"{trunk}@4", *args]) == 0
    said = capsys.readouterr()
    record = json.loads(said.out)
    assert (record["group"], record["tokens"], record["measured"]["spent_tokens"]) == (trunk.name, 384, 256)
    assert f"branches off {trunk.name} at step 4 of 12" in said.err
    assert main(["train", str(trunk.parent.parent / "branches" / record["id"]), "--json"]) == 0
    assert main(["train", "--from", str(trunk), *args]) == 0  # the newest checkpoint: step 8
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["measured"]["spent_tokens"] == 128


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--from", "{trunk}@5"], "has no checkpoint of step 5; it has those of steps 4"),
        (["--from", "{trunk}@4", "--lr", "1"], "a branch keeps the recipe of its trunk"),
        (["{trunk}", "--from", "{trunk}@4"], "starts a run of its own; leave"),
        (["--from", "nowhere@4"], "nowhere holds no run"),
    ],
)
def test_a_branch_that_cannot_be_is_refused(args: list[str], said: str, trunk: Path, capsys) -> None:
    assert main(["train", *(arg.format(trunk=trunk) for arg in args), "--decay-to", "384"]) == 2
    assert said in capsys.readouterr().err


def test_a_dry_run_tells_what_a_run_is_and_writes_nothing(
    token_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(dry_run, "TRIAL_SECONDS", 0.05)
    out = ["--out", str(tmp_path / "runs"), "--dry-run"]
    args = ["train", "--data", str(token_folder), *TINY, "--steps", "400", *out]
    assert main(args) == 0
    said = capsys.readouterr().out
    assert "parameters (body 1,536, embedding 2,048)" in said and "nothing was written; without --dry-run" in said
    assert "of training at" in said and "tokens a second, the rest evaluation and checkpoints" in said
    assert main([*args, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["steps"], told["tokens"], told["params"]["total"]) == (400, 400 * 2 * 16, 3584)
    assert 0 < told["training_seconds"] < told["seconds"] and told["memory_bytes"] > 1e7
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(dry_run, "HELD", 10**12)
    assert main(args) == 0
    assert "GB are free: not tried" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "less memory: --grad-accum 2 or --recompute\n"),
        (["--recompute"], "less memory: --grad-accum 2\n"),
        (["--grad-accum", "2"], "less memory: --recompute\n"),
        (["--grad-accum", "2", "--recompute"], None),
    ],
)
def test_a_dry_run_of_a_large_run_names_the_flags_left_that_save_memory(
    args: list[str], said: str | None, token_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(dry_run, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(dry_run, "AMPLE", 0)
    out = ["--out", str(tmp_path), "--dry-run"]
    assert main(["train", "--data", str(token_folder), *TINY, "--steps", "4", *args, *out]) == 0
    printed = capsys.readouterr().out
    assert said in printed if said else "less memory" not in printed


def test_a_run_says_where_it_goes_on(make_run, capsys) -> None:
    folder, asked = make_run(steps=6), iter(range(100))
    assert train_run(folder, should_stop=lambda: next(asked) == 3) is None
    assert main(["train", str(folder), "--json"]) == 0
    assert f"{folder} goes on at step 3 of 6" in capsys.readouterr().err


def test_a_run_whose_loss_runs_away_fails_the_command(make_run, capsys) -> None:
    folder = make_run(steps=200, optim={"lr": 1e4, "lr_width": None, "warmup_steps": 20, "grad_clip": None})
    with pytest.raises(SystemExit) as left:
        main(["train", str(folder), "--json"])
    told = capsys.readouterr()
    assert left.value.code == 1 and json.loads(told.out)["status"] == "diverged"
    assert "a lower --lr" in told.err


def test_a_dry_run_counts_no_more_validation_tokens_than_there_are(
    token_folder: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(dry_run, "TRIAL_SECONDS", 0.0)
    counted: list[int] = []
    real = dry_run._seconds
    monkeypatch.setattr(dry_run, "_seconds", lambda *given: (counted.append(given[-1]), real(*given))[1])
    for asked in ("256", "1T"):
        args = ["train", "--data", str(token_folder), *TINY, "--steps", "4", "--val-tokens", asked, "--dry-run"]
        assert main(args) == 0
    capsys.readouterr()
    assert counted == [256, len(open_tokens(token_folder).val)]


def test_where_the_trackers_files_are_is_said(trained: Path, capsys) -> None:
    value = json.loads((trained / "config.json").read_text())
    value["train"]["trackers"] = ["tensorboard", "wandb"]
    (trained / "config.json").write_text(json.dumps(value))
    assert main(["train", str(trained)]) == 0
    out = capsys.readouterr().out
    assert f"`tensorboard --logdir {trained}` shows them" in out and f"W&B: its files lie in {trained}/wandb" in out
