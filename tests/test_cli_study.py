"""python -m pytest tests/test_cli_study.py"""

import json
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.app import main
from isoflop.config import DataConfig, OptimConfig, TrainConfig
from isoflop.flops import compute
from isoflop.lm.lease import hold
from isoflop.presets import preset
from isoflop.record import Record
from isoflop.study import drive
from isoflop.study.failures import failures, note
from isoflop.study.launch import EXECUTORS
from isoflop.study.launch.event import Event
from isoflop.study.launch.slurm import SlurmOptions
from isoflop.study.study import Study


@pytest.fixture
def folder(token_folder: Path, tmp_path: Path) -> Path:
    """A grid of four runs, none trained."""
    study = Study(
        design="grid",
        widths=(8, 16),
        lengths=(1600, 3200),
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        train=TrainConfig(batch_size=1),
    )
    drive.settle(study, tmp_path)
    for run in drive.plan(study, tmp_path):
        drive.write_run(run.config, run.folder.parent)
    return tmp_path


def statuses(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    assert main(["study", "status", str(folder), "--json"]) == 0
    return {run["id"]: run["status"] for run in json.loads(capsys.readouterr().out)["runs"]}


def test_runs_are_called_off_and_taken_back(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, *_ = statuses(folder, capsys)
    assert main(["study", "cancel", str(folder), first]) == 0
    for _ in range(2):
        note(folder / "runs" / second, "no luck")
    said = statuses(folder, capsys)
    assert said[first] == "cancelled" and said[second] == "failed"
    assert list(said.values()).count("pending") == 2
    assert main(["study", "status", str(folder)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "0 of 4 runs complete, 1 failed, 1 cancelled, 2 pending" in out
    assert f"{first} cancelled: called off by hand" in out and f"{second} failed: failed twice" in out
    assert main(["study", "retry", str(folder)]) == 0
    assert "2 runs may be tried again" in capsys.readouterr().out
    assert set(statuses(folder, capsys).values()) == {"pending"}


def complete(folder: Path, **changes: Any) -> None:
    """Let the runs of a study be done."""
    for run in drive.plan(drive.open_study(folder), folder):
        values: dict[str, Any] = {"params": {"compute": 1.0}, "tokens": 1.0, "flops": run.flops, "loss": 2.0}
        Record(id=run.config.id, **{**values, **changes}).write(run.folder / "record.json")


def test_nothing_to_call_off_or_to_retry_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = statuses(folder, capsys)
    assert main(["study", "retry", str(folder)]) == 0
    assert "nothing to retry: 4 runs not done, none of them failed or called off" in capsys.readouterr().out
    assert main(["study", "cancel", str(folder / "runs")]) == 0
    assert "nothing to call off: no run has begun" in capsys.readouterr().out
    complete(folder)
    for verb, said in (("cancel", "call off"), ("retry", "retry")):
        assert main(["study", verb, str(folder)]) == 0
        assert capsys.readouterr().out == f"{folder}: nothing to {said}: all 4 runs are complete\n"
    assert main(["study", "cancel", str(folder), first]) == 0
    assert "nothing to call off: the run is complete" in capsys.readouterr().out
    complete(folder, status="diverged", loss=None)
    assert main(["study", "cancel", str(folder)]) == 0
    assert "all 4 runs are done, 4 of them diverged" in capsys.readouterr().out


def test_a_step_that_fails_is_in_the_object_with_what_was_done(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    complete(folder)
    flags = ["--ladder", "--target-flops", "1e8", "--target-d-model", "16", "--json"]
    with pytest.raises(SystemExit) as leave:
        main(["study", "run", str(folder), *flags])
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert leave.value.code == told["failed"]["code"] == 2
    assert len(told["runs"]) == 4 and told["failed"]["step"] == f"fit {folder}" and told["failed"]["answer"] is None
    assert told["failed"]["error"] and f"isoflop: {told['failed']['error']}" in said.err


def test_a_run_at_work_is_said_to_be(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, *_ = statuses(folder, capsys)
    with hold(folder / "runs" / first):
        assert statuses(folder, capsys)[first] == "running"
    assert statuses(folder, capsys)[first] == "pending"


def test_a_run_that_is_not_there_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "cancel", str(folder), "d1"]) == 2
    assert "has no run d1" in capsys.readouterr().err


def test_a_ladder_needs_a_target(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "run", str(folder), "--ladder"]) == 2
    assert "the study has no target" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--partition", "x"], "--partition is an option of the executor slurm; add --executor slurm, or leave it out"),
        (["--executor", "slurm", "--gpus-per-run", "0.5"], "--gpus-per-run is an option of the executor ray"),
        (
            ["--executor", "slurm", "--partion", "x"],
            "meant '--partition'; this executor takes --workers, --max",
        ),
        (["--executor", "ray", "--adress", "x"], "--patience, --address, --cpus-per-run, --gpus-per-run"),
        (["--worker", "2"], "perhaps you meant '--workers'; `isoflop study run --help` lists them"),
    ],
)
def test_options_of_executors(folder: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "run", str(folder), *flags]) == 2
    assert said in capsys.readouterr().err


