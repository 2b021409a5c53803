"""Tables of runs in CSV or JSON, under whatever usual names their columns have."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from isoflop.files import read_json
from isoflop.record import Record, Records

Row = dict[str, Any]


def read_table(path: Path, series: str | None = None) -> Records:
    """Read a table of runs; two of N, D and C suffice, the third is C = 6ND.

    Raises:
        ValueError: a column is missing, a value is no positive number, or several series are there and none is chosen.
    """
    rows = _json_rows(path) if path.suffix == ".json" else _csv_rows(path)
    if not rows:
        raise ValueError(f"{path} holds no runs; give a table with a row for each run")
    columns = _columns(path, {name for _, row in rows for name in row})
    rows = _of_series(path, rows, columns, series)
    runs, left_out = [], []
    for where, row in rows:
        values = {field: row.get(column) for field, column in columns.items()}
        name, status = str(values.get("id") or where), str(values.get("status") or "complete")
        if status == "complete":
            runs.append(_record(f"{path}, {where}", name, values))
        else:
            left_out.append(f"{name}: {status}")
    return Records(tuple(runs), source=_said(path, columns, series), convention="given", left_out=tuple(left_out))


def _csv_rows(path: Path) -> list[tuple[str, Row]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            return [
                (f"line {reader.line_num}", {_plain(name): value for name, value in row.items() if name is not None})
                for row in reader
            ]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a CSV table ({error}); save it as UTF-8 text with commas") from error


def _json_rows(path: Path) -> list[tuple[str, Row]]:
    value = read_json(path)
    rows = value.get("runs") if isinstance(value, dict) else value
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} is not a list of runs; write [{{'params': …, 'tokens': …, 'loss': …}}, …]")
    return [
        (f"record {i}", {_plain(name): value for name, value in row.items()}) for i, row in enumerate(rows, start=1)
    ]


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _columns(path: Path, names: set[str]) -> dict[str, str]:
    """Find the column of each field."""
    columns = {
        field: next(alias for alias in aliases if alias in names)
        for field, aliases in ALIASES.items()
        if names & set(aliases)
    }
    known = [field for field in ("params", "tokens", "flops") if field in columns]
    if "loss" not in columns or len(known) < 2:
        missing = "loss" if "loss" not in columns else "two of params, tokens and flops"
        raise ValueError(
            f"{path} has no column for {missing} among {', '.join(sorted(names)) or 'none'}; name them params (N), "
            f"tokens (D), flops (C) and loss (L)"
        )
    return columns


def _of_series(
    path: Path, rows: list[tuple[str, Row]], columns: Mapping[str, str], series: str | None
) -> list[tuple[str, Row]]:
    """Keep the rows of one series: runs of different series share no law."""
    column = columns.get("series")
    known = list(dict.fromkeys(str(row.get(column)) for _, row in rows)) if column else []
    if series is None and len(known) <= 1:
        return rows
    chosen = [(where, row) for where, row in rows if column and str(row.get(column)) == series]
    if not chosen:
        said = "needs one, since runs of different series share no law" if series is None else f"has no {series!r}"
        choices = f"choose one of {', '.join(known)}" if known else "it has no column of that name"
        raise ValueError(f"--series: {path} {said}; {choices}")
    return chosen


def _record(where: str, name: str, values: Mapping[str, Any]) -> Record:
    N, D, C = (_number(where, field, values.get(field)) for field in ("params", "tokens", "flops"))
    loss = _number(where, "loss", values.get("loss"))
    if loss is None or [N, D, C].count(None) > 1:
        missing = "loss" if loss is None else "two of params, tokens and flops"
        raise ValueError(f"{where}: {missing} is empty; fill it in or leave the row out")
    if N is None and C is not None and D is not None:
        N = C / (6 * D)
    if D is None and C is not None and N is not None:
        D = C / (6 * N)
    assert N is not None and D is not None
    return Record(
        id=name,
        params={"given": N},
        tokens=D,
        flops=6 * N * D if C is None else C,
        loss=loss,
        budget=_number(where, "budget", values.get("budget")),
        group=str(values["group"]) if values.get("group") not in (None, "") else None,
    )


def _number(where: str, field: str, value: Any) -> float | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {field}={value} must be a positive number; correct it or leave the row out")
    return number


def _said(path: Path, columns: Mapping[str, str], series: str | None) -> str:
    """Name the file and say which column was taken for what."""
    parts = [
        f"{letter} = {columns[field]}" if field in columns else f"{letter} by C = 6ND"
        for letter, field in (("N", "params"), ("D", "tokens"), ("C", "flops"), ("L", "loss"))
    ]
    return f"{path} ({', '.join(([f'series {series}'] if series else []) + parts)})"


ALIASES: Mapping[str, tuple[str, ...]] = {
    "params": ("params", "n", "parameters", "n_params", "num_params", "model_size", "nparams", "num_parameters"),
    "tokens": ("tokens", "d", "n_tokens", "num_tokens", "train_tokens", "training_tokens", "total_tokens"),
    "flops": ("flops", "c", "compute", "train_flops", "training_flops", "total_flops", "compute_budget"),
    "loss": ("val_loss", "validation_loss", "eval_loss", "final_loss", "loss", "l", "test_loss"),
    "budget": ("budget", "flop_budget", "compute_budget"),
    "group": ("group", "trunk"),
    "status": ("status",),
    "series": ("series",),
    "id": ("id", "run_id", "run", "name"),
}
"""Names of columns by field, preferred first; letter case, spaces and hyphens do not matter."""
