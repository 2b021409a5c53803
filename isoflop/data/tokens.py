"""Token files on disk, memory-mapped, and their splits: of a folder, of a raw file, of a mixture of folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from isoflop.config import DataConfig, RunConfig, TokenDtype
from isoflop.data.meta import META as META
from isoflop.data.meta import TOKENIZER, TRAIN, VAL, VERIFIED
from isoflop.data.meta import read_meta as read_meta
from isoflop.data.stream import BatchStream as BatchStream
from isoflop.data.stream import Epochs, Ids, Starts
from isoflop.data.tokenizer import load_tokenizer
from isoflop.files import read_json, sha256, write_json
from isoflop.places import parse_mix

PIECE = 4096
"""Ids in a row that a part of a corpus keeps together: many contexts of the models that are compared on it."""
HELD_OUT = 100
"""One token in so many of a raw file, the last ones, is validation."""
MIXED_VAL = 1 << 24
"""Most validation tokens of a mixture, which are held in memory: 34 MB, and 64 times what an evaluation reads."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Share:
    """One source of a mixture."""

    name: str
    weight: float
    """Its share of the sequences."""
    train: Ids
    """Training ids."""


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """A training and a validation file, open for reading, and what is known of them."""

    train: Integer[np.ndarray, " train"]
    """Training ids; of a mixture none, see `mixed`."""
    val: Integer[np.ndarray, " val"]
    """Validation ids."""
    vocab_size: int
    """Ids that may occur."""
    fingerprint: str
    """SHA-256 of the ids and the tokenizer: equal where runs see the same tokens."""
    end_of_text: int | None
    """Id that ends a document, where it is known."""
    bytes_per_token: float | None
    """UTF-8 bytes of the validation text over its tokens, ends of documents counted; None for raw ids."""
    tokenizer: Path | None
    """The tokenizer.json, where there is one."""
    mixed: tuple[Share, ...] = ()
    """The sources of a mixture."""

    @property
    def train_tokens(self) -> int:
        """Number of training tokens, of all sources."""
        return sum(len(share.train) for share in self.mixed) or len(self.train)


def open_tokens(
    path: str | Path,
    *,
    vocab_size: int | None = None,
    dtype: TokenDtype = "int32",
    val: str | Path | None = None,
    end_of_text: int | None = None,
    tokenizer: str | Path | None = None,
) -> Tokens:
    """Open a token folder, or a raw file of ids.

    Args:
        path: Folder made by `isoflop data`, or a file.
        vocab_size: Ids that the model knows; needed for a raw file without tokenizer.
        dtype: Type of a raw file's ids, little-endian.
        val: Raw file of validation ids; None: the last 1 % of the training file, cut where a document ends if
            the end of text is known.
        end_of_text: Id that ends a document in a raw file.
        tokenizer: The tokenizer.json of a raw file; a folder has its own.

    Raises:
        ValueError: the files are not whole, not what their meta.json says, or hold ids that the vocabulary does not.
    """
    path = Path(path)
    if path.is_dir():
        if val is not None:
            raise ValueError(f"{path} has a validation split of its own, so val={str(val)!r} is not read; leave it out")
        meta = read_meta(path)
        if tokenizer is not None and sha256(Path(tokenizer)) != meta["tokenizer_sha256"]:
            raise ValueError(
                f"{tokenizer} is not the tokenizer that made {path}, which has its own; leave tokenizer_file out"
            )
        return _open_folder(path, vocab_size)
    if not path.exists():
        raise ValueError(f"{path} does not exist; make it: isoflop data SOURCE --out {path}")
    known = None if tokenizer is None else load_tokenizer(Path(tokenizer))
    if known is not None:
        vocab_size = known.vocab_size if vocab_size is None else vocab_size
        end_of_text = known.end_of_text if end_of_text is None else end_of_text
    if vocab_size is None:
        raise ValueError(f"{path} is a raw file and does not say its vocabulary; give vocab_size, or a tokenizer.json")
    train, rest = _open_raw(
        path, dtype=dtype, vocab_size=vocab_size, val=None if val is None else Path(val), end_of_text=end_of_text
    )
    return Tokens(
        train=train,
        val=rest,
        vocab_size=vocab_size,
        fingerprint=_fingerprint(dtype, *(hashlib.sha256(ids.data).hexdigest() for ids in (train, rest))),
        end_of_text=end_of_text,
        bytes_per_token=None,
        tokenizer=None if tokenizer is None else Path(tokenizer),
    )


