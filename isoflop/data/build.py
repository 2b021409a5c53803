"""Token folders from texts: read, split by document, encoded in parallel, published whole or not at all."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.data.corpus import Corpus, Document, Tally, hold
from isoflop.data.encode import dtype_of, write_splits
from isoflop.data.meta import FORMAT, META, TOKENIZER, TRAIN, VAL, VERIFIED, is_token_folder, read_meta
from isoflop.data.tokenizer import BPE_VOCAB, TOKENIZERS, Tokenizer, load_tokenizer, make_tokenizer
from isoflop.files import sync_folder, write_json

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, bytes of text done, and bytes of text in all."""
BUILDING = ".building"
"""Folder inside a token folder that holds what is not whole yet."""
SAMPLE = 100_000_000
"""Bytes of text that a bpe learns from, about, where the corpus has more: its time (a minute) and memory have a bound
then, whatever the corpus; `benchmarks/data.py` prints both."""
PIECE = 100_000
"""Characters of a document that are sampled, or not, together."""
REPORTED = 1_000_000
"""Bytes of text between two reports of progress."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What decides the content of a token folder."""

    corpus: Corpus
    """The texts."""
    tokenizer: str = "bytes"
    """`bytes`, `bpe` (trained here, on the training documents), or a tokenizer.json."""
    vocab_size: int | None = None
    """Ids of a bpe; None: 4096."""
    end_of_text: str | None = None
    """Spelling of the token of a tokenizer.json that ends a document; None: one of the usual ones."""
    val_fraction: float = 0.1
    """Part of the documents held out for validation; of the standard library, 0.1 leaves 2.0 to 4.1 MB (200 seeds),
    while 0.05 leaves less than 1 MB with one seed in twenty."""
    seed: int = 0
    """Decides which documents are held out."""

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction={self.val_fraction} must lie between 0 and 1; try 0.1")

    def options(self) -> dict[str, Any]:
        """Return what must be equal for two folders of the same text to be the same."""
        options: dict[str, Any] = asdict(self)
        corpus: dict[str, Any] = options.pop("corpus")
        # the text itself is compared by its hash, wherever it lies
        for name in ("sources", "held", "skip_broken"):
            del corpus[name]
        if self.tokenizer not in TOKENIZERS and Path(self.tokenizer).is_file():
            options["tokenizer"] = load_tokenizer(Path(self.tokenizer)).sha256
        if self.tokenizer == "bpe" and self.vocab_size is None:
            options["vocab_size"] = BPE_VOCAB
        return corpus | options


@dataclass(frozen=True)
class Built:
    """A token folder, and whether this call made it."""

    folder: Path
    meta: Mapping[str, Any]
    """What its meta.json says."""
    fresh: bool
    """False: the same text with the same options was there already."""


@dataclass(frozen=True)
class _Survey:
    """What a first look at the whole text gives."""

    tally: Tally
    sha256: str
    cut: int
    """Documents whose key is below are validation."""

    @property
    def num_bytes(self) -> int:
        return self.tally.count("bytes")


def build(
    recipe: Recipe,
    out: Path,
    *,
    workers: int = 2,
    force: bool = False,
    on_progress: OnProgress = lambda doing, done, total: None,
) -> Built:
    """Make a token folder, or recognise the one that is there.

    Args:
        recipe: What to make; the result depends on nothing else.
        out: The folder. It is written to only when all is done.
        workers: Threads that encode.
        force: Replace a token folder of other text or options.
        on_progress: Called now and then.

    Raises:
        ValueError: there is no text, too little to split, an unusable tokenizer, or something else in `out`.
    """
    if workers < 1:
        raise ValueError(f"workers={workers} must be at least 1")
    options = recipe.options()
    with _claim(out) as work:
        there = _there(out, force=force)
        work.mkdir()
        recipe = replace(recipe, corpus=hold(recipe.corpus, work))
        survey = _survey(recipe, on_progress)
        if there is not None:
            _recognise(out, there, options, survey)
            shutil.rmtree(work)
            return Built(out, there, fresh=False)
        learnt = _Learnt()
        texts = _sampled(_training(recipe, survey, on_progress), survey, learnt)
        tokenizer = make_tokenizer(
            recipe.tokenizer, texts, vocab_size=recipe.vocab_size, end_of_text=recipe.end_of_text
        )
        splits = _write(recipe, work, survey=survey, tokenizer=tokenizer, workers=workers, on_progress=on_progress)
        tokenizer.save(work / TOKENIZER)
        meta = _describe(options, survey, tokenizer, splits, learnt)
        write_json(work / META, meta)
        _publish(work, out)
    return Built(out, meta, fresh=True)


