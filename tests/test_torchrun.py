"""python -m pytest tests/test_torchrun.py, and with -m slow through torchrun itself"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from isoflop.cli.app import main
from isoflop.config import read_run, spread_run
from isoflop.lm import torchrun
from isoflop.lm.train import train
from isoflop.record import Record
from isoflop.study.launch import local
from isoflop.study.launch.event import Event

MakeRun = Callable[..., Path]


def on_two(folder: Path) -> Path:
    spread_run(folder, replace(read_run(folder).train, devices=2, device="cpu"))
    return folder


@pytest.mark.parametrize(
    ("last", "errors", "reason"),
    [
        ({"event": "failed", "reason": "ValueError: no", "echo": False}, [], "ValueError: no"),
        ({"event": "failed", "reason": "gone", "echo": True}, ["x", "isoflop: rank 1: no room"], "rank 1: no room"),
        (
            {},
            ["traceback : Signal 9 (SIGKILL) received by PID 7"],
            "the process of a rank was killed by signal 9; the same command goes on from the checkpoint",
        ),
        ({"event": "ready"}, ["no module", "==="], "torchrun ended with code 1: no module"),
    ],
)
def test_the_reason_is_the_one_that_comes_first(last: dict[str, Any], errors: list[str], reason: str) -> None:
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(1)"], text=True)
    process.wait()
    assert torchrun._reason(torchrun._Team(process, errors=errors), last) == reason


def test_a_run_goes_on_with_other_devices_but_not_with_another_recipe(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(steps=2)
    train(folder)
    assert main(["train", str(folder), "--devices", "2", "--sharding", "fsdp", "--json"]) == 0  # done is done
    chosen = read_run(folder).train
    assert (chosen.devices, chosen.sharding) == (2, "fsdp") and read_run(folder).id == folder.name
    assert main(["train", str(folder), "--devices", "1", "--lr", "1"]) == 2
    assert "the command gives lr=1.0 (there 0.005); leave that out" in capsys.readouterr().err


def test_the_same_command_goes_on_with_other_devices(token_folder: Path, tmp_path: Path) -> None:
    shape = [
        "--preset",
        "small",
        "--d-model",
        "16",
        "--context-length",
        "16",
        "--batch-size",
        "4",
        "--val-tokens",
        "256",
    ]
    command = ["train", "--data", str(token_folder), "--out", str(tmp_path), "--steps", "2", "--json", *shape]
    assert main(command) == 0
    assert main([*command, "--devices", "2"]) == 0  # done is done
    (folder,) = tmp_path.glob("d16-*")
    assert read_run(folder).train.devices == 2


@pytest.mark.slow
def test_the_local_executor_trains_runs_on_two_devices_each(make_run: MakeRun) -> None:
    runs = [on_two(make_run(steps=20, seed=seed)) for seed in range(2)]
    broken = make_run(steps=20, seed=3, optim={"optimizer": "muon"})
    spread_run(broken, replace(read_run(broken).train, devices=2, sharding="fsdp"))
    events: list[Event] = []
    local.run([*runs, broken], workers=1, patience=300.0, on_event=events.append)
    ends = {event.run: (event.kind, event.reason) for event in events if event.kind not in ("started", "progress")}
    assert [ends[run][0] for run in runs] == ["done", "done"]
    assert ends[broken][0] == "failed" and "optimizer=muon needs whole matrices" in ends[broken][1]
    assert [Record.read(run / "record.json").measured["devices"] for run in runs] == [["2 cpu"], ["2 cpu"]]


def wait_for(what: Callable[[], Any], seconds: float = 240.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := what():
            return found
        time.sleep(0.2)
    raise AssertionError("waited in vain")


@pytest.mark.slow
@pytest.mark.parametrize("torchrun_itself", [False, True])
def test_a_signal_drains_all_ranks_and_a_lost_rank_ends_them(make_run: MakeRun, torchrun_itself: bool) -> None:
    folder = on_two(make_run(steps=200_000, checkpoint_every=100_000, log_every=5))
    command = [sys.executable, "-m", "isoflop", "train", str(folder), "--json"]
    if torchrun_itself:
        command[2:2] = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = folder / "log.jsonl"
    wait_for(lambda: log.exists() and log.stat().st_size > 500)
    ranks = [child for child in psutil.Process(process.pid).children(recursive=True) if "RANK" in child.environ()]
    ranks = [child for child in ranks if child.environ().get("LOCAL_RANK")]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=240)
    assert process.returncode != 0 and len(list((folder / "checkpoints").iterdir())) == 1
    assert len(ranks) == 2 and not any(rank.is_running() for rank in ranks)
    saved = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()][-1]["saved"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    size = log.stat().st_size
    wait_for(lambda: log.stat().st_size > size + 300)
    lost = next(
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if child.environ().get("LOCAL_RANK") == "1"
    )
    os.kill(lost.pid, signal.SIGKILL)
    _, said = process.communicate(timeout=240)
    assert process.returncode != 0 and saved > 0
    assert ("another process of this run" if torchrun_itself else "was killed by signal 9") in said
