"""A folder of TensorBoard event files: the last value of each scalar of each run, as a table."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from isoflop.record import Records
from isoflop.sources.columns import GUESSED, Columns
from isoflop.sources.table import from_rows

EVENTS = "events.out.tfevents.*"


def read_board(path: Path, series: str | None, said: Columns = GUESSED) -> Records:
    """Read one run a folder of event files; its scalars are its columns, so N, D or C must be among them.

    Raises:
        ValueError: tensorboard, the extra `tensorboard`, is not installed, or as `isoflop.sources.table.read_csv`.
    """
    name = "tensorboard.backend.event_processing.event_accumulator"
    try:
        accumulator: Any = importlib.import_module(name)
    except ImportError:
        raise ValueError(f"{path} needs tensorboard; install it with `pip install 'isoflop[tensorboard]'`") from None
    rows = []
    for folder in sorted({file.parent for file in path.rglob(EVENTS)}):
        events = accumulator.EventAccumulator(
            str(folder), size_guidance={accumulator.SCALARS: 0, accumulator.TENSORS: 0}
        )
        events.Reload()
        tags = events.Tags()
        row: dict[str, Any] = {"id": str(folder.relative_to(path))}
        row |= {tag: events.Scalars(tag)[-1].value for tag in tags["scalars"]}
        row |= {
            tag: float(events.Tensors(tag)[-1].tensor_proto.float_val[0])
            for tag in tags["tensors"]
            if len(events.Tensors(tag)[-1].tensor_proto.float_val) == 1
        }
        rows.append(row)
    return from_rows(rows, path, series, said)
