"""What a run's folder tells from outside, on any machine that sees it: how far it is, and how it ended."""

from __future__ import annotations

import contextlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from isoflop.config import read_run
from isoflop.data.tokens import open_configured
from isoflop.files import read_json
from isoflop.flops import train_steps
from isoflop.study.launch.event import Event, cancelled

TAIL = 4096
"""Bytes at the end of a log that are read for its last line."""


@dataclass
class Watch:
    """A run that something else trains."""

    run: Path
    moved: float = field(default_factory=time.monotonic)
    """When its log last changed, or it was begun."""
    size: int = 0
    """Bytes of its log that were seen."""
    steps: int | None = None
    """Steps that it will take, once it has shown that its tokens can be read."""
    started: bool = False
    """Whether it was told to have started."""

    def __post_init__(self) -> None:
        """Take what the log already holds as known."""
        self.size = self._log_bytes()

    def look(self) -> Event | None:
        """Return its progress if its log has changed since the last look."""
        size = self._log_bytes()
        if size == self.size:
            return None
        self.size, self.moved = size, time.monotonic()
        line = _last_step(self.run / "log.jsonl")
        if line is None:
            return None
        step, loss = line
        if self.steps is None:
            self.steps = _steps(self.run)
        return Event(kind="progress", run=self.run, step=step, steps=max(self.steps, step), loss=loss)

    def _log_bytes(self) -> int:
        try:
            return (self.run / "log.jsonl").stat().st_size
        except FileNotFoundError:
            return 0


def end(run: Path) -> Event | None:
    """Return how a run ended as its folder tells it: done, diverged or called off; None if it tells nothing."""
    path = run / "record.json"
    if path.exists():
        return Event(kind="diverged" if read_json(path).get("status") == "diverged" else "done", run=run)
    if reason := cancelled(run):
        return Event(kind="cancelled", run=run, reason=reason)
    return None


def devices_of(folder: Path) -> int:
    """Devices that train a run together; 1 where its configuration cannot be read, which its worker tells."""
    try:
        return read_run(folder).train.devices
    except (OSError, ValueError):
        return 1


def _last_step(log: Path) -> tuple[int, float] | None:
    """Step and training loss of the last whole line that has them."""
    with contextlib.suppress(FileNotFoundError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        for line in reversed(file.read().splitlines()):
            with contextlib.suppress(ValueError, KeyError, TypeError):
                told = json.loads(line)
                return int(told["step"]), float(told["train_loss"])
    return None


def _steps(run: Path) -> int:
    """Steps that a run will take; 0 where its folder does not say."""
    with contextlib.suppress(ValueError, OSError):
        config = read_run(run)
        tokens = open_configured(config.data, vocab_size=config.model.vocab_size)
        return train_steps(config.model, config.train, train_tokens=len(tokens.train))
    return 0
