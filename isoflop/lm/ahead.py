"""Batches for a GPU, cut and put into pinned memory while it computes: the copy to it then waits for nothing.

A CPU that trains has no core to spare for it, and needs none: cutting a batch takes 0.1 to 0.2 ms (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

Pair = tuple[Tensor, Tensor]


class Ahead:
    """The batch of the step after the one that was taken, made by a thread of its own."""

    def __init__(self, cut: Callable[[int], Pair], *, pin: bool = True) -> None:
        """Make batches by `cut`, a function of the step alone; only the thread calls it."""
        self._cut, self._pin = cut, pin
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="batches")
        self._next: tuple[int, Future[Pair]] | None = None

    def take(self, step: int) -> Pair:
        """Return the batch of a step, which need not be the one foreseen, and begin with the one after."""
        if self._next is None or self._next[0] != step:
            self._next = step, self._thread.submit(self._made, step)
        batch = self._next[1].result()
        self._next = step + 1, self._thread.submit(self._made, step + 1)
        return batch

    def _made(self, step: int) -> Pair:
        x, y = self._cut(step)
        return (x.pin_memory(), y.pin_memory()) if self._pin else (x, y)
