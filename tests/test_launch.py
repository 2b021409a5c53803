"""The contract of executors, on real processes: python -m pytest -m slow tests/test_launch.py; make slurm; make ray"""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from isoflop.config import DataConfig, TrainConfig, read_run
from isoflop.files import write_json
from isoflop.lm.journal import read_journal, trained_twice
from isoflop.presets import preset
from isoflop.record import Record
from isoflop.study import drive
from isoflop.study.failures import failures
from isoflop.study.launch import EXECUTORS, local
from isoflop.study.launch.event import Event, cancel
from isoflop.study.launch.local import Slot
from isoflop.study.study import Study

PATIENCE = 6.0
NEEDS = {
    "local": pytest.mark.skipif(False, reason="always there"),
    "slurm": pytest.mark.skipif("SLURM_CONF" not in os.environ, reason="no Slurm here; `make slurm` starts one"),
    "ray": pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="no Ray here; `make ray` installs it"),
}


def trainers(folder: Path) -> list[psutil.Process]:
    """Processes that have the log of a run open."""
    out = []
    for process in psutil.process_iter():
        try:
            if "isoflop" in process.cmdline() and any(str(folder) in file.path for file in process.open_files()):
                out.append(process)
        except psutil.Error:
            continue
    return out


def small_study(token_folder: Path) -> Study:
    return Study(
        design="grid",
        widths=(8, 12, 16, 20),
        lengths=(16_000, 24_000, 32_000),
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        train=TrainConfig(batch_size=1),
    )


def twelve(token_folder: Path, out: Path) -> list[drive.Planned]:
    return drive.plan(small_study(token_folder), out)


def spoil(planned: list[drive.Planned], token_folder: Path, tmp_path: Path) -> dict[str, Path]:
    """Let one run have lost its tokens, and one wait for ever for them; name two to be cancelled and killed."""
    for run in planned:
        drive.write_run(run.config, run.folder.parent)
    names = {"cancelled": planned[0], "killed": planned[1], "hangs": planned[4], "fails": planned[7]}
    stuck = tmp_path / "stuck"
    shutil.copytree(token_folder, stuck)
    (stuck / "meta.json").unlink()
    os.mkfifo(stuck / "meta.json")  # a reader waits for a writer that never comes
    for name, data in (("hangs", stuck), ("fails", tmp_path / "gone")):
        run = names[name]
        changed = replace(run.config, data=replace(run.config.data, data=str(data)))
        write_json(run.folder / "config.json", changed.to_dict())
    return {name: run.folder for name, run in names.items()}


@pytest.mark.slow
@pytest.mark.parametrize("executor", [pytest.param(name, marks=NEEDS[name]) for name in EXECUTORS])
def test_twelve_runs_nine_complete_three_reported(executor: str, token_folder: Path, tmp_path: Path) -> None:
    planned = twelve(token_folder, tmp_path / "study")
    who = spoil(planned, token_folder, tmp_path)
    events: list[Event] = []
    killed: list[int] = []

    def watch(event: Event) -> None:
        events.append(event)
        if event.kind == "progress" and event.run == who["cancelled"]:
            cancel(event.run, "no longer wanted")
        if event.kind == "progress" and event.run == who["killed"] and not killed:
            for process in trainers(event.run):
                if process.pid != os.getpid():
                    killed.append(process.pid)
                    process.kill()

    lost = drive.drive(planned, executor=executor, workers=2, patience=PATIENCE, on_event=watch)
    assert killed
    reasons = {event.run: (event.kind, event.reason) for event in lost}
    assert set(reasons) == {who["cancelled"], who["hangs"], who["fails"]}, reasons
    assert reasons[who["cancelled"]] == ("cancelled", "no longer wanted")
    assert reasons[who["hangs"]] == ("failed", f"no progress for {PATIENCE:g} seconds")
    assert reasons[who["fails"]][0] == "failed" and "gone does not exist" in reasons[who["fails"]][1]
    done = [run for run in planned if run.record is not None and run.record.status == "complete"]
    assert len(done) == 9 and who["killed"] in {run.folder for run in done}
    finished = [event.run for event in events if event.kind == "done"]
    assert len(finished) == len(set(finished)) == 9
    assert [trained_twice(run.folder) for run in planned] == [None] * 12
    assert len({line["owner"] for line in read_journal(who["killed"])}) == 2
    assert not [process for run in planned for process in trainers(run.folder) if process.pid != os.getpid()]


DRIVER = """
import sys, pathlib
from isoflop.study import drive
folder = pathlib.Path(sys.argv[1])
drive.drive(drive.plan(drive.open_study(folder), folder), on_event=lambda e: print(e.kind, flush=True))
"""


