"""A folder of offline Weights & Biases runs: the last value of each metric of each run, as a table."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoflop.record import Records
from isoflop.sources.columns import GUESSED, Columns
from isoflop.sources.table import from_rows

OFFLINE = "run-*.wandb"
HEADER = 7
"""Bytes before the first record of a file, and before each part of a record: checksum 4, length 2, kind 1."""
BLOCK = 32768
"""Parts of records never cross a multiple of this: LevelDB's log format."""
WHOLE, FIRST, _, LAST = 1, 2, 3, 4


def read_wandb(path: Path, series: str | None, said: Columns = GUESSED) -> Records:
    """Read one run an id, its metrics as they were last; N, D or C must be among them.

    Raises:
        ValueError: the extra `wandb` is not installed, a file is damaged, or as `isoflop.sources.table.read_csv`.
    """
    try:
        messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    except ImportError:
        raise ValueError(f"{path} needs wandb; install it with `pip install 'isoflop[wandb]'`") from None
    broken: Any = importlib.import_module("google.protobuf.message").DecodeError  # wandb brings protobuf
    rows: dict[str, dict[str, Any]] = {}
    for file in sorted(path.rglob(OFFLINE)):
        row = rows.setdefault(file.stem.removeprefix("run-"), {"id": file.stem.removeprefix("run-")})
        row["state"] = "crashed"  # until it says that it ended
        for data in _records(file.read_bytes()):
            record = messages.Record()
            try:
                record.ParseFromString(data)
            except broken as error:
                raise ValueError(f"{file} is damaged ({error}); copy it again, or leave that run out") from None
            for item in record.history.item:
                value = json.loads(item.value_json)
                if isinstance(value, (int, float, str)):
                    row["/".join(item.nested_key) or item.key] = value
            if record.WhichOneof("record_type") == "exit" and record.exit.exit_code == 0:
                row["state"] = "finished"
    return from_rows(list(rows.values()), path, series, said)


def _records(data: bytes) -> Iterator[bytes]:
    """Yield whole records; one that a crash cut short is passed over."""
    at, parts = HEADER, b""
    while at + HEADER <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEADER:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        part, at = data[at + HEADER : at + HEADER + length], at + HEADER + length
        if len(part) < length or not kind:
            return
        parts = part if kind in (WHOLE, FIRST) else parts + part
        if kind in (WHOLE, LAST):
            yield parts
