"""The names of a token folder's files, and meta.json: what a folder says of itself, every field checked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from isoflop.fields import of_their_types, positive
from isoflop.files import read_json

FORMAT = "isoflop tokens 1"
"""First line of meta.json, so that a later layout can tell itself apart."""
META, TRAIN, VAL, TOKENIZER = "meta.json", "train.bin", "val.bin", "tokenizer.json"
VERIFIED = ".verified.json"
"""Remembers which files were checked against their hashes; deleting it costs a second check."""


@dataclass(frozen=True, kw_only=True)
class _Split:
    """What meta.json says of one file of ids."""

    documents: int
    bytes: int
    tokens: int
    sha256: str

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "documents", "bytes", "tokens")
        _hashes(self, "sha256")


@dataclass(frozen=True, kw_only=True)
class _Meta:
    """What is read of meta.json, with the types that it must have."""

    dtype: Literal["uint16", "uint32"]
    vocab_size: int
    end_of_text: int
    bytes_per_token: float
    tokenizer_sha256: str
    text_sha256: str
    options: Mapping[str, Any]
    sources: tuple[Mapping[str, Any], ...]
    skipped: Mapping[str, int]
    repaired: Mapping[str, int]

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "vocab_size", "bytes_per_token")
        _hashes(self, "tokenizer_sha256", "text_sha256")
        if not 0 <= self.end_of_text < self.vocab_size:
            raise ValueError(f"end_of_text={self.end_of_text} must lie below vocab_size={self.vocab_size}")


def _hashes(owner: object, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not re.fullmatch("[0-9a-f]{64}", value):
            raise ValueError(f"{name}={value!r} must be 64 hexadecimal digits")


def is_token_folder(folder: Path) -> bool:
    """Tell whether meta.json there says the format, whatever else it says.

    Raises:
        ValueError: it is no JSON.
    """
    meta = read_json(folder / META)
    return isinstance(meta, dict) and meta.get("format") == FORMAT


def read_meta(folder: Path) -> dict[str, Any]:
    """Read what a token folder says of itself; what it says is in docs/reference/token-folder.md.

    Raises:
        ValueError: the folder is none, or a field is missing or cannot be right.
    """
    if not (folder / META).exists():
        raise ValueError(
            f"{folder} is no token folder (it has no {META}); make one: "
            + (
                "isoflop data SOURCE --out " + str(folder)
                if not folder.exists()
                else f"isoflop data {folder} --out TOKENS"
            )
        )
    if not is_token_folder(folder):
        raise ValueError(
            f"{folder / META} does not say {FORMAT!r}, so {folder} is no token folder; "
            "choose another, or delete it if it was one"
        )
    meta: dict[str, Any] = read_json(folder / META)
    try:
        _check(_Meta, meta, "")
        for split in ("train", "val"):
            _check(_Split, meta.get(split), f"{split}.")
    except ValueError as error:
        raise ValueError(f"{folder / META}: {error}; bring it back, or build the folder again with --force") from None
    return meta


def _check(kind: Any, value: object, where: str) -> None:
    names = [f.name for f in fields(kind)]
    there = value if isinstance(value, dict) else {}
    if missing := [name for name in names if name not in there]:
        raise ValueError(f"{where}{missing[0]} is missing")
    try:
        known: dict[str, Any] = {name: there[name] for name in names}
        kind(**{name: tuple(part) if isinstance(part, list) else part for name, part in known.items()})
    except ValueError as error:
        raise ValueError(f"{where}{error}") from None