@contextmanager
def _claim(out: Path) -> Iterator[Path]:
    """Keep other builds out, name a folder to work in, and leave nothing of a failure behind."""
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    work = out / BUILDING
    if not (out / META).exists() and not work.exists() and (other := next(out.iterdir(), None)):
        raise ValueError(f"{out} holds {other.name} and is no token folder; choose a folder that is empty or new")
    lock = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{out} is being built by another process; wait for it or stop it") from None
        shutil.rmtree(work, ignore_errors=True)
        try:
            yield work
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            if new:
                out.rmdir()
            raise
    finally:
        os.close(lock)


def _there(out: Path, *, force: bool) -> dict[str, Any] | None:
    """Return what the folder that is there says of itself; None: there is none, or it is to be replaced."""
    if not (out / META).exists():
        return None
    if force and is_token_folder(out):
        return None
    return read_meta(out)


def _survey(recipe: Recipe, on_progress: OnProgress) -> _Survey:
    """Look at all documents once: what there is, its hash, and where the split lies."""
    tally, digests, low, high = Tally(), hashlib.sha256(), 1 << 64, -1
    documents = recipe.corpus.documents(tally)
    for document in _reported(documents, "reading", recipe.corpus.num_bytes(), on_progress):
        digests.update(document.digest)
        key = _key(document, recipe.seed)
        low, high = min(low, key), max(high, key)
    if low >= high:
        where = _said(recipe.corpus, tally)
        if high < 0:
            raise ValueError(f"the corpus is empty: {where}; name files, folders or globs that hold text")
        raise ValueError(
            f"one document cannot be split into training and validation: {where}; add texts, or name what stands "
            "between the documents of a file, such as --separator '\\n\\n' for an empty line"
        )
    # at least one document on each side, however few there are
    cut = min(max(round(recipe.val_fraction * 2**64), low + 1), high)
    return _Survey(tally, digests.hexdigest(), cut)


def _said(corpus: Corpus, tally: Tally) -> str:
    sources = " ".join(corpus.sources[:3]) + (" …" if len(corpus.sources) > 3 else "")
    left = ", ".join(f"{number} {reason.replace('_', ' ')}" for reason, number in tally.skipped.items())
    return f"{sources} (left out: {left})" if left else sources


def _key(document: Document, seed: int) -> int:
    """Draw 64 bits for a document; its text alone decides them, so that copies of a text share a split."""
    return int.from_bytes(hashlib.sha256(f"{seed} ".encode() + document.digest).digest()[:8], "big")


def _training(recipe: Recipe, survey: _Survey, on_progress: OnProgress) -> Iterator[Document]:
    documents = _reported(recipe.corpus.documents(Tally()), "learning", survey.num_bytes, on_progress)
    return (document for document in documents if _key(document, recipe.seed) >= survey.cut)


@dataclass
class _Learnt:
    """What a tokenizer was trained on."""

    counts: dict[str, int] = field(default_factory=lambda: {"pieces": 0, "bytes": 0})


