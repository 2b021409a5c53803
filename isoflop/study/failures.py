"""What went wrong with a run, kept in its folder; one that fails twice in the same way is not tried again."""

from __future__ import annotations

import json
import re
from pathlib import Path

from isoflop.files import read_json_lines
from isoflop.study.launch.event import CANCEL

FAILURES = "failures.jsonl"
MOST = 3
"""Failures of any kind after which a run is left alone."""


def note(run: Path, reason: str) -> None:
    """Add a failure to a run's folder."""
    with (run / FAILURES).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"reason": reason}) + "\n")


def failures(run: Path) -> list[str]:
    """Reasons of a run's failures, oldest first; a line that a crash cut short is passed over."""
    return [line["reason"] for line in read_json_lines(run / FAILURES)]


def quarantined(run: Path) -> str | None:
    """Why a run is left alone: it failed twice running in the same way, or `MOST` times; None if it may be tried."""
    told = failures(run)
    if len(told) >= 2 and _way(told[-1]) == _way(told[-2]):
        return f"failed twice in the same way: {told[-1]}"
    return f"failed {len(told)} times, last: {told[-1]}" if len(told) >= MOST else None


def _way(reason: str) -> str:
    """A reason without its numbers: sizes, process ids and steps differ each time that one thing goes wrong."""
    return re.sub(r"\d+(\.\d+)?", "#", reason)


def forgive(run: Path) -> bool:
    """Forget a run's failures and its cancel mark; return whether there was any."""
    marks = [path for path in (run / FAILURES, run / CANCEL) if path.exists()]
    for path in marks:
        path.unlink()
    return bool(marks)