def open_configured(data: DataConfig, *, vocab_size: int) -> Tokens:
    """Open the tokens that a run's configuration names, or a part of them; errors as `open_tokens`, `open_mixed`.

    Raises:
        ValueError: fewer training tokens are there than it asks for.
    """
    if data.mix is not None:
        for name in ("val", "end_of_text", "tokenizer_file", "train_tokens"):
            if (value := getattr(data, name)) is not None:
                raise ValueError(f"{name}={value!r} is not for mix, which names token folders; leave it out")
        return open_mixed(Path(data.data), parse_mix(data.mix), vocab_size=vocab_size)
    tokens = open_tokens(
        data.data,
        vocab_size=vocab_size,
        dtype=data.dtype,
        val=data.val,
        end_of_text=data.end_of_text,
        tokenizer=data.tokenizer_file,
    )
    return tokens if data.train_tokens is None else replace(tokens, train=_spread(tokens.train, data.train_tokens))


def _spread(ids: Ids, count: int) -> Integer[np.ndarray, " kept"]:
    """Take so many ids in pieces that are evenly spread, so that a part of a corpus is like the whole."""
    if count > len(ids):
        raise ValueError(f"train_tokens={count} are more than the {len(ids)} that the data has; ask for less")
    pieces = -(-count // PIECE)
    starts = np.linspace(0, max(len(ids) - PIECE, 0), pieces).astype(np.int64)
    return np.concatenate([ids[start : start + PIECE] for start in starts])[:count]


def open_other(path: Path, *, tokenizer: Path | None) -> Tokens:
    """Open a token folder to measure a model on that was not trained on it but knows its tokenizer.

    Raises:
        ValueError: the folder was made by another tokenizer, so that its ids mean different texts.
    """
    meta = read_meta(path)
    if tokenizer is None:
        raise ValueError(f"the model knows ids without a tokenizer, and {path} may mean other texts by them")
    theirs, ours = meta["tokenizer_sha256"], sha256(tokenizer)
    if theirs != ours:
        raise ValueError(
            f"{path} was made by another tokenizer ({theirs[:10]}) than the model knows ({ours[:10]}); "
            f"build it with --tokenizer {tokenizer}"
        )
    return open_tokens(path)


def open_mixed(place: Path, weights: Mapping[str, float], *, vocab_size: int | None = None) -> Tokens:
    """Open several token folders as one: training by weight, validation in the same proportions.

    Args:
        place: The folder from which they are named.
        weights: Share of each folder, by name.
        vocab_size: Ids that the model knows.

    Raises:
        ValueError: a folder cannot be opened, or they have not one tokenizer.
    """
    folders = {name: place / name for name in weights}
    metas = {name: read_meta(folder) for name, folder in folders.items()}
    first = next(iter(metas))
    for name, meta in metas.items():
        if meta["tokenizer_sha256"] != metas[first]["tokenizer_sha256"]:
            raise ValueError(
                f"{folders[name]} and {folders[first]} have different tokenizers; build {folders[name]} again with "
                f"--tokenizer {folders[first] / TOKENIZER}"
            )
    opened = {name: _open_folder(folder, vocab_size) for name, folder in folders.items()}
    for name, meta in metas.items():
        split = ("seed", "val_fraction")
        if any(meta["options"].get(option) != metas[first]["options"].get(option) for option in split):
            log.warning(
                "%s and %s were split by another seed or val_fraction: a document of both may be trained on and "
                "measured on; build them alike",
                folders[name],
                folders[first],
            )
    # as many as the source allows that has least for its weight
    most = min(MIXED_VAL, *(len(tokens.val) / weights[name] for name, tokens in opened.items()))
    parts = [_some_documents(opened[name], round(weight * most)) for name, weight in weights.items()]
    val = np.concatenate(parts)
    text = sum(len(part) * (opened[name].bytes_per_token or 0) for name, part in zip(opened, parts, strict=True))
    shares = tuple(Share(name=name, weight=weight, train=opened[name].train) for name, weight in weights.items())
    return Tokens(
        train=val[:0],
        val=val,
        vocab_size=opened[first].vocab_size,
        fingerprint=_fingerprint("mix", *(f"{weights[name]!r} {opened[name].fingerprint}" for name in opened)),
        end_of_text=opened[first].end_of_text,
        bytes_per_token=text / len(val),
        tokenizer=opened[first].tokenizer,
        mixed=shares,
    )


def _open_folder(folder: Path, vocab_size: int | None) -> Tokens:
    meta = read_meta(folder)
    if vocab_size is not None and vocab_size < meta["vocab_size"]:
        raise ValueError(
            f"vocab_size={vocab_size} is less than the {meta['vocab_size']} ids of {folder}; "
            f"give vocab_size={meta['vocab_size']}"
        )
    if not (folder / TOKENIZER).exists() or sha256(folder / TOKENIZER) != meta["tokenizer_sha256"]:
        raise ValueError(
            f"{folder / TOKENIZER} is not the tokenizer that made these tokens (its hash differs from {META}); "
            "bring it back, or build the folder again with --force"
        )
    train, val = (_map(folder / f"{split}.bin", meta["dtype"]) for split in ("train", "val"))
    for split, ids in (("train", train), ("val", val)):
        if len(ids) != meta[split]["tokens"]:
            raise ValueError(
                f"{folder / split}.bin has {len(ids):,} tokens where {META} says {meta[split]['tokens']:,}; "
                "build the folder again with --force"
            )
    _verify(folder, meta, {TRAIN: train, VAL: val})
    return Tokens(
        train=train,
        val=val,
        vocab_size=meta["vocab_size"] if vocab_size is None else vocab_size,
        fingerprint=_fingerprint(
            meta["dtype"], meta["train"]["sha256"], meta["val"]["sha256"], meta["tokenizer_sha256"]
        ),
        end_of_text=meta["end_of_text"],
        bytes_per_token=meta["bytes_per_token"],
        tokenizer=folder / TOKENIZER,
    )


def _verify(folder: Path, meta: Mapping[str, Any], splits: Mapping[str, Ids]) -> None:
    """Check hashes and ids when the files are first seen, or seen changed: size and time of change tell."""
    stamps = {}
    for name in splits:
        stat = (folder / name).stat()
        stamps[name] = [stat.st_size, stat.st_mtime_ns, meta[Path(name).stem]["sha256"], meta["vocab_size"]]
    with contextlib.suppress(OSError, ValueError):
        if read_json(folder / VERIFIED) == stamps:
            return
    for name, ids in splits.items():
        if hashlib.sha256(ids.data).hexdigest() != meta[Path(name).stem]["sha256"]:
            raise ValueError(
                f"{folder / name} was changed or damaged (its hash differs from {META}); "
                "build the folder again with --force"
            )
        _check_ids(ids, meta["vocab_size"], str(folder / name), "build the folder again with --force")
    with contextlib.suppress(OSError):  # a folder that cannot be written to is checked each time
        write_json(folder / VERIFIED, stamps)


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _open_raw(
    path: Path, *, dtype: TokenDtype, vocab_size: int, val: Path | None, end_of_text: int | None
) -> tuple[Integer[np.ndarray, " train"], Integer[np.ndarray, " val"]]:
    splits = [_map(file, dtype) for file in (path, val) if file is not None]
    for ids, file in zip(splits, (path, val), strict=False):
        remedy = "give the vocab_size or the dtype that the file was made with"
        _check_ids(ids, vocab_size, f"{file} read as {dtype}", remedy)
    if val is not None:
        return splits[0], splits[1]
    ids = splits[0]
    cut = len(ids) - len(ids) // HELD_OUT
    if cut == len(ids):
        raise ValueError(
            f"{path} has {len(ids)} tokens, so that its last {1 / HELD_OUT:.0%} is an empty validation split; "
            "give val, a file of validation ids"
        )
    if end_of_text is not None:
        cut = _document_start(ids, cut, end_of_text)
    return ids[:cut], ids[cut:]


def _document_start(ids: Ids, cut: int, end_of_text: int) -> int:
    """Find the first start of a document from `cut` on, else the last before it, else keep the cut."""
    later = np.flatnonzero(ids[cut - 1 : -1] == end_of_text)
    if len(later):
        return cut + int(later[0])
    step = 1 << 20
    for high in range(cut, 1, -step):
        low = max(1, high - step)
        earlier = np.flatnonzero(ids[low - 1 : high - 1] == end_of_text)
        if len(earlier):
            return low + int(earlier[-1])
    return cut


def _map(path: Path, dtype: str) -> Ids:
    if not path.is_file():
        raise ValueError(f"{path} does not exist; check the path, or build it again with isoflop data")
    size, width = path.stat().st_size, np.dtype(dtype).itemsize
    if size == 0:
        raise ValueError(f"{path} is empty; it needs token ids of type {dtype}")
    if size % width:
        raise ValueError(
            f"{path} has {size:,} bytes, which is no multiple of the {width} of {dtype}: "
            "it was cut short, its ids have another dtype, or it is text, which `isoflop data` makes tokens of"
        )
    return np.memmap(path, dtype=np.dtype(dtype).newbyteorder("<"), mode="r")


def _check_ids(ids: Ids, vocab_size: int, where: str, remedy: str) -> None:
    step = 1 << 22  # tokens: a few megabytes at a time, however long the file
    for start in range(0, len(ids), step):
        block = ids[start : start + step]
        if block.max() >= vocab_size or block.min() < 0:
            at = int(np.flatnonzero((block >= vocab_size) | (block < 0))[0])
            raise ValueError(
                f"token {block[at]} at position {start + at:,} of {where} is not below vocab_size={vocab_size}; "
                f"{remedy}"
            )


def validation_windows(ids: Ids, *, context_length: int, val_tokens: int) -> Starts:
    """Return where the windows of the fixed validation set start: `val_tokens` strided evenly over all of it.

    A window predicts `context_length` tokens and reads one more; windows do not overlap. A split with fewer tokens than
    asked for is used whole: its last window is as long as what is left.

    Raises:
        ValueError: the split does not hold one window.
    """
    fit = (len(ids) - 1) // context_length
    if fit < 1:
        raise ValueError(
            f"the validation split has {len(ids):,} tokens, less than one context of {context_length} and the token "
            "after it; use more text, a larger val_fraction, or a shorter context_length"
        )
    count = min(fit, max(1, val_tokens // context_length))
    if count == fit:
        return np.arange(0, len(ids) - 1, context_length, dtype=np.int64)
    return np.arange(count, dtype=np.int64) * (len(ids) - 1 - context_length) // max(1, count - 1)


def _some_documents(tokens: Tokens, most: int) -> Ids:
    """Return whole documents of a validation split, from all over it, that make `most` tokens at most; or its start."""
    ids = tokens.val
    step = 1 << 24  # tokens: a few megabytes at a time, however long the split
    ends = [np.flatnonzero(ids[at : at + step] == tokens.end_of_text) + at + 1 for at in range(0, len(ids), step)]
    bounds = np.concatenate([[0], *ends])
    order = np.random.default_rng(0).permutation(len(bounds) - 1)
    fit = order[np.cumsum(np.diff(bounds)[order]) <= most]
    if len(fit) == 0:
        return np.asarray(ids[:most])
    return np.concatenate([ids[bounds[at] : bounds[at + 1]] for at in np.sort(fit)])


def open_stream(config: RunConfig, tokens: Tokens) -> BatchStream:
    """Return the batches of a run, once it is sure that both splits are long enough for it.

    Raises:
        ValueError: a split is shorter than one context, or the batch is larger than the data.
    """
    length, seed = config.model.context_length, config.train.seed
    validation_windows(tokens.val, context_length=length, val_tokens=length)
    shares = tokens.mixed or (Share(name="train", weight=1.0, train=tokens.train),)
    sources = {share.name: Epochs(share.train, length, seed) for share in shares}
    return BatchStream(sources, tuple(share.weight for share in shares), config.train.batch_size, seed)
