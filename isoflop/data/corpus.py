"""Documents from texts: files, folders, globs, and corpora that every machine has installed."""

from __future__ import annotations

import codecs
import glob
import hashlib
import os
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple


@dataclass(frozen=True)
class Document:
    """One text, whole."""

    name: str
    """Where it stands in its source: a relative path, the same on every machine."""
    text: str

    @cached_property
    def num_bytes(self) -> int:
        """Length in UTF-8."""
        return len(self.text.encode())

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).digest()


@dataclass
class Tally:
    """What was read, left out and repaired while documents streamed by, so that nothing is lost in silence."""

    sources: dict[str, Counter[str]] = field(default_factory=dict)
    """Documents and bytes of each source."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Files and documents left out, by reason."""
    repaired: Counter[str] = field(default_factory=Counter)
    """Bytes or characters mended inside documents, by reason."""

    def count(self, what: str) -> int:
        """Return the `documents` or `bytes` of all sources."""
        return sum(counts[what] for counts in self.sources.values())


class File(NamedTuple):
    """A file to read documents from."""

    path: Path
    name: str
    """Name of its documents."""
    num_bytes: int
    picked: bool
    """It was named itself, not found in a folder: then a stray NUL does not make it a binary file."""


Reader = Callable[[File, str | None, Tally], Iterator[Document]]


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts to be read, always in the same order."""

    sources: tuple[str, ...]
    """Files, folders, globs, or names of installed corpora (`stdlib`)."""
    include: str = "*"
    """Glob that the files of a folder must match, by name or by the end of their path."""
    separator: str | None = None
    """Text that stands between the documents of a file; None: a file is one document."""
    deduplicate: bool = True
    """Keep only the first of equal documents."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(f"no source is given; name files, folders, globs, or one of {', '.join(INSTALLED)}")
        if self.separator == "":
            raise ValueError("separator='' cuts nothing; leave it out to keep each file one document")

    def files(self, source: str, tally: Tally) -> list[File]:
        """List the files of one source, in the order in which they are read.

        Raises:
            ValueError: there is nothing of that name.
        """
        if source in INSTALLED:
            found = INSTALLED[source](tally)
        elif Path(source).is_dir():
            found = _walk(Path(source), tally)
        elif Path(source).exists():
            return [_file(Path(source), Path(source).name, picked=True)]
        elif glob.has_magic(source):
            found = _glob(source)
        else:
            known = ", ".join(INSTALLED)
            raise ValueError(f"{source} does not exist; name a file, a folder, a glob, or one of {known}")
        kept = [file for file in found if PurePosixPath(file.name).match(self.include)]
        _count(tally.skipped, "not_included", len(found) - len(kept))
        return kept

    def documents(self, tally: Tally) -> Iterator[Document]:
        """Stream the documents, one source after the other, and count them in `tally`."""
        seen: set[bytes] = set()
        for source, document in self._all(tally):
            if not document.text or document.text.isspace():
                tally.skipped["blank"] += 1
            elif document.digest in seen:
                tally.skipped["duplicate"] += 1
            else:
                if self.deduplicate:
                    seen.add(document.digest)
                tally.sources[source].update(documents=1, bytes=document.num_bytes)
                yield document

    def _all(self, tally: Tally) -> Iterator[tuple[str, Document]]:
        for source in self.sources:
            tally.sources.setdefault(source, Counter(documents=0, bytes=0))
            for file in self.files(source, tally):
                read = READERS.get(file.path.suffix, READERS[""])
                for document in read(file, self.separator, tally):
                    yield source, document

    def num_bytes(self) -> int:
        """Return the bytes of all files, which bounds what there is to read."""
        return sum(file.num_bytes for source in self.sources for file in self.files(source, Tally()))


def _count(counter: Counter[str], reason: str, number: int) -> None:
    if number:
        counter[reason] += number


def _file(path: Path, name: str, *, picked: bool) -> File:
    return File(path, name, path.stat().st_size, picked)


