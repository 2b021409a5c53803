"""Warm worker processes on this machine, one a GPU or a core: each keeps one `isoflop train -` and is fed runs."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from isoflop.config import read_run
from isoflop.study.launch.event import Event, cancelled
from isoflop.study.launch.memory import oom_kills
from isoflop.study.launch.watch import devices_of

TICK = 0.5
"""Seconds between looks at the clock and at cancel marks."""
DRAIN = 60.0
"""Seconds that a worker gets to save its checkpoint before it is killed."""
BUSY = "is being trained by another process"
"""What the trainer says of a run that another controller's worker holds (`isoflop.lm.train`)."""
STILLBORN = 2
"""Workers that end before they are ready until no more are tried."""
RETRY_BUSY = 2.0
"""Seconds until such a run is asked for again; by then it may be done."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What one worker gets of a machine."""

    threads: int
    """CPU threads, shared by the devices of a run."""
    core: int | None = None
    """The CPU core that it is kept on; None: any."""
    gpu: str | None = None
    """The GPUs that it sees, as CUDA_VISIBLE_DEVICES names them; None: what its driver sees."""


@dataclass
class _Worker:
    process: subprocess.Popen[str]
    oom_kills: int
    """How many processes the kernel had ended for want of memory when it was started."""
    run: Path | None = None
    heard: float = 0.0
    """When it last spoke, or was given its run."""
    ready: bool = False
    """Whether it ever spoke."""
    stopping: str | None = None
    """Why it was asked to end, where that was the driver's doing."""
    cancelled: bool = False
    """Whether it was asked to end because its run was called off."""
    memory: int = 0
    """The most memory that it was seen to hold, in bytes."""
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
    slots: Sequence[Slot]
    tell: Callable[[Event], None]
    held: dict[Path, float] = field(default_factory=dict)
    """Runs that another controller trains, and when to ask for them again."""
    workers: dict[int, _Worker] = field(default_factory=dict)
    idle: set[int] = field(default_factory=set)
    """Workers that are ready while every waiting run is held elsewhere."""
    lines: queue.SimpleQueue[tuple[int, str | None]] = field(default_factory=queue.SimpleQueue)
    stillborn: int = 0
    """Workers that ended before they were ready."""

    def start(self, slot: int) -> None:
        place = self.slots[slot]
        command = [sys.executable, "-m", "isoflop", "train", "-", "--threads", str(place.threads)]
        if place.core is not None:
            command += ["--core", str(place.core)]
        process = subprocess.Popen(
            command,
            env={**os.environ, **({} if place.gpu is None else {"CUDA_VISIBLE_DEVICES": place.gpu})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # a terminal's Ctrl-C reaches the driver alone, which then asks the workers to save
            start_new_session=True,
        )
        if slot in self.workers:
            self.workers[slot].close()
        self.workers[slot] = worker = _Worker(process, oom_kills())
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

    def _next(self) -> Path | None:
        """Take the first waiting run that is neither called off nor held elsewhere."""
        for run in list(self.waiting):
            if reason := cancelled(run):
                self.waiting.remove(run)
                self.tell(Event(kind="cancelled", run=run, reason=reason))
            elif self.held.get(run, 0.0) <= time.monotonic():
                self.waiting.remove(run)
                return run
        return None

    def feed(self, slot: int) -> None:
        """Give the next run to a worker that is ready, or let it end."""
        worker = self.workers[slot]
        stdin = worker.process.stdin
        assert stdin is not None
        self.idle.discard(slot)
        worker.run, worker.heard = self._next(), time.monotonic()
        if worker.run is None:
            if self.waiting:
                self.idle.add(slot)
            else:
                stdin.close()
            return
        # one that died just now: its end arrives on the queue, and is told there
        with contextlib.suppress(OSError):
            stdin.write(f"{worker.run}\n")
            stdin.flush()
        self.tell(Event(kind="started", run=worker.run))

    def look(self, patience: float) -> None:
        """End what hangs or was called off, and feed those who wait for runs that were held elsewhere."""
        now = time.monotonic()
        for worker in self.workers.values():
            if worker.run is None:
                continue
            with contextlib.suppress(psutil.Error):
                worker.memory = max(worker.memory, psutil.Process(worker.process.pid).memory_info().rss)
            if worker.stopping is None and (reason := cancelled(worker.run)):
                worker.stopping, worker.cancelled, worker.heard = reason, True, now
                worker.process.terminate()
            elif worker.stopping is None and now - worker.heard > patience:
                worker.stopping = f"no progress for {patience:g} seconds"
                worker.process.kill()
            elif worker.stopping is not None and now - worker.heard > DRAIN:
                worker.process.kill()
        for slot in sorted(self.idle):
            self.feed(slot)

    def stop(self) -> None:
        """Ask every worker to save its checkpoint, and wait for it; interrupted once more, end them at once."""
        until = time.monotonic() + DRAIN
        try:
            for worker in self.workers.values():
                worker.process.terminate()
                if worker.process.stdin and not worker.process.stdin.closed:
                    with contextlib.suppress(OSError):
                        worker.process.stdin.close()
            for worker in self.workers.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.process.wait(timeout=max(0.0, until - time.monotonic()))
        finally:
            for worker in self.workers.values():
                worker.process.kill()
            for worker in self.workers.values():
                worker.process.wait()
                worker.close()
            # a listener that raises must leave no process behind, so they are told last
            for run in [worker.run for worker in self.workers.values() if worker.run is not None]:
                self.tell(Event(kind="done" if (run / "record.json").exists() else "stopped", run=run))


def run(folders: Sequence[Path], *, workers: int | None, patience: float, on_event: Callable[[Event], None]) -> None:
    """Train run folders, in the order given, until each is done, has failed or was called off.

    Args:
        folders: Run folders; the longest first leaves the cores busy to the end.
        workers: Processes; None: one a GPU, or one a core where there is none. They share the cores as threads.
        patience: Seconds without a sign of progress after which a run is ended as failed.
        on_event: Called with everything that happens.

    Raises:
        ValueError: there is no worker.
        KeyboardInterrupt: passed on after every worker has saved its run; SIGTERM and SIGHUP count as Ctrl-C.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be at least 1; leave it out for one a GPU, or one a core")
    gpus = visible_gpus() if any(map(_wants_gpu, folders)) else []
    # threads by the study's runs, not by those that are left: a run goes on with as many, and so bit for bit
    study = {
        run for folder in folders for run in [folder, *(path.parent for path in folder.parent.glob("*/config.json"))]
    }
    slots = machine_slots(workers, len(study), gpus, devices=max(map(devices_of, folders), default=1))[: len(folders)]
    train_on(slots, folders, patience=patience, on_event=on_event)


def train_on(
    slots: Sequence[Slot], folders: Sequence[Path], *, patience: float, on_event: Callable[[Event], None]
) -> None:
    """Train run folders by one worker a slot, as `run` does."""
    pool = _Pool(waiting=list(folders), slots=slots, tell=on_event)
    with _interrupted():
        try:
            _work(pool, patience)
        except KeyboardInterrupt:
            busy = sum(worker.run is not None for worker in pool.workers.values())
            log.warning("saving the checkpoints of %d runs; Ctrl-C once more stops at once", busy)
            raise
        finally:
            pool.stop()


def _work(pool: _Pool, patience: float) -> None:
    for slot in range(len(pool.slots)):
        pool.start(slot)
    alive = set(range(len(pool.slots)))
    while alive:
        try:
            slot, line = pool.lines.get(timeout=TICK)
        except queue.Empty:
            pool.look(patience)
            continue
        if line is not None:
            _answer(pool, slot, json.loads(line))
        elif _ended(pool, slot):
            pool.start(slot)
        else:
            alive.discard(slot)
        pool.look(patience)


def machine_slots(workers: int | None, runs: int, gpus: Sequence[str], *, devices: int = 1) -> list[Slot]:
    """Share this machine: GPUs in turn, cores as threads, and a core of its own for a worker of one thread.

    Args:
        workers: Workers; None: one for each `devices` GPUs, or else for as many cores.
        runs: Runs, which leave more workers nothing to do.
        gpus: Names of the GPUs.
        devices: GPUs, or processes on cores, that train a run together.

    Raises:
        ValueError: there are fewer GPUs than a run needs.
    """
    cores = _cores()
    if gpus and devices > len(gpus):
        raise ValueError(f"devices={devices}, but this machine shows {len(gpus)} GPUs; give fewer, or device=cpu")
    count = min(workers or max(1, len(gpus or cores) // devices), runs)
    threads = max(1, len(cores) // max(count, 1))
    return [
        Slot(
            threads=threads,
            core=cores[slot % len(cores)] if threads == 1 == devices and not gpus else None,
            gpu=",".join(gpus[(slot * devices + k) % len(gpus)] for k in range(devices)) if gpus else None,
        )
        for slot in range(count)
    ]


def visible_gpus(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Names by which CUDA_VISIBLE_DEVICES calls the GPUs that a worker may use; asked without importing torch."""
    chosen = environment.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1", "NoDevFiles")]
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    return [str(k) for k, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def _wants_gpu(folder: Path) -> bool:
    try:
        return read_run(folder).train.device != "cpu"
    except (OSError, ValueError):
        return False  # its worker says what is wrong with it


@contextmanager
def _interrupted() -> Iterator[None]:
    """Let a terminal that is closed, or a plain kill, end this process as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.default_int_handler) for number in _ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_ENDS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


def _ended(pool: _Pool, slot: int) -> bool:
    """Tell what a worker's end means for its run; return whether another worker must take its place."""
    worker = pool.workers[slot]
    lost, died = worker.run, _death(worker)
    worker.run = None
    pool.idle.discard(slot)
    if lost is not None:
        if (lost / "record.json").exists():
            pool.tell(Event(kind="done", run=lost))
        elif worker.cancelled:
            pool.tell(Event(kind="cancelled", run=lost, reason=worker.stopping or ""))
        else:
            pool.tell(Event(kind="failed", run=lost, reason=worker.stopping or died))
    if worker.ready:
        return bool(pool.waiting)
    # it never came up, and the next one will not either: an installation that is broken, or no memory
    pool.stillborn += 1
    if pool.stillborn < STILLBORN:
        return bool(pool.waiting)
    while pool.waiting:
        pool.tell(Event(kind="failed", run=pool.waiting.pop(), reason=f"no worker starts: {died}"))
    return False


def _answer(pool: _Pool, slot: int, said: dict[str, Any]) -> None:
    worker = pool.workers[slot]
    run = worker.run
    worker.heard, worker.ready = worker.heard if worker.stopping else time.monotonic(), True
    if said["event"] == "progress":
        assert run is not None
        pool.tell(Event(kind="progress", run=run, step=said["step"], steps=said["steps"], loss=said["loss"]))
        return
    if said["event"] == "stopped" or worker.stopping is not None:
        return  # it ends now, and its end says what became of the run
    if said["event"] == "failed" and BUSY in said["reason"]:
        assert run is not None
        pool.held[run] = time.monotonic() + RETRY_BUSY
        pool.waiting.append(run)
    elif said["event"] == "failed":
        assert run is not None
        pool.tell(Event(kind="failed", run=run, reason=said["reason"]))
    elif said["event"] == "done":
        assert run is not None
        kind: Literal["done", "diverged"] = "diverged" if said["status"] == "diverged" else "done"
        pool.tell(Event(kind=kind, run=run))
    pool.feed(slot)


def _keep_tail(worker: _Worker) -> None:
    assert worker.process.stderr is not None
    for line in worker.process.stderr:
        worker.errors = [*worker.errors[-9:], line.strip()]


def _death(worker: _Worker) -> str:
    code = worker.process.wait()
    if code == -signal.SIGKILL and oom_kills() > worker.oom_kills:
        return f"out of memory: the kernel ended its process, last seen at {worker.memory / 1e9:.2f} GB"
    said = next((line for line in reversed(worker.errors) if line), "")
    ended = f"its process was killed by signal {-code}" if code < 0 else f"its process ended with code {code}"
    return f"{ended}{f': {said}' if said else ''}"


def _cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