def long_study(token_folder: Path, folder: Path) -> subprocess.Popen[str]:
    """A driver whose two runs would take minutes, once both train."""
    study = Study(
        design="grid",
        widths=(8, 16),
        lengths=(16_000_000,),
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        train=TrainConfig(batch_size=1, log_every=10, checkpoint_every=10**6),
    )
    drive.settle(study, folder)
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # whoever runs the tests in the background has Ctrl-C ignored, and a child would inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    logs = [run.folder / "log.jsonl" for run in drive.plan(study, folder)]
    until = time.monotonic() + 60
    while not all(log.exists() and log.stat().st_size for log in logs):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    return process


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl-c once", "ctrl-c twice", "kill", "terminal closed", "kill -9"])
def test_however_the_driver_ends_no_worker_stays(how: str, token_folder: Path, tmp_path: Path) -> None:
    process = long_study(token_folder, tmp_path)
    assert process.stdout is not None and process.stderr is not None
    reader = threading.Thread(target=process.stdout.read, daemon=True)
    reader.start()
    workers = psutil.Process(process.pid).children()
    assert len(workers) == 2
    signals = {"kill": signal.SIGTERM, "terminal closed": signal.SIGHUP, "kill -9": signal.SIGKILL}
    process.send_signal(signals.get(how, signal.SIGINT))
    if how == "ctrl-c twice":
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    process.wait(timeout=20)
    _, alive = psutil.wait_procs(workers, timeout=5)
    alive = [
        worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE
    ]  # their new parent may not reap them
    reader.join()
    said = process.stderr.read()
    process.stdout.close()
    process.stderr.close()
    assert not alive
    assert ("saving the checkpoints of 2 runs; Ctrl-C once more stops at once" in said) == (how != "kill -9")
    if how != "ctrl-c twice":
        runs = sorted(path.parent for path in tmp_path.glob("runs/*/config.json"))
        assert len(runs) == 2 and all(any(run.glob("checkpoints/step-*/manifest.json")) for run in runs)


@pytest.mark.slow
def test_two_drivers_share_a_study(token_folder: Path, tmp_path: Path) -> None:
    planned = twelve(token_folder, tmp_path)[8:]
    told: list[Event] = []
    other = threading.Thread(target=lambda: drive.drive(planned, workers=2, on_event=told.append))
    other.daemon = True
    other.start()
    lost = drive.drive(planned, workers=2, on_event=told.append)
    other.join()
    assert lost == [] and all(run.record is not None for run in planned)
    assert not [event for event in told if event.kind == "failed"]
    assert read_run(planned[0].folder) == planned[0].config
    assert Record.read(planned[0].folder / "record.json").status == "complete"


def test_workers_that_never_come_up_are_not_tried_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    told: list[Event] = []
    folders = [tmp_path / name for name in "abc"]
    EXECUTORS["local"](folders, workers=2, patience=60.0, on_event=told.append)
    assert sorted(event.run for event in told) == folders
    assert all(event.kind == "failed" and "no worker starts" in event.reason for event in told)


