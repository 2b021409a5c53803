"""The log of a run while it is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TAIL = 4096
"""Bytes at the end of a log in which its last line is looked for."""


def last_line(log: Path) -> dict[str, Any] | None:
    """Return the last whole line of a run's log that tells of training; None before the first."""
    with log.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - TAIL))
        lines = file.read().splitlines(keepends=True)
    for line in reversed(lines):
        # the last one may be half written, the first one cut
        if line.startswith(b"{") and line.endswith(b"}\n") and b'"train_loss"' in line:
            told: dict[str, Any] = json.loads(line)
            return told
    return None
