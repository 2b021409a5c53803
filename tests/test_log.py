"""Run: python -m pytest tests/test_log.py"""

from pathlib import Path

import pytest

from isoflop.sources.log import TAIL, last_line


def test_the_last_whole_line_of_training_counts(tmp_path: Path) -> None:
    lines = b"".join(b'{"step": %d, "train_loss": 2.0}\n' % step for step in range(TAIL))
    (tmp_path / "log.jsonl").write_bytes(lines + b'{"step": 9999, "val_loss": 3}\n{"step": 10000, "train_lo')
    assert last_line(tmp_path / "log.jsonl") == {"step": TAIL - 1, "train_loss": 2.0}


@pytest.mark.parametrize(
    "written", [b"", b'{"step": 1, "train', b'ss": 3}\n{"step": 1, "val_loss": 3}\n'], ids=["empty", "half", "other"]
)
def test_a_log_without_a_whole_line_tells_nothing(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(written)
    assert last_line(tmp_path / "log.jsonl") is None
