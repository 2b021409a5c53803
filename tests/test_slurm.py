"""The Slurm executor: python -m pytest tests/test_slurm.py; make slurm runs the rest on a real Slurm of one node"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.config import DataConfig, TrainConfig, read_run, spread_run
from isoflop.lm.journal import read_journal, trained_twice
from isoflop.presets import preset
from isoflop.record import Record
from isoflop.study import drive
from isoflop.study.launch import slurm, squeue
from isoflop.study.launch.event import Event, cancel
from isoflop.study.launch.slurm import SlurmOptions, script
from isoflop.study.study import Study
from tests.test_launch import NEEDS

GOLDEN = Path(__file__).parent / "golden" / "array.sh"
OPTIONS = SlurmOptions(partition="gpu", account="lab", time="2:00:00", gres="gpu:1", cpus_per_task=4, mem="8G")


def test_the_batch_script_is_the_golden_file() -> None:
    text = script(Path("/data/a study/slurm/study-1"), 12, 3, OPTIONS, python="/opt/py thon/bin/python")
    assert text == GOLDEN.read_text()
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    commands = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert commands[:3] == ["why=", "trap 'why=limit' USR1", "trap 'why=term' TERM"]


def test_a_run_of_two_devices_gets_a_core_for_each(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, asked = make_run(steps=4), []
    spread_run(folder, replace(read_run(folder).train, devices=2))
    monkeypatch.setattr(slurm, "_submit", lambda book, folders, workers, options: asked.append(options) or [])
    for options in (SlurmOptions(), OPTIONS):
        slurm.run([folder], workers=None, patience=9.0, on_event=print, options=options)
    assert [options.cpus_per_task for options in asked] == [2, 4]


@pytest.mark.parametrize("options", [{"partition": "a b"}, {"account": "x\n#SBATCH --nodes=9"}, {"gres": "gpu:$(id)"}])
def test_an_option_that_breaks_the_script_is_refused(options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is nothing that sbatch takes; write it as after `sbatch --"):
        SlurmOptions(**options)
    with pytest.raises(ValueError, match="cpus_per_task=0 must be at least 1"):
        SlurmOptions(cpus_per_task=0)


def test_states_mean_something() -> None:
    assert [squeue.stage(state) for state in ("PENDING", "COMPLETING", "TIMEOUT", "UNKNOWN")] == [
        "waiting",
        "running",
        "ended",
        "ended",
    ]


def test_states_come_from_the_accounting_or_from_the_completions(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    completions = tmp_path / "jobs.txt"
    completions.write_text(
        "JobId=9 Name=x JobState=TIMEOUT Partition=main ArrayJobId=7 ArrayTaskId=0 ExitCode=0:0\n"
        "JobId=8 Name=x JobState=FAILED Partition=main ArrayJobId=7 ArrayTaskId=1 ExitCode=1:0\n"
        "JobId=6 Name=y JobState=FAILED Partition=main ExitCode=1:0\n"
    )
    said = {
        "squeue": "7|0|RUNNING\n7|1|PENDING\n8|N/A|RUNNING\n",
        "sacct": None,
        "scontrol": f"JobCompLoc              = {completions}\nJobCompType             = jobcomp/filetxt\n",
    }
    monkeypatch.setattr(squeue, "call", lambda program, *rest: said[program])
    assert squeue.queued(["x"]) == {(7, 0): "RUNNING", (7, 1): "PENDING"}
    assert squeue.ended([(7, 0), (7, 1), (7, 2)]) == {(7, 0): "TIMEOUT", (7, 1): "FAILED"}
    assert squeue.peak((7, 0)) == ""
    said |= {"sacct": "7_0|CANCELLED by 0\n7_1|OUT_OF_MEMORY\n", "squeue": None, "scontrol": None}
    assert squeue.queued(["x"]) is None
    assert squeue.ended([(7, 1), (7, 0)]) == {(7, 0): "CANCELLED", (7, 1): "OUT_OF_MEMORY"}
    assert squeue.ended([]) == {}
    said["sacct"] = "\n900K\n2.5G\n100M\n"
    assert squeue.peak((7, 0)) == " at a peak of 2.5G"
    said["sacct"] = None
    completions.unlink()
    assert squeue.ended([(7, 1)]) == {}


def test_commands_that_fail_or_are_not_there_say_nothing() -> None:
    assert squeue.call("false") is None and squeue.call("no-such-command-here") is None
    assert squeue.call("echo", "a") == "a\n"


def test_a_refusal_of_sbatch_is_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "sbatch"
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match="sbatch is not installed here; run this on a login node"):
        squeue.submit(tmp_path / "x.sh")
    fake.write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: gpuu' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(ValueError, match=r"Slurm refuses the jobs: invalid partition specified: gpuu; the options are"):
        squeue.submit(tmp_path / "x.sh")
    fake.write_text("#!/bin/sh\necho '42;cluster'\n")
    assert squeue.submit(tmp_path / "x.sh") == 42


class Cluster:
    """A Slurm that trains nothing: states are set by the test, and every command is kept."""

    def __init__(self) -> None:
        self.states: dict[squeue.Task, str] = {}
        self.asked = 0
        self.submitted: list[Path] = []
        self.cancelled: list[str] = []
        self.step: Callable[[Cluster], None] = lambda cluster: None

    def submit(self, path: Path, *options: str) -> int:
        self.submitted.append(path)
        job = len(self.submitted)
        count = len(path.with_suffix(".txt").read_text().splitlines())
        self.states |= {(job, k): "PENDING" for k in range(count)}
        return job

    def queued(self, names: Sequence[str]) -> dict[squeue.Task, str] | None:
        self.asked += 1
        assert self.asked < 500
        self.step(self)
        return dict(self.states)

    def call(self, *command: str) -> str | None:
        if command[0] == "scancel":
            self.cancelled.append(command[1])
            job, index = map(int, command[1].split("_"))
            self.states[job, index] = "CANCELLED"
        return None


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    for name in ("submit", "queued", "call"):
        monkeypatch.setattr(squeue, name, getattr(made, name))
    monkeypatch.setattr(slurm, "TICK", 0.001)
    monkeypatch.setattr(slurm, "ASK", 0.0)
    return made


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    runs = [tmp_path / "my study" / "runs" / name for name in "abc"]
    for run in runs:
        run.mkdir(parents=True)
    return runs


def record(run: Path) -> None:
    Record(id=run.name, params={"compute": 1.0}, tokens=1, flops=1, loss=1.0).write(run / "record.json")


def told(events: list[Event], kind: str) -> list[str]:
    return sorted(event.run.name for event in events if event.kind == kind)


def launch(folders: list[Path], events: list[Event], *, patience: float = 60.0) -> None:
    slurm.run(folders, workers=2, patience=patience, on_event=events.append)


def test_an_array_is_followed_to_its_end(cluster: Cluster, folders: list[Path], tmp_path: Path) -> None:
    a, b, c = folders

    def step(cluster: Cluster) -> None:
        if cluster.asked == 3:
            cluster.states |= {(1, 0): "RUNNING", (1, 1): "RUNNING", (1, 2): "RUNNING"}
        if cluster.asked == 4:
            (a / "log.jsonl").write_text('{"step": 3, "train_loss": 2.5}\n{"step": 3, "val_loss": 2.0, "val_tok')
        if cluster.asked == 5:
            record(a)
            (cluster.submitted[0].parent / f"{cluster.submitted[0].stem}-1.log").write_text("x\nisoflop: no luck\n")
            cluster.states |= {(1, 0): "COMPLETED", (1, 1): "FAILED", (1, 2): "OUT_OF_MEMORY"}

    cluster.step = step
    events: list[Event] = []
    launch(folders, events)
    assert told(events, "started") == ["a", "b", "c"] and told(events, "done") == ["a"]
    assert [(e.step, e.steps, e.loss) for e in events if e.kind == "progress"] == [(3, 3, 2.5)]
    reasons = {event.run: event.reason for event in events if event.kind == "failed"}
    assert reasons == {b: "no luck", c: "out of memory: Slurm ended it; give more --mem"}
    (path,) = cluster.submitted
    assert path.with_suffix(".txt").read_text().splitlines() == [str(run) for run in folders]
    assert "--array=0-2%2\n" in path.read_text() and path.name.startswith("my-study-")
    assert json.loads(path.with_suffix(".json").read_text()) == {"job": 1}


def test_a_second_command_finds_what_is_queued(cluster: Cluster, folders: list[Path]) -> None:
    def die(cluster: Cluster) -> None:
        raise KeyboardInterrupt

    events: list[Event] = []
    cluster.step = die
    with pytest.raises(KeyboardInterrupt, match=r"Slurm goes on with 3 runs \(job 1\)"):
        launch(folders, events)
    # one failed meanwhile, the job's number was never noted, and a run is new
    (listing,) = (folders[0].parents[1] / "slurm").glob("*.json")
    listing.unlink()
    cluster.states[1, 1] = "TIMEOUT"
    new = folders[0].with_name("d")
    new.mkdir()

    def finish(cluster: Cluster) -> None:
        if len(cluster.submitted) == 2:
            for run in (folders[0], folders[2], new):
                record(run)
            cluster.states |= {(1, 0): "COMPLETED", (1, 2): "COMPLETED", (2, 0): "COMPLETED"}

    cluster.step = finish
    launch([*folders, new], events)
    assert len(cluster.submitted) == 2
    assert cluster.submitted[1].with_suffix(".txt").read_text() == f"{new}\n"
    assert told(events, "done") == ["a", "c", "d"] and told(events, "failed") == ["b"]

    # its end was told: it is queued anew, and the old one not told again
    def last(cluster: Cluster) -> None:
        record(folders[1])
        cluster.states[3, 0] = "COMPLETED"

    cluster.step = last
    launch([folders[1]], events)
    assert len(cluster.submitted) == 3 and told(events, "done") == ["a", "b", "c", "d"]


def test_cancelled_and_hanging_tasks_are_ended(cluster: Cluster, folders: list[Path]) -> None:
    a, b, c = folders
    cancel(c, "never wanted")

    def step(cluster: Cluster) -> None:
        if cluster.asked == 2:
            cluster.states[1, 0] = "RUNNING"
            cancel(b, "no longer wanted")

    cluster.step = step
    events: list[Event] = []
    launch(folders, events, patience=0.05)
    assert cluster.submitted[0].with_suffix(".txt").read_text() == f"{a}\n{b}\n"
    assert sorted(cluster.cancelled) == ["1_0", "1_1"]
    ends = {event.run: (event.kind, event.reason) for event in events if event.kind != "started"}
    assert ends == {
        a: ("failed", "no progress for 0.05 seconds"),
        b: ("cancelled", "no longer wanted"),
        c: ("cancelled", "never wanted"),
    }


def test_a_queue_that_does_not_answer_changes_nothing(
    cluster: Cluster, folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([None, None])
    monkeypatch.setattr(squeue, "queued", lambda names: next(answers, {}))
    monkeypatch.setattr(squeue, "ended", lambda tasks: {})
    events: list[Event] = []
    launch(folders[:1], events)
    assert [event.kind for event in events] == ["started", "failed"]
    assert "Slurm says UNKNOWN of task 1_0" in events[-1].reason


def test_a_record_may_be_seen_late(cluster: Cluster, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def step(cluster: Cluster) -> None:
        cluster.states[1, 0] = "COMPLETED"
        if cluster.asked == 5:
            record(folders[0])

    cluster.step = step
    events: list[Event] = []
    launch(folders[:1], events)
    assert told(events, "done") == ["a"] and cluster.asked >= 5
    monkeypatch.setattr(slurm, "LAG", 0.0)
    cluster.step = lambda cluster: cluster.states.update({(2, 0): "COMPLETED"})
    launch(folders[1:2], events)
    assert told(events, "failed") == ["b"]


def test_there_is_at_least_one_worker(folders: list[Path]) -> None:
    with pytest.raises(ValueError, match="workers=0 must be at least 1; leave it out for as many as Slurm likes"):
        slurm.run(folders, workers=0, patience=1.0, on_event=lambda event: None)


COMMAND = [sys.executable, "-m", "isoflop", "study", "run"]


def long_study(token_folder: Path, folder: Path, *, tokens: int) -> Path:
    study = Study(
        design="grid",
        widths=(8,),
        lengths=(tokens,),
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        train=TrainConfig(batch_size=1, log_every=10, checkpoint_every=10**6),
    )
    drive.settle(study, folder)
    (planned,) = drive.plan(study, folder)
    return planned.folder


def controller(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [*COMMAND, str(folder), "--executor", "slurm", "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def until(condition: Callable[[], bool], *, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def trains(run: Path) -> bool:
    log = run / "log.jsonl"
    return log.exists() and log.stat().st_size > 0


@pytest.mark.slow
@NEEDS["slurm"]
def test_the_controller_may_die_and_come_back(token_folder: Path, tmp_path: Path) -> None:
    run = long_study(token_folder, tmp_path, tokens=100_000)
    first = controller(tmp_path, "--partition", "main", "--max-parallel", "1")
    until(lambda: trains(run))
    first.kill()
    first.wait()
    assert controller(tmp_path).wait(timeout=120) == 0
    assert Record.read(run / "record.json").status == "complete"
    assert len(list((tmp_path / "slurm").glob("*.json"))) == 1
    assert len({line["owner"] for line in read_journal(run)}) == 1 and trained_twice(run) is None


@pytest.mark.slow
@NEEDS["slurm"]
@pytest.mark.parametrize("how", ["warned", "preempted"])
def test_a_stopped_task_saves_and_queues_again(how: str, token_folder: Path, tmp_path: Path) -> None:
    run = long_study(token_folder, tmp_path, tokens=200_000)
    process = controller(tmp_path, "--time", "10")
    until(lambda: trains(run))
    (note,) = (tmp_path / "slurm").glob("*.json")
    task = f"{json.loads(note.read_text())['job']}_0"
    if how == "warned":  # as Slurm does before the time limit, which it counts in minutes
        subprocess.run(["scancel", "--batch", "--signal=USR1", task], check=True)
    else:
        urgent = ["--partition=urgent", "--ntasks=2", "--output=/dev/null", "--wrap=sleep 1"]
        subprocess.run(["sbatch", *urgent], check=True, stdout=subprocess.DEVNULL)
    until(lambda: any(line.get("saved") for line in read_journal(run)))
    until(lambda: "PENDING" in (squeue.queued([note.stem]) or {}).values() or (run / "record.json").exists())
    subprocess.run(["scontrol", "update", f"JobId={task}", "StartTime=now"])  # a requeued job waits two minutes
    assert process.wait(timeout=240) == 0
    owners = list(dict.fromkeys(line["owner"] for line in read_journal(run)))
    assert len(owners) == 2 and trained_twice(run) is None
    assert Record.read(run / "record.json").measured["bit_exact"]


@pytest.mark.slow
@NEEDS["slurm"]
def test_a_task_that_is_called_off_without_controller_saves(token_folder: Path, tmp_path: Path) -> None:
    run = long_study(token_folder, tmp_path, tokens=10_000_000)
    process = controller(tmp_path)
    until(lambda: trains(run))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    assert trains(run) and read_run(run).train.tokens == 10_000_000
    subprocess.run([sys.executable, "-m", "isoflop", "study", "cancel", str(tmp_path)], check=True)
    until(lambda: any(line.get("saved") for line in read_journal(run)))
    (note,) = (tmp_path / "slurm").glob("*.json")
    until(lambda: not any(squeue.stage(s) != "ended" for s in (squeue.queued([note.stem]) or {}).values()))
    assert controller(tmp_path).wait(timeout=60) == 1
    assert os.listdir(run / "checkpoints")
