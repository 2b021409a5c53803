"""Which series a source holds, for whoever goes through them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isoflop.files import read_json
from isoflop.sources.columns import ALIASES, GUESSED, Columns
from isoflop.sources.table import cells, parquet_rows


def names(source: str | Path, columns: Columns = GUESSED) -> tuple[str | None, ...]:
    """Return the series of a table in the order of their first rows; (None,) for a source that knows no series.

    What cannot be read is left to `isoflop.sources.read`, which says why.
    """
    path = Path(source)
    rows = _rows(path) if path.is_file() else []
    wanted = ALIASES["series"]
    usual = next((name for name in (rows[0] if rows else {}) if str(name).strip().lower() in wanted), None)
    column = columns.series_column or usual
    return tuple(dict.fromkeys(str(row.get(column)) for row in rows)) if column is not None else (None,)


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a CSV, a Parquet file or a JSON list of objects; columns of a JSON object are turned into rows."""
    if path.suffix.lower() in (".csv", ".tsv", ".parquet"):
        try:
            return parquet_rows(path) if path.suffix.lower() == ".parquet" else cells(path)[0]
        except ValueError:
            return []
    value = read_json(path) if path.suffix.lower() == ".json" else []
    value = value.get("runs", value) if isinstance(value, dict) else value
    if isinstance(value, dict) and all(isinstance(column, list) for column in value.values()):
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=False)]
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []
