"""A table of runs, CSV, JSON or Parquet: columns of N, D, C and L under the names that people give them."""

from __future__ import annotations

import csv
import importlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from isoflop.files import read_json
from isoflop.record import SYMBOLS, ParamConvention, Record, Records

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What is said about a table beyond what its names tell."""

    params_column: str | None = None
    """Column of N; None: guessed from usual names, like the others."""
    tokens_column: str | None = None
    """Column of D, training tokens."""
    flops_column: str | None = None
    """Column of C, training FLOPs."""
    loss_column: str | None = None
    """Column of the loss, nats per token."""
    bytes_per_token: float | None = None
    """Turns a loss in bits per byte into nats per token."""

    @property
    def given(self) -> dict[str, str]:
        """Columns by meaning, those that are named."""
        named = {meaning: getattr(self, f"{meaning}_column") for meaning in ("params", "tokens", "flops", "loss")}
        return {meaning: name for meaning, name in named.items() if name is not None}


GUESSED = Columns()
SPARE = "\0beyond"
"""Where cells beyond the named columns go."""


def read_csv(path: Path, series: str | None, said: Columns = GUESSED) -> Records:
    """Read a CSV whose first line names the columns.

    Raises:
        ValueError: the file is empty, a column is missing, or a row holds no possible run.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file, restkey=SPARE))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV in UTF-8 ({error}); export it again") from error
    if long := [index for index, row in enumerate(rows, 1) if SPARE in row]:
        raise ValueError(
            f"{path}, row {long[0]} has more cells than the first line has names; write 1.5 for 1,5, or quote the cell"
        )
    return from_rows(rows, path, series, said)


