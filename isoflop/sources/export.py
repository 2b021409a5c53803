"""A study as two files for elsewhere: JSON with everything, Parquet with a row a run; both are read back as records."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isoflop import __version__
from isoflop.files import read_json, replacing, write_json
from isoflop.record import Record, Records
from isoflop.sources.folder import unfit

KIND = "isoflop study"
"""What the JSON file calls itself."""


@dataclass(frozen=True, kw_only=True)
class Export:
    """What is known of a study."""

    name: str
    study: Mapping[str, Any]
    """As study.json says it."""
    runs: Sequence[Record]
    targets: Sequence[Record] = ()
    """Larger runs that forecasts are judged by; never fitted."""
    forecasts: Sequence[Mapping[str, Any]] = ()
    """Forecasts that were written down before their runs."""
    fit: Mapping[str, Any] | None = None
    """The law as it was fitted, with its intervals."""
    kind: str = KIND
    version: str = field(default=__version__)
    """Version of isoflop that wrote it."""


def write_export(export: Export, path: Path) -> list[Path]:
    """Write PATH.json, and PATH.parquet where pyarrow, the extra `parquet`, is installed; return what was written."""
    whole = path.with_name(f"{path.name}.json")
    write_json(whole, asdict(export))
    try:
        pyarrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        return [whole]
    table = path.with_name(f"{path.name}.parquet")
    with replacing(table) as file:
        parquet.write_table(pyarrow.Table.from_pylist([to_row(run) for run in export.runs]), file)
    return [whole, table]


def to_row(run: Record) -> dict[str, Any]:
    """Flatten a record to a row that `isoflop fit` and every table tool understand; N is the compute count."""
    counts = {f"params_{count}": N for count, N in run.params.items()}
    settings = {
        f"{part}.{name}": value
        for part, values in run.config.items()
        if isinstance(values, Mapping)
        for name, value in values.items()
    }
    measured = {name: value for name, value in run.measured.items() if isinstance(value, (int, float, str))}
    return {
        "id": run.id,
        "params": run.params.get("compute"),
        "params_convention": "compute",
        "tokens": run.tokens,
        "flops": run.flops,
        "loss": run.loss,
        "status": run.status,
        "budget": run.budget,
        "group": run.group,
        "unique_tokens": run.unique_tokens,
        **counts,
        **measured,
        **settings,
    }


def is_export(path: Path) -> bool:
    """Whether a JSON file is an exported study."""
    value = read_json(path)
    return isinstance(value, dict) and value.get("kind") == KIND


def read_export(path: Path) -> Records:
    """Read the complete runs of an exported study, as its folder would give them.

    Raises:
        ValueError: a run there is no record, or none is complete.
    """
    value = read_json(path)
    runs = value.get("runs")
    if not isinstance(runs, list):
        raise ValueError(f"{path} is an exported study without runs; export it again with `isoflop study export`")
    records = [Record.of(run, f"{path}, run {index}") for index, run in enumerate(runs, 1)]
    reasons = {record.id: unfit(record) for record in records}
    complete = tuple(record for record in records if reasons[record.id] is None)
    if not complete:
        raise ValueError(f"{path} has no complete run; export the study again when some are done")
    left_out = tuple(f"{name}: {reason}" for name, reason in reasons.items() if reason)
    return Records(complete, source=str(path), left_out=left_out).under("compute")
