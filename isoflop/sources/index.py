"""The records of a folder of runs, thousands of them at once: an index beside the runs that may be deleted any time."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from isoflop.files import write_bytes
from isoflop.record import Record

INDEX = "index.jsonl"
"""Beside the run folders: the records as they were last read, each with its file's time and length."""
WORTH = 200
"""Records read one by one before an index is worth writing; so many take about 30 ms."""
RECORD = "record.json"


def read_records(parent: Path) -> dict[str, Record]:
    """Read the record of each run folder in `parent`, by the folder's name; a run without record has none.

    The truth is the folders: what the index says of a record counts only while the record's file is as old and as
    long as it was. A missing, damaged or foreign index is made anew.

    Raises:
        ValueError: a file there is no record of a run.
    """
    known, out, keys = _known(parent / INDEX), dict[str, Record](), list[list[Any]]()
    fresh = 0
    if not parent.is_dir():
        return out
    for name in sorted(entry.name for entry in os.scandir(parent) if entry.is_dir()):
        path = parent / name / RECORD
        try:
            stat = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        key = [name, stat.st_mtime_ns, stat.st_size]
        record = _record(known.get(name), key)
        if record is None:
            record, fresh = Record.read(path), fresh + 1
        out[name] = record
        keys.append(key)
    if fresh >= WORTH:
        lines = [json.dumps([*key, vars(out[key[0]])]) for key in keys]
        with contextlib.suppress(OSError):  # a folder that may only be read
            write_bytes(parent / INDEX, "\n".join(lines).encode() + b"\n")
    return out


def _known(path: Path) -> dict[str, list[Any]]:
    """Lines of the index by run: name, time, length, record; what does not parse is passed over."""
    found = dict[str, list[Any]]()
    with contextlib.suppress(OSError, ValueError, RecursionError):
        for line in path.read_bytes().splitlines():
            entry = json.loads(line)
            if isinstance(entry, list) and len(entry) == 4:
                found[str(entry[0])] = entry
    return found


def _record(entry: list[Any] | None, key: list[Any]) -> Record | None:
    if entry is None or entry[:3] != key:
        return None
    try:
        return Record(**entry[3])
    except TypeError:
        return None
