"""Documents from files: text, JSON lines, CSV, Parquet, plain or compressed; what is mended or left out is counted."""

from __future__ import annotations

import codecs
import csv
import gzip
import importlib
import io
import json
import lzma
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from isoflop.data.document import Document, Tally, clean, decode

Format = Literal["text", "jsonl", "csv", "tsv", "parquet"]
TEXT_FIELDS = ("text", "content")
"""Fields that hold the text unless `text_field` names another; the first that a file has."""


class File(NamedTuple):
    """A file to read documents from."""

    path: Path
    name: str
    """Name of its documents."""
    num_bytes: int
    picked: bool
    """It was named itself, not found in a folder: then a stray NUL does not make it a binary file."""
    called: str | None = None
    """What messages call it; None: its path."""

    def __str__(self) -> str:
        """Return what messages call it."""
        return self.called or str(self.path)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How files are read."""

    format: Format | None = None
    """How files are read; None: as each one's suffix says."""
    text_field: str | None = None
    """Field or column that holds the text; None: text, or else content."""
    separator: str | None = None
    """Text between the documents of a text file, \\n for a line end; None: a file is one document."""
    skip_broken: bool = False
    """Count and leave out broken lines and the rest of damaged files, instead of stopping at the first."""


Reader = Callable[[File, Reading, Tally], Iterator[Document]]


def read_documents(file: File, reading: Reading, tally: Tally) -> Iterator[Document]:
    """Read a file with the reader of its format."""
    name = PurePath(file.path.name.lower())
    if name.suffix in PACKINGS:
        name = PurePath(name.stem)
    return READERS[reading.format or SUFFIXES.get(name.suffix, "text")](file, reading, tally)


