"""Documents from sources: files, folders, globs, standard input, data sets of the hub, corpora that are installed."""

from __future__ import annotations

import glob
import os
import shutil
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from isoflop.data import hub
from isoflop.data.digests import Digests
from isoflop.data.document import Document as Document
from isoflop.data.document import Tally as Tally
from isoflop.data.document import clean
from isoflop.data.readers import File, Format, Reading, read_documents

STDIN = "-"
"""The source that stands for standard input."""


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """Texts to be read, always in the same order."""

    sources: tuple[str, ...]
    """Files, folders, globs, `-` (standard input), `hf:NAME`, or names of installed corpora (`stdlib`)."""
    include: str = "*"
    """Glob that the files of a folder must match, by name or by the end of their path."""
    format: Format | None = None
    """How files are read; None: as each one's suffix says."""
    text_field: str | None = None
    """Field or column of JSON lines, CSV and Parquet that holds the text; None: `text`, else `content`."""
    separator: str | None = None
    """Text that stands between the documents of a text file; None: a file is one document."""
    skip_broken: bool = False
    """Count and leave out broken lines and the rest of damaged files, instead of refusing them."""
    max_bytes: int | None = None
    """Stop before the document that would make more text than this, bytes of UTF-8; None: read all."""
    deduplicate: bool = True
    """Keep only the first of equal documents."""
    held: Mapping[str, Path] = field(default_factory=dict)
    """Copies of sources that can be read only once, by source (`hold`)."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError(f"no source is given; name files, folders, globs, or one of {', '.join(INSTALLED)}")
        if self.separator == "":
            raise ValueError("separator='' cuts nothing; leave it out to keep each file one document")
        if self.max_bytes is not None and self.max_bytes < 1:
            raise ValueError(f"max_bytes={self.max_bytes} leaves no text; leave it out to read all")

    @property
    def reading(self) -> Reading:
        """How its files are read."""
        return Reading(
            format=self.format, text_field=self.text_field, separator=self.separator, skip_broken=self.skip_broken
        )

    def files(self, source: str, tally: Tally) -> list[File]:
        """List the files of one source, in the order in which they are read.

        Raises:
            ValueError: there is nothing of that name.
        """
        if source in self.held:
            held = self.held[source]
            called = "standard input" if source == STDIN else source
            return [File(held, "stdin" if source == STDIN else source, held.stat().st_size, True, called)]
        if source == STDIN:
            return [File(Path("/dev/stdin"), "stdin", 0, True, "standard input")]
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
        """Stream the documents, one source after the other, and count them in `tally`.

        Raises:
            ValueError: a file cannot be read as its format says, or none has the field `text_field`.
        """
        seen, total = Digests(), 0
        for source, document in self._all(tally):
            if not document.text or document.text.isspace():
                tally.skipped["blank"] += 1
                continue
            if self.deduplicate and not seen.add(document.digest):
                tally.skipped["duplicate"] += 1
                continue
            total += document.num_bytes
            if self.max_bytes is not None and total > self.max_bytes:
                break
            tally.sources[source].update(documents=1, bytes=document.num_bytes)
            yield document
        if self.text_field is not None and not tally.fields:
            raise ValueError(
                f"text_field={self.text_field!r} is a field of JSON lines, CSV or Parquet, but no file was read as "
                "one; say which with --format, or leave it out"
            )

    def _all(self, tally: Tally) -> Iterator[tuple[str, Document]]:
        for source in self.sources:
            tally.sources.setdefault(source, Counter(documents=0, bytes=0))
            if source.startswith(hub.PREFIX) and source not in self.held:
                for number, (chosen, text) in enumerate(hub.texts(source, self.reading, tally), 1):
                    tally.fields[chosen] += 1
                    yield source, Document(f"{source}#{number}", clean(text, tally))
                continue
            for file in self.files(source, tally):
                for document in read_documents(file, self.reading, tally):
                    yield source, document

    def num_bytes(self) -> int:
        """Return the bytes of all files: what there is to read, where nothing is compressed."""
        named = [source for source in self.sources if source in self.held or not source.startswith(hub.PREFIX)]
        return sum(file.num_bytes for source in named for file in self.files(source, Tally()))


def hold(corpus: Corpus, folder: Path) -> Corpus:
    """Copy the sources that can be read only once, or slowly, into a folder: standard input, pipes, `hf:NAME`."""
    held = {}
    for number, source in enumerate(corpus.sources):
        path = folder / f"source-{number}"
        if source.startswith(hub.PREFIX):
            held[source] = hub.copy(source, path.with_suffix(".jsonl"), corpus.reading, limit=corpus.max_bytes)
        elif source == STDIN or (Path(source).exists() and not Path(source).is_file() and not Path(source).is_dir()):
            with Path("/dev/stdin" if source == STDIN else source).open("rb") as stream, path.open("wb") as copy:
                shutil.copyfileobj(stream, copy, 1 << 20)
            held[source] = path
    return replace(corpus, held=held)


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


INSTALLED: Mapping[str, Callable[[Tally], list[File]]] = {"stdlib": standard_library}
"""Corpora that need no download, by the name that stands for them."""