def read_json_table(path: Path, series: str | None, said: Columns = GUESSED) -> Records:
    """Read a JSON list of objects, one a run (the course's isoflops_curves.json is one), or an object of columns.

    Raises:
        ValueError: the file is not such a list, a column is missing, or a row holds no possible run.
    """
    value = read_json(path)
    if isinstance(value, dict) and isinstance(value.get("runs"), list):
        value = value["runs"]
    if isinstance(value, dict) and value and all(isinstance(column, list) for column in value.values()):
        if len({len(column) for column in value.values()}) > 1:
            lengths = ", ".join(f"{name} {len(column)}" for name, column in value.items())
            raise ValueError(f"{path} has columns of different lengths ({lengths}); give every run a value in each")
        value = [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        raise ValueError(
            f"{path} is no table: it should be a list of objects, one a run, such as [{{'params': 1e6, …}}]"
        )
    return from_rows(value, path, series, said)


def read_parquet(path: Path, series: str | None, said: Columns = GUESSED) -> Records:
    """Read a Parquet file; pyarrow, the extra `parquet`, is imported here.

    Raises:
        ValueError: pyarrow is not installed, or as `read_csv`.
    """
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError(f"{path} needs pyarrow; install it with `pip install 'isoflop[parquet]'`") from None
    try:
        rows = parquet.read_table(path).to_pylist()
    except (OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is no Parquet file ({error}); export it again") from error
    return from_rows(rows, path, series, said)


def from_rows(rows: Sequence[Row], path: Path, series: str | None, said: Columns = GUESSED) -> Records:
    """Turn rows into records; two of N, D and C suffice, the third is C = 6ND, and `source` says which.

    Raises:
        ValueError: as `read_csv`.
    """
    if not rows:
        raise ValueError(f"{path} has no rows; a table needs a line for each run")
    columns = _columns(rows, path, said)
    numbered = _one_series(list(enumerate(rows, 1)), columns.get("series"), path, series)
    convention, counted = _convention([row for _, row in numbered], columns, path)
    records = [
        _record(row, columns, f"{path}, row {index}", f"row {index}", convention, said) for index, row in numbered
    ]
    complete = tuple(record for record in records if record.status == "complete")
    left_out = tuple(f"{record.id}: {record.status}" for record in records if record.status != "complete")
    if not complete:
        raise ValueError(f"{path} has no complete run; the column {columns['status']} says otherwise for all of them")
    return Records(complete, source=_said(path, columns, series, counted), convention=convention, left_out=left_out)


def _columns(rows: Sequence[Row], path: Path, said: Columns) -> dict[str, str]:
    """Find the column of each meaning; a column serves one meaning, but a compute_budget is both flops and budget."""
    names = dict.fromkeys(str(name) for row in rows for name in row if name is not None)
    present = {re.sub(r"[\s/.-]+", "_", name.strip().lower()): name for name in names}
    found = {
        meaning: next(present[alias] for alias in aliases if alias in present)
        for meaning, aliases in ALIASES.items()
        if not present.keys().isdisjoint(aliases)
    }
    for meaning, name in said.given.items():
        if name not in names:
            raise ValueError(f"{path} has no column {name!r} to be its {meaning}; it has {', '.join(names)}")
        found[meaning] = name
    if "params" not in found and (count := next((count for count in COUNTS if f"params {count}" in found), None)):
        found["params"] = found[f"params {count}"]
    if "loss" not in found and "bits_per_byte" in found:
        if said.bytes_per_token is None and "bytes_per_token" not in found:
            raise ValueError(
                f"{path} has its loss in bits per byte ({found['bits_per_byte']}); give --bytes-per-token, or a column "
                "bytes_per_token, to turn it into nats per token"
            )
        found["loss"] = found["bits_per_byte"]
    sizes = [name for name in ("params", "tokens", "flops") if name not in found]
    missing = ["loss"] if "loss" not in found else sizes if len(sizes) > 1 else []
    if missing:
        raise ValueError(
            f"{path} has no column {' or '.join(missing)}; it has {', '.join(present.values())}, "
            "and needs loss and two of params, tokens, flops (name them with --params-column and so on)"
        )
    return found


def _convention(rows: Sequence[Row], columns: Mapping[str, str], path: Path) -> tuple[ParamConvention, str | None]:
    """Return how N is counted, and in what words the table says it: all rows must say the same."""
    words = sorted({_text(row, columns, "convention") or "" for row in rows})
    if len(words) > 1:
        raise ValueError(
            f"{path} counts N in several ways ({', '.join(word or 'not said' for word in words)}), which no law mixes; "
            "keep the rows of one, by a column series or in files of their own"
        )
    for count in COUNTS:
        if columns.get(f"params {count}", "") == columns.get("params"):
            return count, None
    word = words[0]
    named: dict[str, ParamConvention] = {name: name for name in get_args(ParamConvention)}
    return {**named, **SYNONYMS}.get(word.lower(), "given"), word or None


def _one_series(
    rows: list[tuple[int, Row]], column: str | None, path: Path, series: str | None
) -> list[tuple[int, Row]]:
    """Keep the rows of one series: a law holds within one."""
    if column is None:
        if series is not None:
            raise ValueError(f"{path} has no column series, so series={series!r} cannot be picked; leave it out")
        return rows
    names = list(dict.fromkeys(str(row.get(column)) for _, row in rows))
    if series is None and len(names) == 1:
        return rows
    if series not in names:
        said = "holds several series, which may not share a law" if series is None else f"has no series {series!r}"
        raise ValueError(f"{path} {said}; give --series and one of {', '.join(names)}")
    return [(index, row) for index, row in rows if str(row.get(column)) == series]


def _record(
    row: Row, columns: Mapping[str, str], where: str, name: str, convention: ParamConvention, said: Columns
) -> Record:
    status = _text(row, columns, "status") or "complete"
    status = STATES.get(status.lower(), status)
    if status not in ("complete", "diverged", "failed"):
        raise ValueError(f"{where}: {columns['status']}={status!r} should be complete, diverged or failed")
    given = {field: _number(row, columns, field, where) for field in ("params", "tokens", "flops", "budget")}
    loss = _loss(row, columns, where, said) if status == "complete" else None
    # a run that failed may lack numbers, and is not fitted anyway
    N, D, C = _three(given, where) if status == "complete" else (math.nan, math.nan, math.nan)
    if status == "complete" and loss is None:
        raise ValueError(f"{where}: {columns['loss']} is empty; fill it in or drop the row")
    return Record(
        id=_text(row, columns, "id") or name,
        params={**_counts(row, columns, where), "given": N, convention: N},
        tokens=D,
        flops=C,
        loss=loss,
        status=status,  # type: ignore[arg-type]  # one of the three, as checked above
        budget=given["budget"],
        group=_text(row, columns, "group"),
        unique_tokens=_unique(row, columns, D, where),
        measured=_measured(row, columns),
    )


def _measured(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    """Take what else a table may say of a run; a cell that is no such number is as good as empty."""
    final = _text(row, columns, "is_final")
    found: dict[str, Any] = {} if final is None else {"is_final": final in TRUE}
    for name in MEASURED:
        try:
            number = float(_text(row, columns, name) or "nan")
        except ValueError:
            continue
        if math.isfinite(number) and number >= 0 and (number > 0 or name == "seed"):
            found[name] = int(number) if name == "seed" else number
    return found


def _counts(row: Row, columns: Mapping[str, str], where: str) -> dict[str, float]:
    """Return N by the other counts that have a column."""
    counts = {count: _number(row, columns, f"params {count}", where) for count in COUNTS}
    return {count: N for count, N in counts.items() if N is not None}


def _loss(row: Row, columns: Mapping[str, str], where: str, said: Columns) -> float | None:
    """Return L in nats per token; bits per byte · ln 2 · bytes per token."""
    loss = _number(row, columns, "loss", where)
    if loss is None or columns["loss"] != columns.get("bits_per_byte"):
        return loss
    own = _number(row, columns, "bytes_per_token", where)
    width = said.bytes_per_token if own is None else own
    if width is None:
        raise ValueError(f"{where}: {columns['bytes_per_token']} is empty; fill it in or give --bytes-per-token")
    return loss * math.log(2) * width


def _unique(row: Row, columns: Mapping[str, str], D: float, where: str) -> float | None:
    """Return U, from its column or from that of epochs; a run sees no more different tokens than tokens."""
    U, epochs = (_number(row, columns, meaning, where) for meaning in ("unique_tokens", "epochs"))
    U = D / epochs if U is None and epochs is not None else U
    return U if U is None else min(U, D)


def _three(given: Mapping[str, float | None], where: str) -> tuple[float, float, float]:
    """Return N, D and C, one of them by C = 6ND where it is not given."""
    N, D, C = given["params"], given["tokens"], given["flops"]
    if N is not None and D is not None:
        C = 6 * N * D if C is None else C
    elif N is not None and C is not None:
        D = C / 6 / N
    elif D is not None and C is not None:
        N = C / 6 / D
    if N is None or D is None or C is None:
        raise ValueError(f"{where}: two of params, tokens, flops are empty; fill one in or drop the row")
    if not all(LEAST < x < MOST for x in (N, D, C)):
        raise ValueError(
            f"{where}: params={N:g}, tokens={D:g} and flops={C:g} cannot be of one run; correct them or drop the row"
        )
    return N, D, C


def _text(row: Row, columns: Mapping[str, str], meaning: str) -> str | None:
    value = row.get(columns[meaning]) if meaning in columns else None
    return None if value is None else str(value).strip() or None


def _number(row: Row, columns: Mapping[str, str], meaning: str, where: str) -> float | None:
    """Read a positive, finite number; None where the cell is empty."""
    text = _text(row, columns, meaning)
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{where}: {columns[meaning]}={text!r} is no number; correct it or drop the row") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {columns[meaning]}={text} must be positive and finite; correct it or drop the row")
    if not LEAST < number < MOST:
        raise ValueError(f"{where}: {columns[meaning]}={text} is of no run; correct it or drop the row")
    return number


def _said(path: Path, columns: Mapping[str, str], series: str | None, counted: str | None) -> str:
    """Name the file, and what was taken for what."""
    parts = [
        f"{letter} = {columns[meaning]}" if meaning in columns else f"{letter} by C = 6ND"
        for letter, meaning in SYMBOLS.items()
        if letter in "NDCL"
    ]
    if columns["loss"] == columns.get("bits_per_byte"):
        parts.append("bits per byte turned into nats per token")
    if counted is not None:
        parts.append(f"N counted as {counted}")
    return f"{path} ({', '.join([f'series {series}'] * (series is not None) + parts)})"


ALIASES: Mapping[str, tuple[str, ...]] = {
    "params": (
        "params",
        "n",
        "parameters",
        "n_params",
        "num_params",
        "num_scaling_params",
        "model_size",
        "model_params",
        "nparams",
        "size",
    ),
    "tokens": (
        "tokens",
        "d",
        "n_tokens",
        "num_tokens",
        "tokens_trained",
        "tokens_seen",
        "training_tokens",
        "train_tokens",
        "dataset_size",
    ),
    "flops": (
        "flops",
        "c",
        "compute",
        "training_flop",
        "training_flops",
        "train_flops",
        "compute_budget",
        "flops_budget",
    ),
    # a table of a training log may have both, and forecasts are of the validation loss
    "loss": ("val_loss", "validation_loss", "eval_loss", "final_loss", "loss", "l", "test_loss"),
    "budget": ("budget", "compute_budget", "flops_budget"),
    "group": ("group", "trunk"),
    "unique_tokens": ("unique_tokens", "u", "unique", "data_size"),
    "epochs": ("epochs", "num_epochs", "n_epochs"),
    "is_final": ("is_final", "final"),
    "status": ("status", "state"),
    "seed": ("seed",),
    "lr": ("lr", "learning_rate", "peak_lr", "max_lr"),
    "steps": ("steps", "num_steps", "n_steps", "train_steps"),
    "seconds": ("seconds", "train_seconds"),
    "convention": ("param_convention", "params_convention", "convention"),
    "params total": ("params_total", "total_params", "num_total_params"),
    "params body": ("params_transformer", "params_no_embed", "params_non_embedding", "non_embedding_params"),
    "bits_per_byte": ("val_bpb", "bpb", "bits_per_byte", "val_bits_per_byte"),
    "bytes_per_token": ("bytes_per_token",),
    "series": ("series",),
    "id": ("id", "run_id", "run", "name"),
}
"""Names of columns by meaning, preferred first; letter case, spaces and hyphens do not matter."""

MEASURED = ("seed", "lr", "steps", "seconds")
"""Columns that no fit needs but a comparison (seed, seconds) or a choice of rates (lr, steps) does."""
TRUE = ("1", "1.0", "true", "True", "TRUE", "yes")
"""What a cell of is_final says where the schedule had ended."""

LEAST, MOST = 1e-9, 1e40
"""Beyond these a number is a slip of the pen, and its powers no longer fit into a double."""
COUNTS: tuple[ParamConvention, ...] = ("total", "body")
"""Counts of N that may have a column of their own, the one used first where none is called params."""
SYNONYMS: Mapping[str, ParamConvention] = {"non_embedding": "body", "non-embedding": "body", "with_embedding": "total"}
"""Other words for a count of N."""
STATES: Mapping[str, str] = {"finished": "complete", "crashed": "failed", "killed": "failed", "running": "failed"}
"""What Weights & Biases calls a run's status."""
