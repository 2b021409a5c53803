"""A table of runs, CSV, JSON or Parquet: columns of N, D, C and L under the names that people give them."""

from __future__ import annotations

import csv
import importlib
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from isoflop.files import read_json
from isoflop.record import LEAST, MOST, ParamConvention, Record, Records
from isoflop.sources.cells import Row, number_of, text_of
from isoflop.sources.columns import COUNTS, GUESSED, Columns, find
from isoflop.sources.remarks import remarks

SPARE = "\0beyond"
"""Where cells beyond the named columns go."""
PLAIN = re.compile(r"(u?int|float|double|half|decimal|bool|string|large_string|string_view|null)")
"""Types of Parquet columns whose values are numbers or texts."""
DELIMITERS: Mapping[str, str] = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What may stand between the cells of a line, the usual first."""


def read_csv(path: Path, series: str | None, said: Columns = GUESSED) -> Records:
    """Read a CSV whose first line names the columns, cells apart by commas, semicolons or tabs.

    Raises:
        ValueError: the file is empty, a column is missing, or a row holds no possible run.
    """
    rows, delimiter = cells(path)
    if long := [index for index, row in enumerate(rows, 1) if SPARE in row]:
        raise ValueError(
            f"{path}, row {long[0]} has more cells than the first line has names; write 1.5 for 1,5, or quote the cell"
        )
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    notes = () if delimiter == usual else (f"its cells are separated by {DELIMITERS[delimiter]}",)
    return from_rows(rows, path, series, said, notes)


def cells(path: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the rows, and what lies between their cells: of DELIMITERS the one that the first line has most of."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            names = re.sub(r'"[^"]*"', "", file.readline())
            delimiter = max(DELIMITERS, key=names.count)
            file.seek(0)
            reader = csv.DictReader(file, restkey=SPARE, delimiter=delimiter)
            rows, header = list(reader), reader.fieldnames or []
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no CSV in UTF-8 ({error}); export it again") from error
    _once(header, path)
    return rows, delimiter


def _once(names: Sequence[str], path: Path) -> None:
    if twice := [name for name, count in Counter(filter(None, names)).items() if count > 1]:
        raise ValueError(f"{path} has several columns named {twice[0]!r}; rename or remove all but one")


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
    """Read a Parquet file.

    Raises:
        ValueError: pyarrow is not installed, or as `read_csv`.
    """
    return from_rows(parquet_rows(path), path, series, said)


def parquet_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a Parquet file; pyarrow, the extra `parquet`, is imported here.

    Raises:
        ValueError: pyarrow is not installed, or the file is no table.
    """
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError(f"{path} needs pyarrow; install it with `pip install 'isoflop[parquet]'`") from None
    try:
        table = parquet.read_table(path)
        columns = [_values(column) for column in table.columns]
    except (OSError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{path} is no Parquet file ({error}); export it again") from error
    _once(table.column_names, path)
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: Any) -> list[Any]:
    """Return the numbers and texts of a Parquet column; of times, lists and the like what they are, for a refusal."""
    kind = str(getattr(column.type, "value_type", column.type) if "dictionary" in str(column.type) else column.type)
    return column.to_pylist() if PLAIN.match(kind) else [f"a {kind}"] * len(column)


def from_rows(
    rows: Sequence[Row], path: Path, series: str | None, said: Columns = GUESSED, notes: tuple[str, ...] = ()
) -> Records:
    """Turn rows into records; two of N, D and C suffice, the third is C = 6ND; what was guessed is among the notes.

    Raises:
        ValueError: as `read_csv`.
    """
    if not rows:
        raise ValueError(f"{path} has no rows; a table needs a line for each run")
    columns = find(rows, path, said)
    numbered = _one_series(list(enumerate(rows, 1)), columns.get("series"), path, series)
    mine = [row for _, row in numbered]
    convention, counted = _convention(mine, columns, path)
    shared = _shared(mine, columns)
    records = _all_records(numbered, columns, path, convention, said, shared)
    complete = tuple(record for record in records if record.status == "complete")
    left_out = tuple(f"{record.id}: {record.status}" for record in records if record.status != "complete")
    if not complete:
        raise ValueError(f"{path} has no complete run; the column {columns['status']} says otherwise for all of them")
    if shared:
        notes += (f"the rows of one {columns['id']} are points along one run, and are drawn again together",)
    source = str(path) if series is None else f"{path} (series {series})"
    told = Records(complete, source=source, convention=convention, left_out=left_out)
    return replace(told, notes=(*notes, *remarks(told, mine, columns, counted)))


def _all_records(
    numbered: Sequence[tuple[int, Row]],
    columns: Mapping[str, str],
    path: Path,
    convention: ParamConvention,
    said: Columns,
    shared: bool,
) -> list[Record]:
    """Turn every row into a record; what is wrong with several is said in one sentence."""
    records, wrong = list[Record](), dict[str, list[int]]()
    for index, row in numbered:
        try:
            records.append(_record(row, columns, "", f"row {index}", convention, said, shared))
        except ValueError as error:
            wrong.setdefault(str(error).removeprefix(": "), []).append(index)
    if not wrong:
        return records
    count = sum(map(len, wrong.values()))
    shown = list(wrong.items())[:SHOWN]
    told = [f"{_rows(rows)}: {reason}" for reason, rows in shown]
    if more := count - sum(len(rows) for _, rows in shown):
        told.append(f"and so on in {more} more")
    place = f"{path}, " if count == 1 else f"{path} has {count} of {len(numbered)} rows that are no runs: "
    raise ValueError(place + "; ".join(told))