# what damaged or short compressed files raise; zstd's own error is added where it is imported
_DAMAGE: tuple[type[Exception], ...] = (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


class Packing(NamedTuple):
    """One way to compress a file."""

    magic: bytes
    """First bytes of every such file."""
    unpack: Callable[[BinaryIO], Any]


def _zstd(raw: BinaryIO) -> Any:
    # in the standard library from Python 3.14 on (PEP 784)
    for module in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(module).open(raw)
        except ImportError:
            continue
    raise ValueError("zstd needs backports.zstd; install it with `pip install 'isoflop[zstd]'`")


class _Unpacked(io.RawIOBase):
    """What a compressed file holds, up to the very byte at which it turns out to be damaged."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self.inner.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _opened(
    file: File, reading: Reading, tally: Tally, where: Callable[[], str] = lambda: ""
) -> Iterator[io.BufferedReader]:
    """Open a file, unpacked if its first bytes say that it is packed; damage is one sentence, or counted."""
    try:
        with file.path.open("rb") as raw:
            start = raw.peek(8)
            packing = next((known for known in PACKINGS.values() if start.startswith(known.magic)), None)
            if packing is None:
                if file.path.suffix.lower() in PACKINGS and start:
                    raise EOFError("its first bytes are not those of such a file")
                yield raw
                return
            with packing.unpack(raw) as unpacked:
                yield io.BufferedReader(_Unpacked(unpacked), 1 << 20)
    except Exception as error:
        # zstd's error is known by name, since its module is imported only where such a file is read
        if not isinstance(error, _DAMAGE) and type(error).__name__ != "ZstdError":
            raise
        _damaged(file, reading, tally, f"{where()} ({error})")


def _damaged(file: File, reading: Reading, tally: Tally, said: str) -> None:
    if not reading.skip_broken:
        raise ValueError(
            f"{file} is damaged or cut short{said}; fetch it again, or go without the rest of it with --skip-broken"
        )
    tally.skipped["rest_of_damaged_file"] += 1


def _broken(file: File, line: int, reading: Reading, tally: Tally, what: str) -> None:
    if not reading.skip_broken:
        raise ValueError(f"{file}:{line}: {what}; mend it, or leave such lines out with --skip-broken")
    tally.skipped["broken_line"] += 1


def read_text(file: File, reading: Reading, tally: Tally) -> Iterator[Document]:
    """Read a plain text as one document, or as those that stand between separators.

    Bytes that are not UTF-8 become U+FFFD, byte order marks and NUL vanish, line ends stay as they are; all is counted.
    """
    with _opened(file, reading, tally) as stream:
        if not file.picked and b"\0" in stream.peek(_SNIFFED)[:_SNIFFED]:
            tally.skipped["binary"] += 1
            return
        if reading.separator is None:
            yield Document(file.name, clean(decode(stream.read(), tally), tally))
            return
        for number, piece in enumerate(_pieces(stream, reading.separator.encode()), 1):
            yield Document(f"{file.name}#{number}", clean(decode(piece, tally), tally))


# git calls a file binary when its first 8,000 bytes hold a NUL (buffer_is_binary in xdiff-interface.c)
_SNIFFED = 8000


def _pieces(stream: BinaryIO, separator: bytes) -> Iterator[bytes]:
    # UTF-8 may be cut as bytes: no character's bytes contain another's
    rest = b""
    while block := stream.read(1 << 20):
        *whole, rest = (rest + block).split(separator)
        yield from whole
    yield rest


def _lines(file: File, reading: Reading, tally: Tally) -> Iterator[str]:
    """Yield the lines of a file as text, without NULs and the byte order mark before the first."""
    number = 0
    with _opened(file, reading, tally, lambda: f" after line {number:,}") as stream:
        for number, raw in enumerate(stream, 1):
            if number == 1 and raw.startswith(codecs.BOM_UTF8):
                tally.repaired["byte_order_mark"] += 1
                raw = raw[len(codecs.BOM_UTF8) :]
            if nuls := raw.count(0):  # a hole that a crashed writer left, say
                raw = raw.replace(b"\0", b"")
                tally.repaired["nul"] += nuls
            yield decode(raw, tally)


def choose_field(names: Iterable[str], reading: Reading, where: str) -> str:
    """Return the field that holds the text.

    Raises:
        ValueError: there is none of that name.
    """
    there = list(names)
    wanted = TEXT_FIELDS if reading.text_field is None else (reading.text_field,)
    found = next((name for name in wanted if name in there), None)
    if found is None:
        has = ", ".join(there[:20]) or "nothing"
        raise ValueError(
            f"{where} has no field {' or '.join(wanted)}, it has {has}; name the text's with --text-field "
            "(--format text reads files as they stand)"
        )
    return found


def _row(file: File, line: int, value: object, reading: Reading, tally: Tally, *, chosen: str) -> Iterator[Document]:
    """Yield the document of a row, unless its text is null or no text."""
    tally.fields[chosen] += 1
    if value is None:
        tally.skipped["null_text"] += 1
    elif not isinstance(value, str):
        _broken(file, line, reading, tally, f"{chosen} is {json.dumps(value)[:40]}, which is no text")
    else:
        yield Document(f"{file.name}#{line}", clean(value, tally))


def read_jsonl(file: File, reading: Reading, tally: Tally) -> Iterator[Document]:
    """Read one document a line, from a field of the line's object; blank lines are passed over."""
    chosen: str | None = None
    for number, line in enumerate(_lines(file, reading, tally), 1):
        if not line or line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            _broken(file, number, reading, tally, f"this is not JSON ({error})")
            continue
        if not isinstance(row, dict):
            _broken(file, number, reading, tally, f"this is no object but {line.strip()[:40]}")
            continue
        chosen = chosen or choose_field(row, reading, f"{file}:{number}")
        if chosen not in row:
            _broken(file, number, reading, tally, f"the field {chosen} is missing")
            continue
        yield from _row(file, number, row[chosen], reading, tally, chosen=chosen)


def read_csv(file: File, reading: Reading, tally: Tally, *, delimiter: str = ",") -> Iterator[Document]:
    """Read one document a row, from a column that the first row names; quoted text may hold line ends."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # the module's own limit is 128 kB a cell
    rows = csv.reader(_lines(file, reading, tally), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    at = 0
    while True:
        began = rows.line_num + 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            _broken(file, began, reading, tally, f"this is no row of a table ({error})")
            continue
        if row is None:
            return
        if header is None:
            header = row
            chosen = choose_field(header, reading, str(file))
            at = header.index(chosen)
        elif row and len(row) != len(header):
            _broken(file, began, reading, tally, f"{len(row)} cells where the first row has {len(header)}")
        elif row:
            yield from _row(file, began, row[at], reading, tally, chosen=chosen)


def read_tsv(file: File, reading: Reading, tally: Tally) -> Iterator[Document]:
    """Read a table whose cells are divided by tabs, as `read_csv` does."""
    return read_csv(file, reading, tally, delimiter="\t")


def read_parquet(file: File, reading: Reading, tally: Tally) -> Iterator[Document]:
    """Read one document a row, from a column of text; pyarrow, the extra `parquet`, is imported here."""
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise ValueError(f"{file} needs pyarrow; install it with `pip install 'isoflop[parquet]'`") from None
    number = 0
    with _opened(file, reading, tally) as stream, _seekable(stream) as whole:
        try:
            table = parquet.ParquetFile(whole)
            chosen = choose_field(table.schema_arrow.names, reading, str(file))
            kind = table.schema_arrow.field(chosen).type
            kind = kind.value_type if arrow.types.is_dictionary(kind) else kind
            if not any(getattr(arrow.types, f"is_{name}")(kind) for name in _TEXTS):
                raise TypeError(f"the column {chosen} of {file} holds {kind}, which is no text; name another")
            for batch in table.iter_batches(batch_size=1024, columns=[chosen], use_threads=False):
                # as bytes, since other writers leave strings that are not UTF-8
                for raw in batch.column(0).cast(kind).cast(arrow.large_binary()).to_pylist():
                    number += 1
                    text = None if raw is None else decode(raw, tally)
                    yield from _row(file, number, text, reading, tally, chosen=chosen)
        except TypeError as error:
            raise ValueError(str(error)) from None
        except arrow.ArrowException as error:
            _damaged(file, reading, tally, f" after row {number:,} ({str(error).splitlines()[0]})")


_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary")


@contextmanager
def _seekable(stream: io.BufferedReader) -> Iterator[BinaryIO]:
    """Parquet is read from its end, which a compressed file has not: unpack it beside."""
    if isinstance(stream.raw, io.FileIO):
        yield cast(BinaryIO, stream)
        return
    with tempfile.TemporaryFile() as copy:
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.seek(0)
        yield cast(BinaryIO, copy)


PACKINGS: Mapping[str, Packing] = {
    ".gz": Packing(b"\x1f\x8b\x08", lambda raw: gzip.GzipFile(fileobj=raw)),
    ".zst": Packing(b"\x28\xb5\x2f\xfd", _zstd),
    ".xz": Packing(b"\xfd7zXZ\0", lambda raw: lzma.LZMAFile(raw)),  # noqa: SIM115 - closed by _opened
}
"""Compressions, by suffix; a file is unpacked by its first bytes, whatever it is called."""

SUFFIXES: Mapping[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
"""Format of a file by the suffix that its compression leaves; any other is text."""

READERS: Mapping[Format, Reader] = {
    "text": read_text,
    "jsonl": read_jsonl,
    "csv": read_csv,
    "tsv": read_tsv,
    "parquet": read_parquet,
}
