"""The cells of a table: texts, and numbers as people write them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

Row = Mapping[str, Any]

LEAST, MOST = 1e-9, 1e40
"""Beyond these a number is a slip of the pen, and its powers no longer fit into a double."""
SUFFIXES: Mapping[str, float] = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
"""What a letter behind a count stands for."""
COUNTED = re.compile(r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*([kKmMbBgGtT])")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:(?:,\d{3}){2,}(?:\.\d+)?|,\d{3}\.\d+|(?:[ '\u00a0\u202f]\d{3})+)")
"""1,000,000, 1,000.5 or 1 000: unmistakable groups of three digits."""
EITHER = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
"""1,234 is 1234 to some and 1.234 to others."""
COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
"""A comma for the decimal point."""


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
        raise ValueError(f"{where}: {columns[meaning]}={text!r} {error}") from None
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{where}: {columns[meaning]}={text} must be positive and finite; correct it or drop the row")
    if not LEAST < number < MOST:
        raise ValueError(f"{where}: {columns[meaning]}={text} is of no run; correct it or drop the row")
    return number


def parse(text: str, *, loss: bool = False) -> float:
    """Read 1e9, 70M, 1.5B, 1,000,000 or 3,5; a loss has no suffix, and its one comma is the decimal point.

    Raises:
        ValueError: the text is no number, or one of two; the message goes on where the text was named.
    """
    try:
        return float(text)
    except ValueError:
        pass
    if match := COUNTED.fullmatch(text):
        if loss:
            raise ValueError("has a suffix, which no loss has; write it as a plain number")
        return float(match[1]) * SUFFIXES[match[2].lower()]
    if THOUSANDS.fullmatch(text):
        return float(re.sub(r"[, '\u00a0\u202f]", "", text))
    if EITHER.fullmatch(text) and not loss:
        raise ValueError(f"may be {text.replace(',', '')} or {text.replace(',', '.')}; write it without the comma")
    if COMMA.fullmatch(text):
        return float(text.replace(",", "."))
    raise ValueError("is no number; correct it or drop the row")