@pytest.mark.slow
def test_a_worker_that_hangs_is_no_orphan_either(token_folder: Path, tmp_path: Path) -> None:
    planned = twelve(token_folder, tmp_path / "study")
    stuck = spoil(planned, token_folder, tmp_path)["hangs"]
    code = "import sys, subprocess; p = subprocess.Popen([sys.executable, '-m', 'isoflop', 'train', '-'], "
    code += "stdin=subprocess.PIPE, text=True); print(p.pid, flush=True); p.stdin.write(sys.argv[1] + chr(10)); "
    code += "p.stdin.flush(); sys.stdin.read()"
    driver = subprocess.Popen([sys.executable, "-c", code, str(stuck)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert driver.stdin is not None and driver.stdout is not None
    worker = psutil.Process(int(driver.stdout.readline()))
    assert b"ready" in driver.stdout.readline()
    time.sleep(1.0)
    driver.kill()
    driver.wait()
    until = time.monotonic() + 5.0
    while alive := worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE:  # its new parent may not reap it
        if time.monotonic() > until:
            break
        time.sleep(0.1)
    assert not alive
    driver.stdin.close()
    driver.stdout.close()


@pytest.mark.slow
def test_a_run_that_fails_twice_in_the_same_way_is_left_and_the_exit_code_says_so(
    token_folder: Path, tmp_path: Path
) -> None:
    planned = twelve(token_folder, tmp_path)
    drive.settle(small_study(token_folder), tmp_path)
    write_json(drive.write_run(planned[0].config, planned[0].folder.parent) / "config.json", {"not": "a run"})
    command = [sys.executable, "-m", "isoflop", "study", "run", str(tmp_path), "--workers", "2"]
    said = subprocess.run(command, capture_output=True, text=True)
    assert said.returncode == 1
    assert "11 of 12 runs complete" in said.stdout
    assert f"isoflop study retry {tmp_path}` lets this be tried again" in said.stderr
    assert len(failures(planned[0].folder)) == 2


def test_threads_cores_and_gpus_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_cores", lambda: [0, 1, 2, 3])
    assert local.machine_slots(None, 40, []) == [Slot(threads=1, core=core) for core in range(4)]
    assert local.machine_slots(6, 40, [])[5] == Slot(threads=1, core=1)
    assert local.machine_slots(None, 1, []) == [Slot(threads=4)]
    assert local.machine_slots(None, 40, ["0", "3"]) == [Slot(threads=2, gpu="0"), Slot(threads=2, gpu="3")]
    assert [slot.gpu for slot in local.machine_slots(4, 40, ["0", "3"])] == ["0", "3", "0", "3"]
    assert local.machine_slots(4, 40, ["0"])[0] == Slot(threads=1, gpu="0")
    assert local.machine_slots(None, 40, [], devices=2) == 2 * [Slot(threads=2)]
    assert [slot.gpu for slot in local.machine_slots(None, 40, ["0", "3", "4"], devices=2)] == ["0,3"]
    assert [slot.gpu for slot in local.machine_slots(2, 40, ["0", "3", "4", "5"], devices=2)] == ["0,3", "4,5"]
    with pytest.raises(ValueError, match="devices=2, but this machine shows 1 GPUs; give fewer, or device=cpu"):
        local.machine_slots(None, 40, ["0"], devices=2)


def test_gpus_are_those_that_are_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert local.visible_gpus({"CUDA_VISIBLE_DEVICES": "2, MIG-77"}) == ["2", "MIG-77"]
    assert local.visible_gpus({"CUDA_VISIBLE_DEVICES": ""}) == local.visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == []
    monkeypatch.setenv("PATH", str(tmp_path))
    assert local.visible_gpus({}) == []
    fake = tmp_path / "nvidia-smi"
    fake.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: GPU-1)'\necho '  MIG 1g: (UUID: MIG-1)'\necho 'GPU 1: A'\n")
    fake.chmod(0o755)
    assert local.visible_gpus({}) == ["0", "1"]


def fake_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Let workers be a few lines of shell: they get `$0 -m isoflop train - …`, and run folders on standard input."""
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/bash\necho \'{{"event": "ready"}}\'\n{body}\n')
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))


def test_a_worker_sees_the_gpu_of_its_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = '{\\"event\\": \\"failed\\", \\"reason\\": \\"$CUDA_VISIBLE_DEVICES $*\\"}'
    fake_workers(tmp_path, monkeypatch, f'while read run; do echo "{line}"; done')
    told: list[Event] = []
    local.train_on([Slot(threads=2, gpu="7")], [tmp_path / "a"], patience=60.0, on_event=told.append)
    assert [event.reason for event in told if event.kind == "failed"] == ["7 -m isoflop train - --threads 2"]


def test_a_process_that_the_kernel_ended_for_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_workers(tmp_path, monkeypatch, "read run; sleep 0.3; kill -KILL $$")
    told: list[Event] = []
    counts = iter([3, 4])
    monkeypatch.setattr(local, "oom_kills", lambda: next(counts, 4))
    monkeypatch.setattr(local, "TICK", 0.05)
    for run in ("a", "b"):
        local.train_on([Slot(threads=1)], [tmp_path / run], patience=60.0, on_event=told.append)
    first, second = [event.reason for event in told if event.kind == "failed"]
    assert re.fullmatch(r"out of memory: the kernel ended its process, last seen at 0\.\d\d GB", first)
    assert second == "its process was killed by signal 9"


def test_a_listener_that_raises_leaves_no_worker_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_workers(tmp_path, monkeypatch, "read run; exec sleep 60")
    pools: list[local._Pool] = []

    def work(pool: local._Pool, patience: float) -> None:
        pools.append(pool)
        for slot in range(2):
            pool.start(slot)
            pool.workers[slot].run = tmp_path / "ab"[slot]
        raise KeyboardInterrupt

    def tell(event: Event) -> None:
        raise RuntimeError(event.kind)

    monkeypatch.setattr(local, "_work", work)
    with pytest.raises(RuntimeError, match="stopped"):
        local.train_on(2 * [Slot(threads=1)], [tmp_path / "a", tmp_path / "b"], patience=60.0, on_event=tell)
    workers = pools[0].workers.values()
    pipes = [pipe for worker in workers for pipe in (worker.process.stdin, worker.process.stdout)]
    assert len(pipes) == 4 and all(pipe is not None and pipe.closed for pipe in pipes)
    assert all(worker.process.returncode is not None for worker in workers)


def test_a_study_goes_on_with_the_threads_it_began_with(make_run, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [make_run(steps=4, seed=seed) for seed in range(3)]
    monkeypatch.setattr(local, "_cores", lambda: [0, 1])
    monkeypatch.setattr(local, "visible_gpus", lambda: [])
    got: list[Slot] = []
    monkeypatch.setattr(local, "train_on", lambda slots, folders, **rest: got.extend(slots))
    for part in (runs, runs[:1]):
        got.clear()
        local.run(part, workers=None, patience=1.0, on_event=lambda event: None)
        assert got == [Slot(threads=1, core=core) for core in range(min(2, len(part)))]


def test_there_is_at_least_one_worker(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers=-1 must be at least 1"):
        EXECUTORS["local"]([tmp_path / "a"], workers=-1, patience=60.0, on_event=lambda event: None)
