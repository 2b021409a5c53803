"""A set of digests in one block of memory: 16 bytes each, where Python's set takes over a hundred."""

from __future__ import annotations

_WIDTH = 16
"""Bytes kept of a digest: two of a billion different texts agree in them with a probability of 1e-21."""
_FULLEST = 0.7
"""Share of the slots that may be taken; a search then looks at two slots or so (Knuth, vol. 3, 6.4)."""


class Digests:
    """SHA-256 digests that were seen, in an open-addressing table that doubles."""

    def __init__(self) -> None:
        self._slots = 1 << 10
        self._table = bytearray(self._slots * _WIDTH)
        self._held = 0

    def __len__(self) -> int:
        """Return how many there are."""
        return self._held

    @property
    def num_bytes(self) -> int:
        """Memory of the table, bytes."""
        return len(self._table)

    def add(self, digest: bytes) -> bool:
        """Take a digest in; tell whether it is new."""
        key = digest[:_WIDTH]
        at = self._find(key)
        if self._table[at : at + _WIDTH] == key:
            return False
        self._table[at : at + _WIDTH] = key
        self._held += 1
        if self._held > self._slots * _FULLEST:
            self._grow()
        return True

    def _find(self, key: bytes) -> int:
        """Return where a key stands, or the free place where it would."""
        table, mask = self._table, self._slots - 1
        slot = int.from_bytes(key[:8], "little") & mask
        while (there := table[slot * _WIDTH : slot * _WIDTH + _WIDTH]) != key and there != _FREE:
            slot = (slot + 1) & mask
        return slot * _WIDTH

    def _grow(self) -> None:
        old = self._table
        self._slots *= 2
        self._table = bytearray(self._slots * _WIDTH)
        for start in range(0, len(old), _WIDTH):
            key = bytes(old[start : start + _WIDTH])
            if key != _FREE:
                at = self._find(key)
                self._table[at : at + _WIDTH] = key


_FREE = bytes(_WIDTH)
