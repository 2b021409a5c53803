"""Records from elsewhere, one file per format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from isoflop.record import Records
from isoflop.sources.course import PATTERN, read_records
from isoflop.sources.folder import read_folder
from isoflop.sources.table import read_table


class Source(NamedTuple):
    """A kind of place that records come from."""

    what: str
    """For the eye."""
    fits: Callable[[Path], bool]
    """Whether a path looks like one."""
    read: Callable[[Path], Records]


def read(source: str, *, series: str | None = None) -> Records:
    """Read the runs of a study, a table, or the course's records.

    Args:
        source: Path of a file or folder.
        series: Which series of a table that has several.

    Raises:
        ValueError: no format fits the path, or its content is not as it should be.
    """
    path = Path(source)
    path.stat()  # a missing path is the system's own error
    if series is not None and path.suffix in (".csv", ".json"):
        return read_table(path, series)
    if series is not None:
        raise ValueError(f"--series {series!r} chooses rows of a CSV or JSON table, and {path} is none; leave it out")
    for kind in SOURCES:
        if kind.fits(path):
            return kind.read(path)
    raise ValueError(f"{path} is no source of runs; give {', or '.join(kind.what for kind in SOURCES)}")


SOURCES: tuple[Source, ...] = (
    Source("a table in CSV", lambda path: path.suffix == ".csv", read_table),
    Source("a table in JSON", lambda path: path.suffix == ".json", read_table),
    Source(f"the course's {PATTERN}", lambda path: path.suffix == ".npy", lambda path: read_records([path])),
    Source(
        f"a folder of {PATTERN}",
        lambda path: any(path.glob(PATTERN)),
        lambda path: read_records(sorted(path.glob(PATTERN))),
    ),
    Source("a study or another folder of runs", Path.is_dir, read_folder),
)
