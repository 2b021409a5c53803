"""Records from elsewhere, one file per format: `read(source)` knows which by the file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from isoflop.record import Record, Records
from isoflop.sources import course, table


def read(source: str | Path, *, series: str | None = None) -> Records:
    """Read the runs of a study's folder, a table (CSV or JSON), or a file of the course.

    Args:
        source: Folder of a study or of runs, or a file.
        series: The series of a table that holds several; runs of different series never share a law.

    Raises:
        ValueError: nothing there, nothing readable, or a number that no run can have; the sentence names the place.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(
            f"{source} does not exist; give a study's folder, a CSV or JSON table, or a .npy of the course"
        )
    if path.is_dir():
        return read_folder(path)
    reader = SOURCES.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{source} is of no known kind; it should end in one of {', '.join(SOURCES)}, or be a folder")
    return reader(path, series)


def read_folder(folder: Path) -> Records:
    """Read every record of a study (`runs/*/record.json`) or of a folder of runs; `target/` is never among them.

    Raises:
        ValueError: the folder has no complete run.
    """
    runs = folder / "runs" if (folder / "runs").is_dir() else folder
    records = [Record.read(path) for path in sorted(runs.glob("*/record.json")) if path.parent.parent.name != "target"]
    complete = tuple(record for record in records if record.status == "complete" and record.loss is not None)
    left_out = tuple(f"{record.id}: {record.status}" for record in records if record not in complete)
    if not complete:
        raise ValueError(f"{folder} has no complete run (no */record.json); train some, such as isoflop study run FILE")
    return Records(complete, source=str(folder), convention="compute", left_out=left_out)


SOURCES: Mapping[str, Callable[[Path, str | None], Records]] = {
    ".csv": table.read_csv,
    ".json": table.read_json_table,
    ".npy": course.read_npy,
}