def _walk(folder: Path, tally: Tally, *, leave: frozenset[str] = frozenset()) -> list[File]:
    """List the files below a folder by relative path; what hides behind a dot and `leave` are not entered."""
    found = []
    for here, folders, names in os.walk(folder, onerror=_unreadable):
        seen = [name for name in (*folders, *names) if not name.startswith(".")]
        _count(tally.skipped, "hidden", len(folders) + len(names) - len(seen))
        links = {name for name in folders if name in seen and Path(here, name).is_symlink()}
        _count(tally.skipped, "linked_folder", len(links))
        folders[:] = [name for name in folders if name in seen and name not in leave | links]
        for path in (Path(here, name) for name in names if name in seen):
            if path.is_file():
                found.append(_file(path, (folder.name / path.relative_to(folder)).as_posix(), picked=False))
            else:
                tally.skipped["not_a_file"] += 1
    return sorted(found, key=lambda file: file.name)


def _unreadable(error: OSError) -> None:
    raise error


def _glob(pattern: str) -> list[File]:
    paths = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
    fixed = []
    for part in Path(pattern).parts[:-1]:
        if glob.has_magic(part):
            break
        fixed.append(part)
    base = Path(*fixed)
    return [_file(path, path.relative_to(base).as_posix(), picked=False) for path in paths if path.is_file()]


# Python's sources between these sizes: the text on which the demo's grid was laid out. Smaller files are mostly stubs
# of a few lines; the few larger ones are generated tables, and held a tenth of all bytes in Python 3.11
STDLIB_BYTES = (500, 200_000)


def standard_library(tally: Tally) -> list[File]:
    """List the sources of the running interpreter's standard library, with their tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    leave = frozenset({"site-packages", "dist-packages", "__pycache__"})
    sources = [file for file in _walk(root, Tally(), leave=leave) if file.path.suffix == ".py"]
    least, most = STDLIB_BYTES
    _count(tally.skipped, "too_small", sum(file.num_bytes < least for file in sources))
    _count(tally.skipped, "too_large", sum(file.num_bytes > most for file in sources))
    # the folder is called python3.11 on one machine and python311 on another
    relative = [file._replace(name=file.path.relative_to(root).as_posix()) for file in sources]
    return [file for file in relative if least <= file.num_bytes <= most]


def read_text(file: File, separator: str | None, tally: Tally) -> Iterator[Document]:
    """Read a plain text as one document, or as those that stand between separators.

    Bytes that are not UTF-8 become U+FFFD, byte order marks and NUL vanish, line ends stay as they are; all is counted.
    """
    with file.path.open("rb") as stream:
        if not file.picked and b"\0" in stream.peek(_SNIFFED)[:_SNIFFED]:
            tally.skipped["binary"] += 1
            return
        if separator is None:
            yield Document(file.name, _decode(stream.read(), tally))
            return
        for number, piece in enumerate(_pieces(stream, separator.encode()), 1):
            yield Document(f"{file.name}#{number}", _decode(piece, tally))


def _pieces(stream: BinaryIO, separator: bytes) -> Iterator[bytes]:
    # UTF-8 may be cut as bytes: no character's bytes contain another's
    rest = b""
    while block := stream.read(1 << 20):
        *whole, rest = (rest + block).split(separator)
        yield from whole
    yield rest


# git calls a file binary when its first 8,000 bytes hold a NUL (buffer_is_binary in xdiff-interface.c)
_SNIFFED = 8000


def _decode(raw: bytes, tally: Tally) -> str:
    if raw.startswith(codecs.BOM_UTF8):
        raw = raw[len(codecs.BOM_UTF8) :]
        tally.repaired["byte_order_mark"] += 1
    if nuls := raw.count(0):
        raw = raw.replace(b"\0", b"")
        tally.repaired["nul"] += nuls
    try:
        return raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(errors="replace")
        tally.repaired["invalid_utf8"] += text.count("\ufffd") - raw.count("\ufffd".encode())
        return text


INSTALLED: Mapping[str, Callable[[Tally], list[File]]] = {"stdlib": standard_library}
"""Corpora that need no download, by the name that stands for them."""

READERS: Mapping[str, Reader] = {"": read_text}
"""How a file is read, by its suffix; the empty suffix stands for every other."""
