"""Numbers as people write them: 1e9, 70M, 1.5B, 1,000,000, 3_000, 3,5; on the command line and in tables alike."""

from __future__ import annotations

import re
from collections.abc import Mapping

SUFFIXES: Mapping[str, float] = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}
"""What a letter behind a count stands for."""
COUNTED = re.compile(r"([-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*([kKmMbBgGtT])")
THOUSANDS = re.compile(r"[-+]?[1-9]\d{0,2}(?:(?:,\d{3}){2,}(?:\.\d+)?|,\d{3}\.\d+|(?:[ '\u00a0\u202f]\d{3})+)")
"""1,000,000, 1,000.5 or 1 000: unmistakable groups of three digits."""
EITHER = re.compile(r"[-+]?[1-9]\d{0,2},\d{3}")
"""1,234 is 1234 to some and 1.234 to others."""
COMMA = re.compile(r"[-+]?\d+,\d+(?:[eE][-+]?\d+)?")
"""A comma for the decimal point."""


def parse(text: str, *, loss: bool = False) -> float:
    """Read a number; a loss has no suffix, and its one comma is the decimal point.

    Raises:
        ValueError: the text is no number, or one of two; the message goes on where the text was named.
    """
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        pass
    if match := COUNTED.fullmatch(text.replace("_", "")):
        if loss:
            raise ValueError("has a suffix, which no loss has; write it as a plain number")
        return float(match[1]) * SUFFIXES[match[2].lower()]
    if THOUSANDS.fullmatch(text):
        return float(re.sub(r"[, '\u00a0\u202f]", "", text))
    if EITHER.fullmatch(text) and not loss:
        raise ValueError(f"may be {text.replace(',', '')} or {text.replace(',', '.')}; write it without the comma")
    if COMMA.fullmatch(text):
        return float(text.replace(",", "."))
    raise ValueError(f"is no number; write it like {'2.71' if loss else '1e9, 20M or 1.5B'}")


def number_of(count: int, noun: str) -> str:
    """Write a number with what it counts: `1 run`, `12 runs`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
