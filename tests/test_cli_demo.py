"""python -m pytest tests/test_cli_demo.py; with -m slow also the demo itself"""

import json
import shlex
import sys
from pathlib import Path

import pytest

from isoflop.cli import steps as module
from isoflop.cli.app import main


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    taken: list[list[str]] = []
    monkeypatch.setattr(module, "main", lambda args: taken.append(args) or 0)
    return taken


def test_every_step_is_printed_as_it_would_be_typed(steps: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0
    printed = [line.removeprefix("$ isoflop ") for line in capsys.readouterr().out.splitlines() if line[:1] == "$"]
    assert [shlex.split(line) for line in printed] == steps
    names = [step[:2] if step[0] == "study" else step[:1] for step in steps]
    assert names == [["study", "run"], ["fit"], ["lock"], ["study", "run"], ["score"], ["render"]]
    assert Path(steps[0][2]).name == "demo.toml" and Path(steps[0][2]).exists()


def test_another_seed_is_another_folder(steps: list[list[str]]) -> None:
    assert main(["demo", "--small", "--seed", "3"]) == 0
    assert steps[0][-4:] == ["--out", "demo-small-3", "--seed", "3"] and steps[1] == ["fit", "demo-small-3"]


def test_the_first_failure_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(module, "main", lambda args: taken.append(args[0]) or (2 if args[0] == "fit" else 0))
    with pytest.raises(SystemExit) as end:
        main(["demo"])
    assert end.value.code == 2 and taken == ["study", "fit"]


def test_a_failure_is_in_the_object_with_the_steps_before_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(args: list[str]) -> int:
        if args[0] == "fit":
            sys.stderr.write("isoflop: no fit, because; try this\n")
            return 2
        sys.stdout.write(json.dumps({"asked": args[0]}))
        if "--target" in args:
            sys.exit(1)
        return 0

    monkeypatch.setattr(module, "main", command)
    with pytest.raises(SystemExit) as end:
        main(["demo", "--json"])
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert end.value.code == 2 and said.err == "isoflop: no fit, because; try this\n"
    assert list(told["steps"].values()) == [{"asked": "study"}]
    assert told["failed"] == {"step": "fit demo", "code": 2, "error": "no fit, because; try this", "answer": None}
    with pytest.raises(module.Failed) as lost:
        module.step(["study", "run", "--target"], json=True)
    assert lost.value.code == 1 and lost.value.told["answer"] == {"asked": "study"}


@pytest.mark.slow
def test_the_small_demo_goes_the_whole_way_and_then_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--small"]) == 0
    folder = tmp_path / "demo-small"
    said = capfd.readouterr().out
    assert ("12 of 12 runs complete" in said and "a hit" in said) or "a miss" in said
    assert (folder / "report.html").exists() and len(list((folder / "figures").glob("*.png"))) == 6
    locked = json.loads((folder / "forecast.json").read_text())
    record = json.loads((folder / "target" / locked["run"] / "record.json").read_text())
    assert record["flops"] == pytest.approx(locked["flops"]) and record["tokens"] == pytest.approx(locked["tokens"])
    assert abs(record["loss"] / locked["loss"] - 1) < 0.05
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name in KEPT}
    assert main(["demo", "--small"]) == 0
    assert {path: path.stat().st_mtime_ns for path in written} == written


KEPT = {"record.json", "forecast.json", "train.bin", "meta.json"}
