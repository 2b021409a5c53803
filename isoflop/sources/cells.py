"""The cells of a table: texts, and numbers as people write them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from isoflop.counts import parse
from isoflop.record import LEAST, MOST

Row = Mapping[str, Any]

LONGEST = 60
"""Characters of a cell that an error shows."""


def text_of(row: Row, columns: Mapping[str, str], meaning: str) -> str | None:
    """Return what a cell says; None where it is empty or its column absent."""
    value = row.get(columns[meaning]) if meaning in columns else None
    return None if value is None else str(value).strip() or None


def number_of(row: Row, columns: Mapping[str, str], meaning: str, where: str) -> float | None:
    """Read a positive, finite number; None where the cell is empty.

    Raises:
        ValueError: the cell holds something else; the sentence names row and column.
    """
    text = text_of(row, columns, meaning)
    if text is None:
        return None
    try:
        number = parse(text, loss=meaning == "loss")
    except ValueError as error:
        raise ValueError(f"{where}: {columns[meaning]}={text[:LONGEST]!r} {error}, or drop the row") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {columns[meaning]}={text} must be positive and finite; correct it or drop the row")
    if not LEAST < number < MOST:
        raise ValueError(f"{where}: {columns[meaning]}={text} is of no run; correct it or drop the row")
    return number
