"""The seeded stream of batches: of one source or of several by weight, each batch a function of seed and step alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int64, Integer

Ids = Integer[np.ndarray, " ids"]
Starts = Int64[np.ndarray, " windows"]
Batch = Int64[np.ndarray, "batch seq"]

BLOCK = 1024
"""Sequences in which each source of a mixture has its share, to within one; where they stand there is drawn."""


@dataclass(frozen=True)
class Epochs:
    """The sequences of one source, epoch after epoch.

    An epoch cuts the file into windows that do not overlap, from an offset of its own, and takes every window once, in
    an order of its own.
    """

    ids: Ids
    context_length: int
    """Tokens in a sequence."""
    seed: int
    _orders: dict[int, tuple[int, Integer[np.ndarray, " windows"]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"seed={self.seed} must not be negative")
        if len(self.ids) <= self.context_length:
            raise ValueError(
                f"the training split has {len(self.ids):,} tokens, less than one context of {self.context_length} and "
                "the token after it; use more text, or a shorter context_length"
            )

    @property
    def windows(self) -> int:
        """Windows of an epoch: as many as fit after any offset below `context_length`."""
        return max(1, len(self.ids) // self.context_length - 1)

    def starts(self, first: int, count: int) -> Starts:
        """Return where `count` sequences start, from the one of number `first` on; they may run into later epochs."""
        found = [np.empty(0, dtype=np.int64)]
        while count > 0:
            epoch, at = divmod(first, self.windows)
            offset, order = self._order(epoch)
            found.append(order[at : at + count] * np.int64(self.context_length) + offset)
            first, count = first + len(found[-1]), count - len(found[-1])
        return np.concatenate(found)

    def _order(self, epoch: int) -> tuple[int, Integer[np.ndarray, " windows"]]:
        if epoch not in self._orders:
            random = np.random.default_rng([self.seed, epoch])
            order = np.arange(self.windows, dtype=np.uint32)
            random.shuffle(order)
            room = len(self.ids) - self.windows * self.context_length
            for past in [known for known in self._orders if known < epoch - 1 or known > epoch]:
                del self._orders[past]
            self._orders[epoch] = int(random.integers(min(room, self.context_length))), order
        return self._orders[epoch]


@dataclass(frozen=True)
class BatchStream:
    """The batches of a run, found from seed and step at once, so that a resumed run goes on exactly.

    Each source is read in the order in which a run on it alone would read it. A batch may end one epoch and begin the
    next.
    """

    sources: Mapping[str, Epochs]
    """By name."""
    weights: tuple[float, ...]
    """Share of the sequences that each source has; they sum to 1."""
    batch_size: int
    """Sequences in a batch."""
    seed: int
    _blocks: dict[int, Integer[np.ndarray, " block"]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        windows, length = sum(source.windows for source in self.sources.values()), self.context_length
        if self.batch_size > windows:
            raise ValueError(
                f"batch_size={self.batch_size} is more than the {windows} windows of {length} tokens "
                f"in the training split; try batch_size={windows}"
            )
        for name, weight in zip(self.sources, self.weights, strict=True):
            if weight * BLOCK < 2:
                raise ValueError(
                    f"{name} has {weight:.2g} of the mixture, too little to be drawn evenly; give it at least "
                    f"{2 / BLOCK:.2g}, or leave it out"
                )

    @property
    def context_length(self) -> int:
        """Tokens in a sequence."""
        return next(iter(self.sources.values())).context_length

    def batch(self, step: int, *, part: int = 0, parts: int = 1) -> tuple[Batch, Batch]:
        """Return inputs and targets of a step, or of one of its equal parts: a target is the token after its input."""
        rows = self.batch_size // parts
        first = step * self.batch_size + part * rows
        chosen = self._chosen(first, first + rows)
        inputs, targets = (np.empty((rows, self.context_length), dtype=np.int64) for _ in range(2))
        for number, (source, before) in enumerate(zip(self.sources.values(), self.drawn(first), strict=True)):
            here = np.flatnonzero(chosen == number)
            starts = source.starts(before, len(here))
            inputs[here], targets[here] = cut_windows(source.ids, starts, context_length=self.context_length)
        return inputs, targets

    def drawn(self, sequences: int) -> list[int]:
        """Return how many of the first `sequences` came from each source."""
        block = sequences // BLOCK
        rest = self._chosen(block * BLOCK, sequences)
        return [whole + int((rest == number).sum()) for number, whole in enumerate(self._whole(block))]

    def seen(self, steps: int) -> dict[str, dict[str, float]]:
        """Say what of each source the first `steps` show: tokens, those of them that are different, and epochs."""
        told = {}
        for (name, source), drawn in zip(self.sources.items(), self.drawn(steps * self.batch_size), strict=True):
            tokens, there = drawn * self.context_length, len(source.ids)
            told[name] = {"tokens": tokens, "unique_tokens": min(tokens, there), "epochs": tokens / there}
        return told

    def _whole(self, blocks: int) -> list[int]:
        """Count the sequences of each source in so many blocks: what stands below each source's part of the whole."""
        # in whole numbers, the same on every machine: a float would lose count of a long run
        tops = [round(sum(self.weights[: number + 1]) * 2**32) for number in range(len(self.weights) - 1)] + [2**32]
        below = [blocks * BLOCK * top >> 32 for top in tops]
        return [high - low for high, low in zip(below, [0, *below], strict=False)]

    def _chosen(self, first: int, last: int) -> Integer[np.ndarray, " sequences"]:
        """Return the number of the source of each sequence."""
        if len(self.sources) == 1:
            return np.zeros(last - first, dtype=np.int64)
        found = [np.empty(0, dtype=np.int64)]
        while first < last:
            block, at = divmod(first, BLOCK)
            found.append(self._block(block)[at : at + last - first])
            first += len(found[-1])
        return np.concatenate(found)

    def _block(self, block: int) -> Integer[np.ndarray, " block"]:
        if block not in self._blocks:
            counts = np.diff([self._whole(block), self._whole(block + 1)], axis=0)[0]
            sources = np.repeat(np.arange(len(counts)), counts)
            np.random.default_rng([self.seed, block, BLOCK]).shuffle(sources)
            for past in [known for known in self._blocks if known < block - 1 or known > block]:
                del self._blocks[past]
            self._blocks[block] = sources
        return self._blocks[block]


def stream_of(ids: Ids, *, batch_size: int, context_length: int, seed: int) -> BatchStream:
    """Return the batches of one source."""
    return BatchStream({"train": Epochs(ids, context_length, seed)}, (1.0,), batch_size, seed)


def cut_windows(ids: Ids, starts: Starts, *, context_length: int) -> tuple[Batch, Batch]:
    """Return the windows that start at `starts`, as inputs and the targets one token further."""
    # a plain array, since indexing a memory map costs more than the batch
    rows = np.lib.stride_tricks.sliding_window_view(np.asarray(ids), context_length + 1)[starts]
    return rows[:, :-1].astype(np.int64), rows[:, 1:].astype(np.int64)
