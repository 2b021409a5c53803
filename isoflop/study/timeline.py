"""When a study's runs began and ended: lines that are only ever added, which tell whether workers stood idle."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from isoflop.files import read_json, read_json_lines, write_json
from isoflop.study.launch.event import Event

TIMES = "times.jsonl"
"""In a study's folder: start and end of every run, seconds since 1970."""
PLANNED = "plan.json"
"""In a study's folder: what `isoflop study plan` measured there last."""
ENDS = ("done", "diverged", "stopped", "failed", "cancelled")


class Stretch(NamedTuple):
    """A run on a worker, from its start to its end."""

    run: str
    began: float
    ended: float


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """What a study took, the times when nobody drove it left out."""

    took: float
    """Seconds in which at least one run was under way."""
    workers: int
    """The most runs that were under way at once."""
    busy: float
    """Part of the workers' time, from the first run to the last, in which they had one."""


def note(run: Path, kind: str) -> None:
    """Add a line: `started`, or how it ended."""
    study = run.parent.parent
    line = json.dumps({"at": round(time.time(), 3), "kind": kind, "run": f"{run.parent.name}/{run.name}"})
    with (study / TIMES).open("ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


def note_event(event: Event) -> None:
    """Add what an executor tells, progress left out."""
    if event.kind == "started" or event.kind in ENDS:
        note(event.run, event.kind)


def read_stretches(folder: Path, *, place: str = "runs") -> list[Stretch]:
    """Return the stretches of a study's runs, or of its target; one whose driver was killed has no end, and is none."""
    begun, out = dict[str, float](), list[Stretch]()
    for said in read_json_lines(folder / TIMES):
        if said["kind"] == "started":
            begun[said["run"]] = said["at"]
        elif said["run"] in begun:
            out.append(Stretch(said["run"], begun.pop(said["run"]), said["at"]))
    return [stretch for stretch in out if stretch.run.startswith(f"{place}/")]


def timeline(stretches: Sequence[Stretch]) -> Timeline | None:
    """Sum up; None where no run has ended."""
    marks = sorted([(s.began, 1) for s in stretches] + [(s.ended, -1) for s in stretches])
    took, working, most, under_way = 0.0, 0.0, 0, 0
    for (at, change), (after, _) in zip(marks, [*marks[1:], *marks[-1:]], strict=True):
        under_way += change
        most = max(most, under_way)
        took += (after - at) * (under_way > 0)
        working += (after - at) * under_way
    return Timeline(took=took, workers=most, busy=working / (most * took)) if took else None


def write_planned(folder: Path, wall_seconds: float) -> None:
    """Keep what the study's runs are expected to take."""
    write_json(folder / PLANNED, {"wall_seconds": wall_seconds})


def read_planned(folder: Path) -> float | None:
    """Return what was expected, seconds; None where nobody planned.

    Raises:
        ValueError: the file holds no plan.
    """
    path = folder / PLANNED
    if not path.exists():
        return None
    try:
        return float(read_json(path)["wall_seconds"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no plan; remove it, or let `isoflop study plan` write it again") from error


def told(line: Timeline, planned: float | None) -> str:
    """Say what was expected, what it took, and how busy the workers were."""
    expected = "" if planned is None else f"planned {_minutes(planned)}, "
    workers = "1 worker" if line.workers == 1 else f"{line.workers} workers"
    return f"{expected}took {_minutes(line.took)} on {workers}, busy {line.busy:.0%} of it"


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
