"""Who trains a run: one owner at a time, on one machine or many, and a late one is turned away."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import filelock

BEAT = 10.0
"""Seconds between signs of life."""
EXPIRED = 60.0
"""Seconds without a sign of life after which another machine may take the run over; six beats, for a slow disk."""


class Lease:
    """The right to train a run, which ends when another takes it.

    A lease is a file with a number, made exclusively; whoever holds the highest number owns the run (the fencing
    tokens of distributed locks). Its time is the sign of life.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self.path = _path(folder, number)
        self._ended = threading.Event()

    def check(self) -> None:
        """Make sure that the run is still ours, before something is written into its folder.

        Raises:
            ValueError: another process took it over while this one was silent.
        """
        if not self.path.exists():
            raise ValueError(
                f"{self.path.parent} was taken over by another process while this one gave no sign of life; "
                "what it did since its last checkpoint is dropped"
            )

    def beat(self, every: float) -> None:
        """Give signs of life until the lease ends."""
        while not self._ended.wait(every):
            with contextlib.suppress(FileNotFoundError):
                os.utime(self.path)

    def end(self) -> None:
        """Let the run go."""
        self._ended.set()
        self.path.unlink(missing_ok=True)


@contextmanager
def hold(folder: Path, *, beat: float = BEAT, expired: float = EXPIRED) -> Iterator[Lease]:
    """Own a run while the block lasts.

    A lock that the kernel lets go with its process tells at once whether an owner on this machine lives. An owner on
    another machine counts as dead after `expired` seconds without a sign of life, by the clock of the disk that both
    write to.

    Raises:
        ValueError: another process owns the run.
    """
    try:
        with filelock.FileLock(folder / "lock", timeout=0):
            lease = _take(folder, expired)
            heart = threading.Thread(target=lease.beat, args=(beat,), daemon=True)
            heart.start()
            try:
                yield lease
            finally:
                lease.end()
                heart.join()
    except filelock.Timeout:
        raise ValueError(f"{folder} is being trained by another process; wait for it or stop it") from None


def held(folder: Path, *, expired: float = EXPIRED) -> bool:
    """Whether somebody trains a run now: its lease gave a sign of life not long ago."""
    silences = []
    for number in _numbers(folder):
        with contextlib.suppress(FileNotFoundError):
            silences.append(time.time() - _path(folder, number).stat().st_mtime)
    return min(silences, default=expired) < expired


def _take(folder: Path, expired: float) -> Lease:
    """Make the lease with the next number, if the last one's owner is gone."""
    last = max(_numbers(folder), default=0)
    if last:
        host, silent = _owner(_path(folder, last)), _silence(_path(folder, last))
        if host != socket.gethostname() and silent < expired:
            raise ValueError(
                f"{folder} is being trained by another process, on {host}, which gave a sign of life {silent:.0f} s "
                f"ago; wait for it or stop it (after {expired:.0f} s of silence the run is taken over)"
            )
    lease = Lease(folder, last + 1)
    handle, beside = tempfile.mkstemp(prefix=".lease.", dir=folder)
    with os.fdopen(handle, "w") as file:
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
    try:
        os.link(beside, lease.path)  # exclusive on NFS too, where O_EXCL may not be
    except FileExistsError:
        raise ValueError(f"{folder} is being trained by another process, which was faster; wait for it") from None
    finally:
        os.unlink(beside)
    for number in _numbers(folder):
        if number <= last:
            _path(folder, number).unlink(missing_ok=True)
    return lease


def _path(folder: Path, number: int) -> Path:
    return folder / f"lease-{number:06d}.json"


def _numbers(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("lease-")) for path in folder.glob("lease-[0-9]*.json")]


def _owner(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["host"])
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown machine"


def _silence(path: Path) -> float:
    """Seconds since a lease's last sign of life, by the clock of its own disk."""
    with tempfile.NamedTemporaryFile(prefix=".clock.", dir=path.parent) as now:
        try:
            return max(0.0, os.stat(now.name).st_mtime - path.stat().st_mtime)
        except FileNotFoundError:
            return 0.0  # it ended just now, and whoever comes again finds out
