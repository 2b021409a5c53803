"""Texts of a Hugging Face data set, streamed: `hf:NAME`, `hf:NAME:SUBSET`, `hf:NAME@SPLIT`."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from isoflop.data.document import Tally
from isoflop.data.readers import Reading, choose_field

PREFIX = "hf:"
"""How a source says that it is a data set's name, or the folder of one."""


def texts(source: str, reading: Reading, tally: Tally) -> Iterator[tuple[str, str]]:
    """Yield field and text of each row, as the rows arrive; `datasets`, the extra of that name, is imported here.

    Raises:
        ValueError: `datasets` is not installed or finds nothing, or a row holds no text.
    """
    name, subset, split = parse(source)
    try:
        datasets: Any = importlib.import_module("datasets")
    except ImportError:
        raise ValueError(f"{source} needs datasets; install it with `pip install 'isoflop[datasets]'`") from None
    try:
        rows = datasets.load_dataset(name, subset, split=split, streaming=True)
        chosen: str | None = None
        for number, row in enumerate(rows, 1):
            chosen = chosen or choose_field(row, reading, source)
            if row[chosen] is None:
                tally.skipped["null_text"] += 1
            elif isinstance(row[chosen], str):
                yield chosen, row[chosen]
            else:
                said = repr(row[chosen])[:40]
                raise ValueError(f"{source}, row {number}: {chosen} is {said}, which is no text; name another field")
    except Exception as error:  # the library raises whatever its sources raise
        if str(error).startswith(source):
            raise
        said = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{source}: {said}; check name, subset and split, or the connection") from error


def parse(source: str) -> tuple[str, str | None, str]:
    """Return name, subset and split of a source; the split is `train` unless it is said.

    Raises:
        ValueError: this is no such name.
    """
    match = re.fullmatch(r"hf:([^:@]+)(?::([^:@]+))?(?:@(.+))?", source)
    if match is None:
        raise ValueError(f"{source!r} names no data set; write hf:NAME, hf:NAME:SUBSET, or hf:NAME@SPLIT")
    return match[1], match[2], match[3] or "train"


def copy(source: str, path: Path, reading: Reading, *, limit: int | None) -> Path:
    """Write the texts as JSON lines, as many as make `limit` bytes and one more, so that they are fetched once."""
    written = 0
    with path.open("w", encoding="ascii") as file:
        for chosen, text in texts(source, reading, Tally()):
            file.write(json.dumps({chosen: text}) + "\n")
            written += len(text.encode(errors="replace"))
            if limit is not None and written > limit:
                break
    return path
