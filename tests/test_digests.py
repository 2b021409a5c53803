"""python -m pytest tests/test_digests.py"""

import hashlib

from isoflop.data.digests import Digests


def test_it_is_a_set_of_less_than_fifty_bytes_a_digest() -> None:
    held = Digests()
    keys = [hashlib.sha256(bytes([n % 256, n // 256])).digest() for n in range(20_000)]
    assert all(held.add(key) for key in keys) and not any(held.add(key) for key in keys)
    assert len(held) == 20_000 and held.num_bytes < 50 * 20_000
