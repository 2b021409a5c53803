"""Records from elsewhere, one file per format: `read(source)` knows which by the file's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from isoflop.record import Records
from isoflop.sources.board import EVENTS, read_board
from isoflop.sources.columns import GUESSED, Columns
from isoflop.sources.course import PATTERN, read_npy, read_npys
from isoflop.sources.export import is_export, read_export
from isoflop.sources.folder import read_folder
from isoflop.sources.table import read_csv, read_json_table, read_parquet
from isoflop.sources.wandb import OFFLINE, read_wandb


def read(source: str | Path, *, series: str | None = None, columns: Columns = GUESSED) -> Records:
    """Read the runs of a study's folder, a table (CSV, JSON, Parquet), TensorBoard's or W&B's folder, or the course's.

    Args:
        source: Folder of a study, of runs or of `scaling_records_*.npy`, or a file.
        series: The series of a table that holds several; runs of different series never share a law.
        columns: Which columns mean what, where their names do not tell.

    Raises:
        ValueError: nothing there, nothing readable, or a number that no run can have; the sentence names the place.
    """
    path = Path(source)
    if not path.exists():
        raise ValueError(
            f"{source} does not exist; give a study's folder, a CSV or JSON table, or a .npy of the course"
        )
    if path.is_dir():
        own = any(path.rglob("record.json"))  # found at once in a study of many runs, where a tracker's files never are
        if not own and any(path.rglob(EVENTS)):
            return read_board(path, series, columns)
        if not own and any(path.rglob(OFFLINE)):
            return read_wandb(path, series, columns)
        if columns != GUESSED:
            raise ValueError(
                f"columns are said of {source}, but it is a folder of runs, which has none; leave them out"
            )
        if series is not None:
            raise ValueError(f"series={series!r} picks rows of a table, but {source} is a folder; leave it out")
        if any(path.glob(PATTERN)):
            return read_npys(sorted(path.glob(PATTERN)))
        if not any(any(path.glob(f"{above}{name}")) for above in ("", "*/", "runs/*/") for name in RUN_FILES):
            raise ValueError(f"{path} {_holds(path)}")
        return read_folder(path)
    reader = SOURCES.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{source} is of no known kind; it should end in one of {', '.join(SOURCES)}, or be a folder")
    return reader(path, series, columns)


def _read_json(path: Path, series: str | None, columns: Columns) -> Records:
    return read_export(path) if is_export(path) else read_json_table(path, series, columns)


def _holds(path: Path) -> str:
    """Say what a folder without runs holds instead, and what to do."""
    remedy = "give a study's folder, or a file that is a table"
    if (path / "study.json").exists():
        return f"is a study of which no run has begun; `isoflop study run {path}` trains them"
    if deeper := sorted({file.parents[1] for name in RUN_FILES for file in path.rglob(name)}):
        study = deeper[0].parent if deeper[0].name == "runs" else deeper[0]
        return f"holds no runs itself, but {study} does; {remedy}"
    tables = sorted(file.name for file in path.iterdir() if file.suffix.lower() in SOURCES)
    return f"holds no runs{f', but tables such as {tables[0]}' if tables else ''}; {remedy}"


RUN_FILES = ("record.json", "config.json")
"""What a run's folder holds."""
SOURCES: Mapping[str, Callable[[Path, str | None, Columns], Records]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".json": _read_json,
    ".npy": read_npy,
    ".parquet": read_parquet,
}
