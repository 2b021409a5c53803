"""The Ray executor: python -m pytest tests/test_ray.py; make ray runs the rest on a real local Ray"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from isoflop.config import DataConfig, TrainConfig, read_run, spread_run
from isoflop.lm.journal import read_journal, trained_twice
from isoflop.presets import preset
from isoflop.record import Record
from isoflop.study import drive
from isoflop.study.launch import ray as executor
from isoflop.study.launch.event import Event, cancel
from isoflop.study.launch.ray import RayOptions
from isoflop.study.study import Study
from tests.test_launch import NEEDS, trainers


class LostError(Exception):
    """What Ray raises of a task whose worker died too often."""


class OutOfMemoryError(LostError):
    """What Ray raises of a task that took the node's memory."""


class FakeRay:
    """A Ray that trains nothing: a task ends as `ends` says as soon as it is asked for."""

    exceptions = SimpleNamespace(RayError=LostError, OutOfMemoryError=OutOfMemoryError)

    def __init__(self, **has: float) -> None:
        self.has = {"CPU": 2.0, **has}
        self.ends: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self.most = 0
        self.cancelled: list[Any] = []
        self.open = False

    def init(self, **options: Any) -> None:
        if options["address"] == "nowhere":
            raise ConnectionError("nobody is there")
        self.open = True

    def shutdown(self) -> None:
        self.open = False

    def cluster_resources(self) -> dict[str, float]:
        return self.has

    def remote(self, function: Any) -> "FakeRay":
        return self

    def options(self, **resources: Any) -> Any:
        self.asked.append(resources)
        return SimpleNamespace(remote=lambda folder, threads, patience: folder)

    def wait(self, tasks: Sequence[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        self.most = max(self.most, len(tasks))
        if self.ends.get("interrupt") and not self.cancelled:
            raise KeyboardInterrupt
        return list(tasks[:1]), list(tasks[1:])

    def get(self, task: str) -> tuple[str, str]:
        said = self.ends.get(Path(task).name, ("done", ""))
        if isinstance(said, Exception):
            raise said
        if said[0] == "done":
            Record(id="x", params={"compute": 1.0}, tokens=1, flops=1, loss=1.0).write(Path(task) / "record.json")
        return said

    def cancel(self, task: str) -> None:
        self.cancelled.append(task)


@pytest.fixture
def folders(make_run, tmp_path: Path) -> list[Path]:
    return [make_run(out="runs", steps=4, seed=seed) for seed in range(3)]


def launch(fake: FakeRay, monkeypatch: pytest.MonkeyPatch, folders: list[Path], **options: Any) -> list[Event]:
    monkeypatch.setitem(sys.modules, "ray", fake)
    events: list[Event] = []
    workers = options.pop("workers", None)
    executor.run(folders, workers=workers, patience=9.0, on_event=events.append, options=RayOptions(**options))
    assert not fake.open
    return events


def test_a_run_of_two_devices_asks_for_two(monkeypatch: pytest.MonkeyPatch, folders: list[Path]) -> None:
    for folder in folders:
        spread_run(folder, replace(read_run(folder).train, devices=2))
    fake = FakeRay(GPU=2.0)
    launch(fake, monkeypatch, folders)
    assert fake.asked == [{"num_cpus": 2.0, "num_gpus": 2.0, "max_retries": 3}]
    with pytest.raises(ValueError, match="gpus_per_run=1, but a run has devices=2, one GPU each; leave it out"):
        launch(fake, monkeypatch, [folders[0]], gpus_per_run=1.0)


def test_each_run_is_a_task_and_ends_as_its_folder_says(monkeypatch: pytest.MonkeyPatch, folders: list[Path]) -> None:
    a, b, c = folders
    fake = FakeRay()
    fake.ends = {b.name: ("failed", "no luck"), c.name: LostError("its node died\nmore")}
    events = launch(fake, monkeypatch, folders, workers=2)
    assert [event.run for event in events if event.kind == "started"] == folders
    ends = {event.run: (event.kind, event.reason) for event in events if event.kind != "started"}
    assert ends == {a: ("done", ""), b: ("failed", "no luck"), c: ("failed", "LostError: its node died")}
    assert fake.most == 2 and fake.asked == [{"num_cpus": 1.0, "num_gpus": 0.0, "max_retries": 3}]


def test_ends_that_only_ray_knows(monkeypatch: pytest.MonkeyPatch, folders: list[Path]) -> None:
    a, b, c = folders
    cancel(a, "never wanted")
    fake = FakeRay()
    fake.ends = {b.name: OutOfMemoryError("node at 96 %"), c.name: LostError("")}
    events = launch(fake, monkeypatch, folders)
    ends = {event.run: (event.kind, event.reason) for event in events if event.kind != "started"}
    assert ends == {
        a: ("cancelled", "never wanted"),
        b: ("failed", "out of memory: node at 96 %"),
        c: ("failed", "LostError: Ray gives no reason"),
    }


@pytest.mark.parametrize(("given", "gpus"), [(None, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_a_run_gets_a_gpu_or_a_part_of_one(
    monkeypatch: pytest.MonkeyPatch, folders: list[Path], given: float | None, gpus: float
) -> None:
    fake = FakeRay(GPU=2.0)
    launch(fake, monkeypatch, folders, gpus_per_run=given, cpus_per_run=2)
    assert fake.asked[0]["num_gpus"] == gpus and fake.asked[0]["num_cpus"] == 2.0


def test_what_no_cluster_grants_is_refused(monkeypatch: pytest.MonkeyPatch, folders: list[Path]) -> None:
    with pytest.raises(ValueError, match="a run asks for 1 GPU of a cluster that has 0; ask for less"):
        launch(FakeRay(), monkeypatch, folders, gpus_per_run=1)
    with pytest.raises(ValueError, match="no Ray answers at address=nowhere: nobody is there; start one with `ray sta"):
        launch(FakeRay(), monkeypatch, folders, address="nowhere")
    with pytest.raises(ValueError, match="workers=0 must be at least 1; leave it out for as many as the cluster has"):
        launch(FakeRay(), monkeypatch, folders, workers=0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"the executor ray needs Ray; install it with `pip install 'isoflop\[ray\]'`"):
        executor.run(folders, workers=None, patience=9.0, on_event=lambda event: None)
    with pytest.raises(ValueError, match=r"gpus_per_run=1.5 must be a part of one GPU, or whole GPUs; try 0.5 or 1"):
        RayOptions(gpus_per_run=1.5)
    with pytest.raises(ValueError, match="cpus_per_run=0 must be at least 1"):
        RayOptions(cpus_per_run=0)


def test_an_interrupted_study_asks_its_tasks_to_save(monkeypatch: pytest.MonkeyPatch, folders: list[Path]) -> None:
    fake = FakeRay()
    fake.ends = {"interrupt": True}
    with pytest.raises(KeyboardInterrupt):
        launch(fake, monkeypatch, folders)
    assert sorted(fake.cancelled) == sorted(str(folder) for folder in folders) and not fake.open


def test_a_task_is_a_worker_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def train_on(slots: Any, runs: Any, *, patience: float, on_event: Any) -> None:
        assert [slot.threads for slot in slots] == [3] and slots[0].core is None and patience == 9.0
        for kind in ("started", "progress", "failed"):
            on_event(Event(kind=kind, run=runs[0], reason="no luck" if kind == "failed" else ""))

    monkeypatch.setattr(executor, "train_on", train_on)
    assert executor._train(str(tmp_path), 3, 9.0) == ("failed", "no luck")


@pytest.mark.slow
@NEEDS["ray"]
def test_a_task_whose_ray_worker_dies_goes_on_from_its_checkpoint(token_folder: Path, tmp_path: Path) -> None:
    study = Study(
        design="grid",
        widths=(8,),
        lengths=(100_000,),
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        train=TrainConfig(batch_size=1, log_every=10, checkpoint_every=200),
    )
    drive.settle(study, tmp_path)
    (planned,) = drive.plan(study, tmp_path)
    process = subprocess.Popen(
        [sys.executable, "-m", "isoflop", "study", "run", str(tmp_path), "--executor", "ray"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    reader = threading.Thread(target=process.stderr.read, daemon=True)
    reader.start()
    end = time.monotonic() + 120
    while not any("saved" in line for line in read_journal(planned.folder)):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    (trainer,) = [one for one in trainers(planned.folder) if one.pid != os.getpid()]
    worker = psutil.Process(trainer.ppid())
    worker.send_signal(signal.SIGKILL)
    assert process.wait(timeout=240) == 0
    reader.join()
    process.stderr.close()
    assert Record.read(planned.folder / "record.json").measured["bit_exact"]
    assert len({line["owner"] for line in read_journal(planned.folder)}) == 2
    assert trained_twice(planned.folder) is None
    assert not (planned.folder / "failures.jsonl").exists()
