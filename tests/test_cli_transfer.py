"""python -m pytest tests/test_cli_transfer.py"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.lm.train import train
from isoflop.report import axes
from isoflop.study.launch import EXECUTORS
from isoflop.study.launch.event import Event

CHECK = (
    "--parametrization",
    "mup",
    "--widths",
    "16",
    "64",
    "--depths",
    "2",
    "--seeds",
    "1",
    "--steps",
    "3",
    "--batch_size",
    "1",
)
TINY = (
    "--widths",
    "16",
    "32",
    "--rates",
    "0.005",
    "0.02",
    "0.08",
    "--steps",
    "3",
    "--batch_size",
    "2",
    "--val-tokens",
    "16",
)


def test_a_check_prints_slopes_and_a_verdict(token_folder: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "check.png"
    code = main_code(["coordcheck", "--data", str(token_folder), *CHECK, "--out", str(out)])
    said = capsys.readouterr().out
    assert code in (0, 1) and ("FAILS" in said) == (code == 1)
    assert "standard: slope of ln mean |activation| against ln d_model (16 64)" in said and "mup, width:" in said
    assert out.read_bytes().startswith(b"\x89PNG")


def main_code(args: list[str]) -> int:
    try:
        return main(args)
    except SystemExit as leave:
        return int(leave.code or 0)


def test_a_check_that_shows_nothing_fails_and_says_so(token_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(axes, "panels", lambda draws, lang: b"drawn elsewhere")
    quiet = ["--lr", "1e-9", "--out", str(tmp_path / "check.png")]
    assert main_code(["coordcheck", "--data", str(token_folder), *CHECK, *quiet, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [one["axis"] for one in (*told["checks"], *told["verdicts"])] == ["width", "width", "width"]
    assert told["checks"][0]["parametrization"] == "standard" and len(told["checks"][0]["slopes"]) == 3


@pytest.fixture
def in_this_process(monkeypatch) -> list[Path]:
    """Train runs here instead of in workers, which take seconds to start; list them."""
    trained: list[Path] = []

    def run(folders: Sequence[Path], *, on_event: Callable[[Event], None], **_: object) -> None:
        for folder in folders:
            train(folder)
            trained.append(folder)
            on_event(Event(kind="done", run=folder))

    monkeypatch.setitem(EXECUTORS, "local", run)
    return trained


def test_a_sweep_is_trained_once_judged_and_drawn(
    token_folder: Path, tmp_path: Path, in_this_process: list[Path], capsys
) -> None:
    model = tmp_path / "model.json"
    model.write_text(json.dumps({"context_length": 8, "num_layers": 1, "num_heads": 1, "vocab_size": 9}))
    asked = [*TINY, "--model-config", str(model), "--out", str(tmp_path / "sweep")]
    sweep = ["lr-sweep", "--data", str(token_folder), *asked]
    assert main(sweep) == 0
    assert len(in_this_process) == 12 and (tmp_path / "sweep" / "lr-sweep.png").exists()
    said = capsys.readouterr().out
    assert "rate carried over" in said and "standard:" in said and "12 runs in" in said
    assert main([*sweep, "--json"]) == 0
    lines = json.loads(capsys.readouterr().out)["parametrizations"]
    assert len(in_this_process) == 12  # done is done
    assert [line["parametrization"] for line in lines] == ["standard", "mup"]
    standard, mup = (line["sizes"][0]["losses"] for line in lines)
    assert standard == mup  # the base model
    made = [json.loads((folder / "config.json").read_text())["model"] for folder in in_this_process]
    assert {(one["context_length"], one["vocab_size"]) for one in made} == {(8, 256)}


def test_runs_that_are_lost_are_told(token_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def fail(folders: Sequence[Path], *, on_event: Callable[[Event], None], **_: object) -> None:
        for folder in folders:
            on_event(Event(kind="failed", run=folder, reason="no memory"))

    monkeypatch.setitem(EXECUTORS, "local", fail)
    assert main_code(["lr-sweep", "--data", str(token_folder), *TINY, "--out", str(tmp_path / "sweep")]) == 1
    assert "failed: no memory" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["coordcheck", "lr-sweep"])
def test_tokens_have_to_be_named(verb: str, capsys) -> None:
    assert main([verb, "--steps", "3"]) == 2
    assert "no data was given; --data T names a token folder" in capsys.readouterr().err
