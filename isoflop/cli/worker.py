"""A process that trains what it is told: folders on standard input, or its part of a run that torchrun has started."""

from __future__ import annotations

import contextlib
import json as json_module
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from isoflop.lm.train import Progress
    from isoflop.record import Record

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask a run to save and stop; the last is the warning that queues send before a time limit."""
ORPHAN = 3.0
"""Seconds that a worker without a driver gets to save its checkpoint."""


def started_by_torchrun() -> bool:
    """Whether this is one of several processes that train a run together."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def watch_parent() -> None:
    """See to it that this process does not outlive whoever started it."""
    threading.Thread(target=leave_with_parent, args=(os.getppid(),), daemon=True).start()


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C, SIGTERM and SIGUSR1 into a question that the training loop asks; a second Ctrl-C stops at once."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {number: signal.signal(number, ask) for number in STOPS}
    try:
        yield lambda: asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train_silently(folder: Path) -> None:
    """Be one of the ranks that train a run, and leave speaking and writing to the first."""
    from isoflop.lm.train import train as train_run

    with stop_on_signal() as should_stop:
        try:
            record = train_run(folder, should_stop=should_stop)
        except (ValueError, OSError, RuntimeError, MemoryError) as error:
            _leave_the_ranks(error)
    if record is None:
        sys.exit(130)


def _leave_the_ranks(error: Exception) -> NoReturn:
    """End this rank, and so the others; say why if the others cannot."""
    from isoflop.lm.ranks import is_echo
    from isoflop.lm.torchrun import RANK_SAID

    if not is_echo(error) and not isinstance(error, ValueError):  # all of them know a ValueError (`Ranks.agreed`)
        print(f"{RANK_SAID}{os.environ['RANK']}: {failure(error)}", file=sys.stderr, flush=True)
    os._exit(1)  # no farewell to ranks that may wait for another one


def leave_with_parent(parent: int) -> None:
    """Save and stop once whoever started this process is gone: a worker without a driver is an orphan."""
    import psutil

    driver = os.environ.get("ISOFLOP_DRIVER")  # of torchrun, where one of ours started it
    while os.getppid() == parent and (driver is None or psutil.pid_exists(int(driver))):
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHAN)
    os.kill(os.getpid(), signal.SIGKILL)  # it hangs where no signal reaches the training loop


def serve() -> None:
    """Train the folders named on standard input; answer progress and end of each with a line of JSON."""
    from isoflop.lm.torchrun import train_together

    with stop_on_signal() as should_stop:
        _say(event="ready", pid=os.getpid())
        for line in iter(sys.stdin.readline, ""):
            if should_stop():
                break
            folder = Path(line.rstrip("\n"))
            try:
                record = train_together(folder, on_progress=_progress_teller(), should_stop=should_stop)
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                _say(event="failed", run=folder.name, reason=failure(error))
                continue
            _say_end(folder, record)


def serve_together() -> None:
    """As `serve`, on all ranks at once: the first one listens and speaks. A run that fails ends them."""
    from isoflop.lm.ranks import is_echo, joined
    from isoflop.lm.train import train as train_run

    with stop_on_signal() as should_stop, joined() as ranks:
        if ranks.first:
            _say(event="ready", pid=os.getpid())
        while line := ranks.told(sys.stdin.readline() if ranks.first else None):
            folder = Path(line.rstrip("\n"))
            try:
                record = train_run(
                    folder, on_progress=_progress_teller() if ranks.first else None, should_stop=should_stop
                )
            except (ValueError, OSError, RuntimeError, MemoryError) as error:
                if ranks.first:
                    _say(event="failed", run=folder.name, reason=failure(error), echo=is_echo(error))
                    os._exit(1)
                _leave_the_ranks(error)
            if ranks.first:
                _say_end(folder, record)
            if record is None:
                return


def _say(**line: object) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: leave_with_parent ends this
        print(json_module.dumps(line), flush=True)


def _say_end(folder: Path, record: Record | None) -> None:
    _say(event="stopped" if record is None else "done", run=folder.name, status=record and record.status)


def _progress_teller() -> Callable[[Progress], None]:
    """Say progress four times a second at most."""
    spoke = 0.0

    def show(now: Progress) -> None:
        nonlocal spoke
        if time.monotonic() - spoke > 0.25:
            spoke = time.monotonic()
            _say(event="progress", **asdict(now))

    return show


def failure(error: Exception) -> str:
    """Why a run failed, in one line; the peak where memory ran out."""
    import resource

    import torch

    if isinstance(error, ChildProcessError):
        return str(error)  # of ranks that have said it already
    said = " ".join(f"{type(error).__name__}: {error}".split())
    if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in said:
        return said
    kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS: getrusage(2) of each
    peak = kibibytes * (1 if sys.platform == "darwin" else 1024)
    if isinstance(error, torch.OutOfMemoryError):
        peak = torch.cuda.max_memory_allocated()
    return f"out of memory at a peak of {peak / 1e9:.2f} GB: {said}"
