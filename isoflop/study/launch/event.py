"""What executors tell of runs, and the mark by which a run is called off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from isoflop.files import read_json, write_json

CANCEL = "cancel.json"
"""In a run's folder: whoever trains it saves and stops, and nobody starts it, until the mark is removed."""
PATIENCE = 900.0
"""Seconds without a sign of progress after which a run hangs; the longest silence of a sound run is an evaluation."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a run."""

    kind: Literal["started", "progress", "done", "diverged", "stopped", "failed", "cancelled"]
    run: Path
    step: int = 0
    steps: int = 0
    loss: float | None = None
    """Training loss, nats per token, with progress."""
    reason: str = ""
    """Why it failed, or was called off."""


@runtime_checkable
class Executor(Protocol):
    """Trains run folders, in the order given, until each is done, has failed or was called off."""

    def __call__(
        self, folders: Sequence[Path], *, workers: int | None, patience: float, on_event: Callable[[Event], None]
    ) -> None:
        """Return when nothing more will happen to any of the folders."""


def cancel(run: Path, reason: str) -> None:
    """Call a run off: its trainer saves a checkpoint and stops, wherever it is."""
    write_json(run / CANCEL, {"reason": reason})


def cancelled(run: Path) -> str | None:
    """Why a run was called off; None if it was not."""
    path = run / CANCEL
    return str(read_json(path)["reason"]) if path.exists() else None
