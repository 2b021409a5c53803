"""A folder of runs that `isoflop train` or a study left."""

from __future__ import annotations

from pathlib import Path

from isoflop.record import Record, Records

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
    folders = sorted({file.parent for name in ("record.json", "config.json") for file in parent.glob(f"*/{name}")})
    runs, left_out = [], []
    for folder in folders:
        reason = _reason(folder)
        if reason:
            left_out.append(f"{folder.name}: {reason}")
        else:
            runs.append(Record.read(folder / "record.json"))
    if not runs:
        said = f" ({'; '.join(left_out[:SHOWN])}{' and so on' if len(left_out) > SHOWN else ''})" if left_out else ""
        raise ValueError(f"{path} has no complete run{said}; train some, such as `isoflop study run FILE`")
    return Records(tuple(runs), source=str(path), convention="compute", left_out=tuple(left_out))


def _reason(folder: Path) -> str | None:
    """Say why a run cannot be fitted, or None if it can."""
    if folder.parent.resolve().name == TARGET:
        return "a target, which judges forecasts and is never fitted"
    if not (folder / "record.json").exists():
        return "not finished"
    record = Record.read(folder / "record.json")
    if record.status != "complete":
        return record.status
    return None if record.loss is not None else "it has no loss"