def _rows(rows: Sequence[int]) -> str:
    """Name some rows, the first few of many."""
    some = ", ".join(map(str, rows[:SHOWN]))
    more = f" and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return f"row{'' if len(rows) == 1 else 's'} {some}{more}"


SHOWN = 3
"""Rows, and reasons, that a refusal names."""


def _shared(rows: Sequence[Row], columns: Mapping[str, str]) -> bool:
    """Whether rows name runs, several a run, and no other groups: points along runs."""
    if "group" in columns or "id" not in columns:
        return False
    times = Counter(text_of(row, columns, "id") for row in rows)
    return any(name is not None and count > 1 for name, count in times.items())


def _convention(rows: Sequence[Row], columns: Mapping[str, str], path: Path) -> tuple[ParamConvention, str | None]:
    """Return how N is counted, and in what words the table says it: all rows must say the same."""
    words = sorted({text_of(row, columns, "convention") or "" for row in rows})
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


SERIES_SHOWN = 12
"""Most names of series that one sentence lists."""


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
        more = f" and {len(names) - SERIES_SHOWN} more" if len(names) > SERIES_SHOWN else ""
        raise ValueError(f"{path} {said}; name it with --series: one of {', '.join(names[:SERIES_SHOWN])}{more}")
    return [(index, row) for index, row in rows if str(row.get(column)) == series]


def _record(
    row: Row,
    columns: Mapping[str, str],
    where: str,
    name: str,
    convention: ParamConvention,
    said: Columns,
    shared: bool,
) -> Record:
    status = text_of(row, columns, "status") or "complete"
    status = STATES.get(status.lower(), status)
    if status not in ("complete", "diverged", "failed"):
        raise ValueError(f"{where}: {columns['status']}={status!r} should be complete, diverged or failed")
    given = {field: number_of(row, columns, field, where) for field in ("params", "tokens", "flops", "budget")}
    loss = _loss(row, columns, where, said) if status == "complete" else None
    # a run that failed may lack numbers, and is not fitted anyway
    N, D, C = _three(given, where) if status == "complete" else (math.nan, math.nan, math.nan)
    if status == "complete" and loss is None:
        raise ValueError(f"{where}: {columns['loss']} is empty; fill it in or drop the row")
    return Record(
        id=text_of(row, columns, "id") or name,
        params={**_counts(row, columns, where), "given": N, convention: N},
        tokens=D,
        flops=C,
        loss=loss,
        status=status,  # type: ignore[arg-type]  # one of the three, as checked above
        budget=given["budget"],
        group=text_of(row, columns, "id" if shared else "group"),
        unique_tokens=_unique(row, columns, D, where),
        measured=_measured(row, columns),
    )


def _measured(row: Row, columns: Mapping[str, str]) -> dict[str, Any]:
    """Take what else a table may say of a run; a cell that is no such number is as good as empty."""
    final = text_of(row, columns, "is_final")
    found: dict[str, Any] = {} if final is None else {"is_final": final in TRUE}
    for name in MEASURED:
        try:
            number = float(text_of(row, columns, name) or "nan")
        except ValueError:
            continue
        if math.isfinite(number) and number >= 0 and (number > 0 or name == "seed"):
            found[name] = int(number) if name == "seed" else number
    return found


def _counts(row: Row, columns: Mapping[str, str], where: str) -> dict[str, float]:
    """Return N by the other counts that have a column."""
    counts = {count: number_of(row, columns, f"params {count}", where) for count in COUNTS}
    return {count: N for count, N in counts.items() if N is not None}


def _loss(row: Row, columns: Mapping[str, str], where: str, said: Columns) -> float | None:
    """Return L in nats per token; bits per byte · ln 2 · bytes per token."""
    loss = number_of(row, columns, "loss", where)
    if loss is None or columns["loss"] != columns.get("bits_per_byte"):
        return loss
    own = number_of(row, columns, "bytes_per_token", where)
    width = said.bytes_per_token if own is None else own
    if width is None:
        raise ValueError(f"{where}: {columns['bytes_per_token']} is empty; fill it in or give --bytes-per-token")
    return loss * math.log(2) * width


def _unique(row: Row, columns: Mapping[str, str], D: float, where: str) -> float | None:
    """Return U, from its column or from that of epochs; a run sees no more different tokens than tokens."""
    U, epochs = (number_of(row, columns, meaning, where) for meaning in ("unique_tokens", "epochs"))
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


MEASURED = ("seed", "lr", "steps", "seconds")
"""Columns that no fit needs but a comparison (seed, seconds) or a choice of rates (lr, steps) does."""
TRUE = ("1", "1.0", "true", "True", "TRUE", "yes")
"""What a cell of is_final says where the schedule had ended."""
SYNONYMS: Mapping[str, ParamConvention] = {"non_embedding": "body", "non-embedding": "body", "with_embedding": "total"}
"""Other words for a count of N."""
STATES: Mapping[str, str] = {"finished": "complete", "crashed": "failed", "killed": "failed", "running": "failed"}
"""What Weights & Biases calls a run's status."""
