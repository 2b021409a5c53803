"""Ray: one task a run, wherever the cluster has room; the extra `isoflop[ray]`, imported when it is used."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isoflop.config import read_run
from isoflop.study.launch.event import Event, cancelled
from isoflop.study.launch.local import DRAIN, Slot, train_on
from isoflop.study.launch.watch import Watch, devices_of, end

TICK = 0.5
"""Seconds between looks at the folders."""
RETRIES = 3
"""Times that Ray starts a task again whose worker or node has died."""


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """What Ray is asked for, with --executor ray."""

    address: str | None = None
    """Address of the cluster, as `auto`; None: RAY_ADDRESS, or a Ray of this machine's own."""
    cpus_per_run: int = 1
    """CPU cores for each device of a run, one thread on each."""
    gpus_per_run: float | None = None
    """GPUs a run; 0.5 lets two runs share one; None: 1 for each device of a run, where the cluster has any and the
    runs may use them."""

    def __post_init__(self) -> None:
        """Refuse numbers that Ray could not grant."""
        if self.cpus_per_run < 1:
            raise ValueError(f"cpus_per_run={self.cpus_per_run} must be at least 1")
        gpus = self.gpus_per_run
        if gpus is not None and (gpus < 0 or (gpus > 1 and gpus % 1)):
            raise ValueError(f"gpus_per_run={gpus:g} must be a part of one GPU, or whole GPUs; try 0.5 or 1")


def run(
    folders: Sequence[Path],
    *,
    workers: int | None,
    patience: float,
    on_event: Callable[[Event], None],
    options: RayOptions = RayOptions(),
) -> None:
    """Train run folders as tasks of Ray until each is done, has failed or was called off.

    Args:
        folders: Run folders, on a disk that all nodes see under the same path.
        workers: Tasks that run at once; None: as many as the cluster has room for.
        patience: Seconds without a sign of progress after which a run is ended as failed.
        on_event: Called with everything that happens.
        options: The cluster, and what of it a run gets.

    Raises:
        ValueError: Ray is not installed or does not answer, or the cluster can never run a task.
        KeyboardInterrupt: passed on after every task has saved its run.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be at least 1; leave it out for as many as the cluster has room for")
    given = {folder.resolve(): folder for folder in folders}

    def tell(event: Event) -> None:
        on_event(replace(event, run=given[event.run]))

    ray = _connect(options)
    try:
        wants = _resources(ray, options, folders)
        task = ray.remote(_train).options(**wants, max_retries=RETRIES)
        waiting, flying = list(given), dict[Any, Watch]()
        try:
            while waiting or flying:
                while waiting and len(flying) < (workers or len(given)):
                    folder = waiting.pop(0)
                    if reason := cancelled(folder):
                        tell(Event(kind="cancelled", run=folder, reason=reason))
                    else:
                        flying[task.remote(str(folder), int(wants["num_cpus"]), patience)] = Watch(folder)
                _look(ray, flying, tell)
        except BaseException:
            _drain(ray, list(flying))
            raise
    finally:
        ray.shutdown()


def _train(folder: str, threads: int, patience: float) -> tuple[str, str]:
    """Train a run on the node that Ray has chosen; return how it ended, and why."""
    ends: list[Event] = []

    def keep(event: Event) -> None:
        if event.kind not in ("started", "progress"):
            ends.append(event)

    train_on([Slot(threads=threads)], [Path(folder)], patience=patience, on_event=keep)
    return ends[-1].kind, ends[-1].reason


def _connect(options: RayOptions) -> Any:
    try:
        ray = importlib.import_module("ray")
    except ModuleNotFoundError:
        raise ValueError("the executor ray needs Ray; install it with `pip install 'isoflop[ray]'`") from None
    try:
        ray.init(address=options.address, log_to_driver=False, logging_level="WARNING")
    except ConnectionError as error:
        raise ValueError(f"no Ray answers at address={options.address}: {error}; start one with `ray start`") from None
    return ray


def _resources(ray: Any, options: RayOptions, folders: Sequence[Path]) -> dict[str, float]:
    """What a task asks for.

    Raises:
        ValueError: no node could ever grant it, so that the tasks would wait without end.
    """
    has = ray.cluster_resources()
    gpus, devices = options.gpus_per_run, max(map(devices_of, folders))
    if gpus is None:
        gpus = float(devices) if has.get("GPU") and read_run(folders[0]).train.device != "cpu" else 0.0
    elif 0 < gpus < devices > 1:
        raise ValueError(f"gpus_per_run={gpus:g}, but a run has devices={devices}, one GPU each; leave it out")
    wants = {"CPU": float(options.cpus_per_run * devices), "GPU": gpus}
    for name, number in wants.items():
        if number > has.get(name, 0.0):
            raise ValueError(
                f"a run asks for {number:g} {name} of a cluster that has {has.get(name, 0.0):g}; ask for less"
            )
    return {"num_cpus": wants["CPU"], "num_gpus": wants["GPU"]}


def _look(ray: Any, flying: dict[Any, Watch], tell: Callable[[Event], None]) -> None:
    """Wait a moment, and tell what has happened meanwhile."""
    ready, _ = ray.wait(list(flying), num_returns=len(flying), timeout=TICK)
    for watch in flying.values():
        if progress := watch.look():
            _start(watch, tell)
            tell(progress)
    for task in ready:
        watch = flying.pop(task)
        _start(watch, tell)
        tell(_end(ray, task, watch.run))


def _start(watch: Watch, tell: Callable[[Event], None]) -> None:
    if not watch.started:
        watch.started = True
        tell(Event(kind="started", run=watch.run))


def _end(ray: Any, task: Any, run: Path) -> Event:
    """How a task ended: as its folder says, as it says itself, or as Ray says of one that is lost."""
    try:
        kind, reason = ray.get(task)
    except ray.exceptions.OutOfMemoryError as error:
        kind, reason = "failed", f"out of memory: {_first_line(error)}"
    except ray.exceptions.RayError as error:
        kind, reason = "failed", f"{type(error).__name__}: {_first_line(error)}"
    return end(run) or Event(kind="failed" if kind == "done" else kind, run=run, reason=reason)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else "Ray gives no reason"


def _drain(ray: Any, tasks: Sequence[Any]) -> None:
    """Ask every task to save its checkpoint, as Ctrl-C asks it, and wait for it."""
    for task in tasks:
        ray.cancel(task)
    if tasks:
        ray.wait(list(tasks), num_returns=len(tasks), timeout=DRAIN)
