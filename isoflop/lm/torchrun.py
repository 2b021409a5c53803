"""A run that asks for several devices, by torchrun: one process a device, which train as one."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from isoflop.config import read_run
from isoflop.lm.ranks import named
from isoflop.lm.run import Run
from isoflop.lm.train import Progress, train
from isoflop.record import Record

TICK = 0.2
"""Seconds between looks at whether to stop."""
DRIVER = "ISOFLOP_DRIVER"
"""Names, to the ranks, the process that started torchrun: without it they are orphans."""
RANK_SAID = "isoflop: rank "
"""Begins the line in which a rank other than the first says why it ends."""
FAREWELL = 100
"""Last lines of standard error that are kept for the reason of a failure."""


def train_together(
    folder: Path,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[Run], None] = lambda run: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Record | None:
    """Train the run of a folder on as many devices as it asks for: as `isoflop.lm.train.train`, which one device is.

    Called by a process that torchrun has started, it is one of them. `on_start` is called where the training is.

    Raises:
        ChildProcessError: one of the processes failed, and so all ended.
    """
    config = read_run(folder)
    if config.train.devices == 1 or named().world > 1 or (folder / "record.json").exists():
        return train(folder, on_progress=on_progress, on_start=on_start, should_stop=should_stop)
    with _started(config.train.devices) as team:
        last = _listen(team, folder, on_progress, should_stop)
    if last.get("event") == "stopped":
        return None
    if last.get("event") != "done":
        raise ChildProcessError(_reason(team, last))
    return Record.read(folder / "record.json")


@dataclass
class _Team:
    """torchrun, and what is heard of it."""

    process: subprocess.Popen[str]
    lines: queue.SimpleQueue[str | None] = field(default_factory=queue.SimpleQueue)
    errors: list[str] = field(default_factory=list)

    def hear(self) -> None:
        """Pass on what the first rank says."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def keep(self) -> None:
        """Keep the last lines of standard error, and what a rank says of its own end."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            told = [said for said in self.errors if said.startswith(RANK_SAID)]
            self.errors = [*told, *[said for said in self.errors if said not in told][-FAREWELL:], line.strip()]


@contextmanager
def _started(devices: int) -> Iterator[_Team]:
    """Start torchrun with one `isoflop train -` a device; whatever happens, it is gone at the end."""
    threads = max(1, torch.get_num_threads() // devices)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    process = subprocess.Popen(
        [*command, "-m", "isoflop", "train", "-", "--threads", str(threads)],
        env={**os.environ, DRIVER: str(os.getpid()), "OMP_NUM_THREADS": str(threads)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C reaches this process alone, which then asks them to save
    )
    team = _Team(process)
    listeners = [threading.Thread(target=listen, daemon=True) for listen in (team.hear, team.keep)]
    for listener in listeners:
        listener.start()
    try:
        yield team
    finally:
        if sys.exc_info()[0] is not None:
            process.kill()  # its ranks see that they are orphans, and end
        process.wait()
        for listener in listeners:
            listener.join()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


def _listen(
    team: _Team,
    folder: Path,
    on_progress: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    """Hand the run to the ranks, pass on its progress and the wish to stop; return the last that was heard."""
    assert team.process.stdin is not None
    with contextlib.suppress(OSError):  # it ended already; its end is told below
        team.process.stdin.write(f"{folder.resolve()}\n")
        team.process.stdin.close()
    said: dict[str, Any] = {}
    first: int | None = None
    while True:
        if first is not None and should_stop():
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGUSR1)  # to one of them; they agree on the step
            first = None
        try:
            line = team.lines.get(timeout=TICK)
        except queue.Empty:
            continue
        if line is None:
            return said
        said = json.loads(line)
        if said["event"] == "ready":
            first = said["pid"]
        elif said["event"] == "progress" and on_progress:
            on_progress(Progress(**{name: value for name, value in said.items() if name != "event"}))


def _reason(team: _Team, last: dict[str, Any]) -> str:
    """Why they ended: what went wrong on one of them, not what the others saw of it."""
    own = [line.removeprefix(RANK_SAID) for line in team.errors if line.startswith(RANK_SAID)]
    if last.get("event") == "failed" and not last["echo"]:
        return str(last["reason"])
    if own:
        return f"rank {own[0]}"
    if killed := re.findall(r"Signal (\d+) \(\w+\) received by PID", "\n".join(team.errors)):
        return f"the process of a rank was killed by signal {killed[0]}; the same command goes on from the checkpoint"
    tail = next((line for line in reversed(team.errors) if line.strip("= -")), "it said nothing")
    return f"torchrun ended with code {team.process.returncode}: {last.get('reason', tail)}"
