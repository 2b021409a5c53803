"""A folder of runs that `isoflop train` or a study left."""

from __future__ import annotations

from pathlib import Path

from isoflop.record import Record, Records
from isoflop.sources.index import read_records

TARGET = "target"
"""Folder of the runs that forecasts are judged by; a forecast that has seen them is none."""
SHOWN = 3
"""Runs that are named where none can be fitted."""


def read_folder(path: Path) -> Records:
    """Read the complete runs in STUDY/runs, or in the folder itself.

    Raises:
        ValueError: no run there is complete.
    """
    if (path / "config.json").exists():
        raise ValueError(f"{path} is a single run, from which no law follows; give the folder that holds several")
    parent = path / "runs" if (path / "runs").is_dir() else path
    records = read_records(parent)
    begun = {file.parent.name for file in parent.glob("*/config.json")}
    runs, left_out = [], []
    for name in sorted(begun | set(records)):
        reason = _reason(parent / name, records.get(name))
        if reason:
            left_out.append(f"{name}: {reason}")
        else:
            runs.append(records[name])
    if not runs:
        said = f" ({'; '.join(left_out[:SHOWN])}{' and so on' if len(left_out) > SHOWN else ''})" if left_out else ""
        raise ValueError(f"{path} has no complete run{said}; train some, such as `isoflop study run FILE`")
    return Records(tuple(runs), source=str(path), left_out=tuple(left_out)).under("compute")


def unfit(record: Record) -> str | None:
    """Say why a record cannot be fitted, or None if it can."""
    if record.status != "complete":
        return record.status
    return None if record.loss is not None else "it has no loss"


def _reason(folder: Path, record: Record | None) -> str | None:
    if folder.parent.resolve().name == TARGET:
        return "a target, which judges forecasts and is never fitted"
    return "not finished" if record is None else unfit(record)