def _sampled(documents: Iterable[Document], survey: _Survey, learnt: _Learnt) -> Iterator[str]:
    """Yield all text, or pieces drawn evenly from all over a corpus that is larger than SAMPLE."""
    share = round(min(1.0, SAMPLE / survey.num_bytes) * 2**64)
    for document in documents:
        step = PIECE if share < 2**64 else max(1, len(document.text))
        for start in range(0, len(document.text), step):
            drawn = hashlib.sha256(document.digest + start.to_bytes(8)).digest()
            if int.from_bytes(drawn[:8]) < share:
                piece = document.text[start : start + step]
                learnt.counts["pieces"] += 1
                learnt.counts["bytes"] += len(piece.encode())
                yield piece


def _reported(documents: Iterable[Document], doing: str, total: int, on_progress: OnProgress) -> Iterator[Document]:
    done = said = 0
    on_progress(doing, 0, total)
    for document in documents:
        yield document
        done += document.num_bytes
        if done - said >= REPORTED:
            on_progress(doing, said := done, total)
    on_progress(doing, total, total)


def _recognise(out: Path, meta: Mapping[str, Any], options: Mapping[str, Any], survey: _Survey) -> None:
    """Refuse a folder that is not what would be built."""
    there = meta["options"]
    differences = [
        f"{name}={value!r} (there {there.get(name)!r})" for name, value in options.items() if value != there.get(name)
    ]
    if meta["text_sha256"] != survey.sha256:
        before = meta["train"]["documents"] + meta["val"]["documents"]
        differences.append(f"the text, {survey.tally.count('documents'):,} documents (there {before:,})")
    for split in ("train", "val"):
        file = out / f"{split}.bin"
        if not file.exists() or file.stat().st_size != meta[split]["tokens"] * np.dtype(meta["dtype"]).itemsize:
            differences.append(f"{file.name}, which is damaged there")
    if differences:
        raise ValueError(
            f"{out} was built otherwise: {'; '.join(differences)}; add --force to replace it, or choose another folder"
        )


def _write(
    recipe: Recipe, work: Path, *, survey: _Survey, tokenizer: Tokenizer, workers: int, on_progress: OnProgress
) -> dict[str, Any]:
    digests = hashlib.sha256()

    def documents() -> Iterator[Document]:
        for document in recipe.corpus.documents(Tally()):
            digests.update(document.digest)
            yield document

    splits = write_splits(
        _reported(documents(), "encoding", survey.num_bytes, on_progress),
        tokenizer,
        work,
        held_out=lambda document: _key(document, recipe.seed) < survey.cut,
        workers=workers,
    )
    if digests.hexdigest() != survey.sha256:
        raise ValueError("the text changed while it was read; repeat the command when nobody writes to it")
    return splits


def _describe(
    options: Mapping[str, Any], survey: _Survey, tokenizer: Tokenizer, splits: Mapping[str, Any], learnt: _Learnt
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "dtype": dtype_of(tokenizer),
        "vocab_size": tokenizer.vocab_size,
        "end_of_text": tokenizer.end_of_text,
        "bytes_per_token": splits["val"]["bytes"] / splits["val"]["tokens"],
        **splits,
        "tokenizer_sha256": tokenizer.sha256,
        "learnt_from": dict(learnt.counts),
        "text_sha256": survey.sha256,
        "options": dict(options),
        "sources": [{"source": source, **counts} for source, counts in survey.tally.sources.items()],
        "text_fields": dict(survey.tally.fields),
        "skipped": dict(survey.tally.skipped),
        "repaired": dict(survey.tally.repaired),
    }


def _publish(work: Path, out: Path) -> None:
    """Move the files to their names; meta.json goes first and comes last, so that no mixture calls itself whole."""
    for name in (META, VERIFIED):
        (out / name).unlink(missing_ok=True)
    for name in (TRAIN, VAL, TOKENIZER):
        os.replace(work / name, out / name)
    sync_folder(out)
    os.replace(work / META, out / META)
    shutil.rmtree(work)  # copies of what could be read only once
    sync_folder(out)
