"""Documents into the two files of ids: encoded in threads, in order, with only a few chunks in memory."""

from __future__ import annotations

import hashlib
import os
import string
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from isoflop.data.document import Document
from isoflop.data.meta import TRAIN, VAL
from isoflop.data.tokenizer import Ids, Tokenizer

CHUNK = 256_000
"""Bytes of text that a thread encodes at a time; 64 kB to 1 MB measured within 10 % of each other."""


class Encoded(NamedTuple):
    """A document as ids, without its end of text."""

    document: Document
    ids: Ids
    spelled: Counter[str]
    """Special tokens that the text spells."""
    alike: int
    """Hash of the text without case and white space."""


def dtype_of(tokenizer: Tokenizer) -> str:
    """Return the type of the ids on disk."""
    return "uint16" if tokenizer.vocab_size <= 1 << 16 else "uint32"


class _Split:
    """One file being written, with what meta.json will say of it."""

    def __init__(self, file: BinaryIO, dtype: str) -> None:
        self.file = file
        self.dtype = np.dtype(dtype).newbyteorder("<")
        self.hash = hashlib.sha256()
        self.counts = {"documents": 0, "bytes": 0, "tokens": 0}
        self.alike = array("Q")

    def write(self, encoded: Encoded, end_of_text: int) -> None:
        data = np.append(encoded.ids, end_of_text).astype(self.dtype).tobytes()
        self.file.write(data)
        self.hash.update(data)
        self.counts["documents"] += 1
        self.counts["bytes"] += encoded.document.num_bytes
        self.counts["tokens"] += len(encoded.ids) + 1
        self.alike.append(encoded.alike)

    def finish(self) -> dict[str, Any]:
        self.file.flush()
        os.fsync(self.file.fileno())
        return {**self.counts, "sha256": self.hash.hexdigest()}


def write_splits(
    documents: Iterable[Document],
    tokenizer: Tokenizer,
    work: Path,
    *,
    held_out: Callable[[Document], bool],
    workers: int,
) -> dict[str, Any]:
    """Write train.bin and val.bin into a folder; return what meta.json says of them.

    Args:
        documents: All of them.
        tokenizer: What encodes, with an end of text.
        work: The folder.
        held_out: Whether a document is validation.
        workers: Threads that encode.
    """
    end_of_text = tokenizer.end_of_text
    assert end_of_text is not None, "make_tokenizer refuses a tokenizer without one"
    spelled: Counter[str] = Counter()
    with (work / TRAIN).open("wb") as train_file, (work / VAL).open("wb") as val_file:
        train, val = (_Split(file, dtype_of(tokenizer)) for file in (train_file, val_file))
        for encoded in _encoded(documents, tokenizer, workers):
            (val if held_out(encoded.document) else train).write(encoded, end_of_text)
            spelled.update(encoded.spelled)
        return {
            "train": train.finish(),
            "val": val.finish(),
            "spelled": dict(sorted(spelled.items())),
            "val_like_train": int(np.isin(np.array(val.alike), np.array(train.alike)).sum()),
        }


def _encoded(documents: Iterable[Document], tokenizer: Tokenizer, workers: int) -> Iterator[Encoded]:
    """Encode in threads (the library lets them run at once), in order, and with only a few chunks in memory."""

    def encode(chunk: list[Document]) -> list[Encoded]:
        return [
            Encoded(document, tokenizer.encode(document.text), tokenizer.spelled(document.text), _alike(document))
            for document in chunk
        ]

    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[list[Encoded]]] = deque()
        for chunk in _chunks(documents):
            waiting.append(pool.submit(encode, chunk))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _alike(document: Document) -> int:
    """Hash a text so that copies agree that differ in white space and the case of ASCII letters alone."""
    bare = document.utf8.translate(_LOWER, string.whitespace.encode())
    return int.from_bytes(hashlib.blake2b(bare, digest_size=8).digest())


_LOWER = bytes(range(256)).lower()


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    held = 0
    for document in documents:
        chunk.append(document)
        held += document.num_bytes
        if held >= CHUNK:
            yield chunk
            chunk, held = [], 0
    if chunk:
        yield chunk
