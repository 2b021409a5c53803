"""A document, what is counted while documents stream by, and how their text is mended."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Document:
    """One text, whole."""

    name: str
    """Where it stands in its source: a relative path, the same on every machine."""
    text: str

    @cached_property
    def utf8(self) -> bytes:
        """The text as bytes."""
        return self.text.encode()

    @property
    def num_bytes(self) -> int:
        """Length in UTF-8."""
        return len(self.utf8)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.utf8).digest()


@dataclass
class Tally:
    """What was read, left out and repaired while documents streamed by, so that nothing is lost in silence."""

    sources: dict[str, Counter[str]] = field(default_factory=dict)
    """Documents and bytes of each source."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files and documents left out, by reason."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Bytes or characters mended inside documents, by reason."""
    fields: Counter[str] = field(default_factory=Counter)
    """Rows by the field or column that their text was taken from."""

    def count(self, what: str) -> int:
        """Return the `documents` or `bytes` of all sources."""
        return sum(counts[what] for counts in self.sources.values())


def decode(raw: bytes, tally: Tally) -> str:
    """Read bytes as UTF-8; what is none becomes U+FFFD, and is counted."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(errors="replace")
        tally.repaired["invalid_utf8"] += text.count("\ufffd") - raw.count("\ufffd".encode())
        return text


def clean(text: str, tally: Tally) -> str:
    """Drop a leading byte order mark and NULs, and replace halves of surrogate pairs, which only JSON can spell."""
    if text.startswith("\ufeff"):
        text = text[1:]
        tally.repaired["byte_order_mark"] += 1
    if nuls := text.count("\0"):
        text = text.replace("\0", "")
        tally.repaired["nul"] += nuls
    try:
        text.isascii() or text.encode()
    except UnicodeEncodeError:
        text, halves = re.subn("[\ud800-\udfff]", "\ufffd", text)
        tally.repaired["half_surrogate"] += halves
    return text
