"""A table of runs, CSV or JSON: columns of N, D, C and L under the names that people give them."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isoflop.files import read_json
from isoflop.record import Record, Records

ALIASES: Mapping[str, tuple[str, ...]] = {
    "params": ("params", "n", "parameters", "n_params", "num_params", "model_size", "model_params", "size"),
    "tokens": ("tokens", "d", "n_tokens", "num_tokens", "training_tokens", "train_tokens", "dataset_size"),
    "flops": ("flops", "c", "compute", "training_flop", "training_flops", "train_flops", "compute_budget"),
    "loss": ("loss", "l", "val_loss", "final_loss", "validation_loss", "eval_loss", "test_loss"),
    "budget": ("budget", "compute_budget", "flops_budget"),
    "group": ("group", "trunk"),
    "status": ("status",),
    "series": ("series",),
    "id": ("id", "run", "name"),
}
Row = Mapping[str, Any]


def read_csv(path: Path, series: str | None) -> Records:
    """Read a CSV whose first line names the columns.

    Raises:
        ValueError: the file is empty, a column is missing, or a row holds no possible run.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV in UTF-8 ({error}); export it again") from error
    return from_rows(rows, path, series)


def read_json_table(path: Path, series: str | None) -> Records:
    """Read a JSON list of objects, one a run (the course's isoflops_curves.json is one), or an object of columns.

    Raises:
        ValueError: the file is not such a list, a column is missing, or a row holds no possible run.
    """
    value = read_json(path)
    if isinstance(value, dict) and isinstance(value.get("runs"), list):
        value = value["runs"]
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        value = [dict(zip(value, row, strict=False)) for row in zip(*value.values(), strict=False)]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise ValueError(
            f"{path} is no table: it should be a list of objects, one a run, such as [{{'params': 1e6, …}}]"
        )
    return from_rows(value, path, series)


def from_rows(rows: Sequence[Row], path: Path, series: str | None) -> Records:
    """Turn rows into records; two of N, D and C suffice, the third is C = 6·N·D.

    Raises:
        ValueError: as `read_csv`.
    """
    if not rows:
        raise ValueError(f"{path} has no rows; a table needs a line for each run")
    columns = _columns(rows[0], path)
    if "series" in columns:
        rows = _one_series(rows, columns["series"], path, series)
    elif series is not None:
        raise ValueError(f"{path} has no column series, so series={series!r} cannot be picked; leave it out")
    records = [_record(row, columns, f"{path}, row {index}", index) for index, row in enumerate(rows, 1)]
    complete = tuple(record for record in records if record.status == "complete")
    left_out = tuple(f"{record.id}: {record.status}" for record in records if record.status != "complete")
    if not complete:
        raise ValueError(f"{path} has no complete run; the column {columns['status']} says otherwise for all of them")
    return Records(complete, source=str(path), convention="given", left_out=left_out)


def _columns(first: Row, path: Path) -> dict[str, str]:
    """Find the column of each meaning; a column serves one meaning, but a compute_budget is both flops and budget."""
    present = {str(name).strip().lower(): str(name) for name in first if name is not None}
    found = {
        meaning: present[alias]
        for meaning, aliases in ALIASES.items()
        for alias in [next((a for a in aliases if a in present), None)]
        if alias is not None
    }
    missing = [] if "loss" in found else ["loss"]
    sizes = [name for name in ("params", "tokens", "flops") if name not in found]
    if len(sizes) > 1:
        missing += sizes[: len(sizes) - 1] if sizes[0] != "params" else sizes
    if missing:
        raise ValueError(
            f"{path} has no column {' or '.join(sorted(set(missing)))}; it has {', '.join(present.values())}, "
            "and needs loss and two of params, tokens, flops"
        )
    return found


def _one_series(rows: Sequence[Row], column: str, path: Path, series: str | None) -> list[Row]:
    names = list(dict.fromkeys(str(row[column]) for row in rows))
    if series is None and len(names) == 1:
        return list(rows)
    if series not in names:
        said = "holds several series, which may not share a law" if series is None else f"has no series {series!r}"
        raise ValueError(f"{path} {said}; give --series and one of {', '.join(names)}")
    return [row for row in rows if str(row[column]) == series]


def _record(row: Row, columns: Mapping[str, str], where: str, index: int) -> Record:
    status = str(row.get(columns.get("status", ""), None) or "complete")
    if status not in ("complete", "diverged", "failed"):
        raise ValueError(f"{where}: {columns['status']}={status!r} should be complete, diverged or failed")
    numbers = {
        name: _number(row[columns[name]], columns[name], where)
        for name in ("params", "tokens", "flops", "budget")
        if name in columns and (name != "budget" or row[columns[name]] not in (None, ""))
    }
    loss = _number(row[columns["loss"]], columns["loss"], where) if status == "complete" else None
    if "flops" not in numbers:
        numbers["flops"] = 6 * numbers["params"] * numbers["tokens"]
    elif "tokens" not in numbers:
        numbers["tokens"] = numbers["flops"] / (6 * numbers["params"])
    elif "params" not in numbers:
        numbers["params"] = numbers["flops"] / (6 * numbers["tokens"])
    return Record(
        id=str(row.get(columns.get("id", ""), None) or f"row {index}"),
        params={"given": numbers["params"]},
        tokens=numbers["tokens"],
        flops=numbers["flops"],
        loss=loss,
        status=status,  # type: ignore[arg-type]  # one of the three, as checked above
        budget=numbers.get("budget"),
        group=str(row[columns["group"]]) if row.get(columns.get("group", "")) else None,
    )


def _number(value: Any, column: str, where: str) -> float:
    """Read a positive, finite number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {column}={value!r} is no number; correct it or drop the row") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {column}={value} must be positive and finite; correct it or drop the row")
    return number