def test_options_reach_their_executor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def execute(folders, *, workers, patience, on_event, options) -> None:
        asked[workers] = options
        for run in folders:
            on_event(Event(kind="failed", run=run, reason="no luck"))

    monkeypatch.setitem(EXECUTORS, "slurm", execute)
    flags = ["--executor", "slurm", "--partition", "gpu", "--time", "2:00:00", "--max-parallel", "3"]
    with pytest.raises(SystemExit) as leave:
        main(["study", "run", str(folder), *flags])
    assert leave.value.code == 1
    assert asked == {3: SlurmOptions(partition="gpu", time="2:00:00")}
    assert set(failures(folder / "runs" / drive.plan(drive.open_study(folder), folder)[0].config.id)) == {"no luck"}


def test_whoever_is_interrupted_may_say_what_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(folders, *, workers, patience, on_event, options) -> None:
        raise KeyboardInterrupt("Slurm goes on with 4 runs")

    monkeypatch.setitem(EXECUTORS, "slurm", execute)
    assert main(["study", "run", str(folder), "--executor", "slurm"]) == 130
    assert "isoflop: Slurm goes on with 4 runs" in capsys.readouterr().err


def test_a_flag_that_changes_the_folders_study_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(EXECUTORS, "local", lambda folders, **rest: None)
    flags = ["--target-flops", "1e8", "--target-d-model", "16", "--num-layers", "3"]
    told = "target_flops=100000000.0 (before None), target_d_model=16 (before None), num_layers=3 (before 2)"
    for said in (f"study.json says from now on {told}\n", ""):
        main(["study", "run", str(folder), *flags, "--json"])
        assert said in (err := capsys.readouterr().err) and ("says from now on" in err) is bool(said)


def test_a_study_of_trunks_says_what_separate_runs_would_cost(
    token_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(
        design="trunk",
        widths=(8,),
        lengths=(4800, 11200, 16000),
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        optim=OptimConfig(schedule="wsd", warmup_steps=10, warmup_fraction=0.0, decay_fraction=0.2),
        train=TrainConfig(batch_size=1),
        target_flops=1e9,
        target_d_model=16,
    )
    drive.settle(study, tmp_path)
    for targets in (False, True):  # the target is no run of the design, and changes nothing
        for run in drive.plan(study, tmp_path, targets=targets):
            whole = 1e9 if targets else (run.config.train.tokens or 0) * compute(run.config.model)
            Record(
                id=run.config.id,
                params={"compute": 1.0},
                tokens=whole / compute(run.config.model),
                flops=whole,
                loss=2.0,
                measured={"seconds": 1.0, "spent_flops": whole if targets else run.flops},
            ).write(run.folder / "record.json")
        assert main(["study", "status", str(tmp_path)]) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "FLOPs spent, 0.60 of what separate runs would cost" in said
        assert ("the target complete" in said) is targets


def test_a_study_that_cannot_be_trained_is_not_written(
    token_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", str(token_folder), "--budgets", "1e3", "--sizes", "4", "--out", str(tmp_path / "none")]
    assert main(["study", "run", *flags]) == 2
    assert capsys.readouterr().err.startswith("isoflop: ")
    assert not (tmp_path / "none").exists()
