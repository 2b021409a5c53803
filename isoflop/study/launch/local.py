"""Warm worker processes on this machine, one a core: each keeps one `isoflop train -` and is fed run folders."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

TRIES = 2
"""Times that a run is started: once more after its worker died, from its last checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a run."""

    kind: Literal["started", "progress", "done", "diverged", "stopped", "failed"]
    run: Path
    step: int = 0
    steps: int = 0
    loss: float | None = None
    """Training loss, nats per token, with progress."""
    reason: str = ""
    """Why it failed."""


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    run: Path | None = None
    errors: list[str] = field(default_factory=list)
    """The last lines of its standard error, for the reason when it dies."""
    listeners: list[threading.Thread] = field(default_factory=list)

    def close(self) -> None:
        """Let go of the pipes of a process that has ended."""
        for listener in self.listeners:
            listener.join()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()


@dataclass
class _Pool:
    """The workers, the runs that wait, and the queue on which the workers' lines arrive."""

    waiting: list[Path]
    threads: int
    tries: dict[Path, int] = field(default_factory=dict)
    workers: dict[int, _Worker] = field(default_factory=dict)
    lines: queue.SimpleQueue[tuple[int, str | None]] = field(default_factory=queue.SimpleQueue)

    def start(self, slot: int) -> None:
        command = [sys.executable, "-m", "isoflop", "train", "-", "--threads", str(self.threads)]
        if self.threads == 1:
            command += ["--core", str(_cores()[slot % len(_cores())])]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a terminal's Ctrl-C reaches the driver alone, which then asks the workers to save
            start_new_session=True,
        )
        if slot in self.workers:
            self.workers[slot].close()
        self.workers[slot] = worker = _Worker(process)
        worker.listeners = [
            threading.Thread(target=self._listen, args=(slot, worker), daemon=True),
            threading.Thread(target=_keep_tail, args=(worker,), daemon=True),
        ]
        for listener in worker.listeners:
            listener.start()

    def _listen(self, slot: int, worker: _Worker) -> None:
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            self.lines.put((slot, line))
        self.lines.put((slot, None))

    def feed(self, slot: int) -> Event | None:
        """Give the next run to a worker that is ready, or let it end."""
        worker = self.workers[slot]
        stdin = worker.process.stdin
        assert stdin is not None
        if not self.waiting:
            worker.run = None
            stdin.close()
            return None
        worker.run = self.waiting.pop(0)
        self.tries[worker.run] = self.tries.get(worker.run, 0) + 1
        try:
            stdin.write(f"{worker.run}\n")
            stdin.flush()
        except OSError:
            pass  # it died just now: its end arrives on the queue, and the run is started anew there
        return Event(kind="started", run=worker.run)

    def stop(self) -> None:
        """Ask every worker to save its checkpoint, and wait for it."""
        for worker in self.workers.values():
            worker.process.terminate()
            if worker.process.stdin and not worker.process.stdin.closed:
                worker.process.stdin.close()
        for worker in self.workers.values():
            try:
                worker.process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
            worker.close()


def run(folders: Sequence[Path], *, workers: int | None, on_event: Callable[[Event], None]) -> None:
    """Train run folders, in the order given, until each is done or has failed.

    Args:
        folders: Run folders; the longest first leaves the cores busy to the end.
        workers: Processes; None: one a core. Fewer runs than cores share the cores as threads.
        on_event: Called with everything that happens.

    Raises:
        KeyboardInterrupt: passed on after every worker has saved its run.
    """
    cores = len(_cores())
    slots = min(workers or cores, len(folders))
    pool = _Pool(waiting=list(folders), threads=max(1, cores // max(slots, 1)))
    try:
        for slot in range(slots):
            pool.start(slot)
        alive = slots
        while alive:
            slot, line = pool.lines.get()
            worker = pool.workers[slot]
            if line is not None:
                _answer(pool, slot, json.loads(line), on_event)
                continue
            reason = _death(worker)
            if worker.run is not None:
                again = pool.tries[worker.run] < TRIES
                if again:
                    pool.waiting.insert(0, worker.run)
                else:
                    on_event(Event(kind="failed", run=worker.run, reason=reason))
            if worker.run is not None and pool.waiting:
                pool.start(slot)
            else:
                alive -= 1
    finally:
        pool.stop()


def _answer(pool: _Pool, slot: int, said: dict[str, Any], on_event: Callable[[Event], None]) -> None:
    run = pool.workers[slot].run
    if said["event"] == "progress":
        assert run is not None
        on_event(Event(kind="progress", run=run, step=said["step"], steps=said["steps"], loss=said["loss"]))
        return
    if said["event"] == "failed":
        assert run is not None
        on_event(Event(kind="failed", run=run, reason=said["reason"]))
    elif said["event"] in ("done", "stopped"):
        assert run is not None
        kind: Literal["done", "diverged", "stopped"] = "diverged" if said["status"] == "diverged" else said["event"]
        on_event(Event(kind=kind, run=run))
    if (started := pool.feed(slot)) is not None:
        on_event(started)


def _keep_tail(worker: _Worker) -> None:
    assert worker.process.stderr is not None
    for line in worker.process.stderr:
        worker.errors = [*worker.errors[-9:], line.strip()]


def _death(worker: _Worker) -> str:
    code = worker.process.wait()
    said = next((line for line in reversed(worker.errors) if line), "")
    ended = f"its process was killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
    return f"{ended}{f': {said}' if said else ''}"


def _cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
