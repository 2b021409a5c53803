"""Run: python -m pytest tests/test_index.py"""

import json
import os
from pathlib import Path

import pytest

from isoflop.record import Record
from isoflop.sources import index, read
from isoflop.sources.index import INDEX, read_records
from tests.studies import write_run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve runs, and an index worth writing for them."""
    monkeypatch.setattr(index, "WORTH", 10)
    for number in range(12):
        write_run(tmp_path / "runs" / f"r{number}", N=1e4 + number, C=1e11)
    return tmp_path / "runs"


def test_the_index_says_what_the_folders_say(runs: Path) -> None:
    first = read_records(runs)
    assert (runs / INDEX).exists()
    assert read_records(runs) == first == {path.name: Record.read(path / "record.json") for path in runs.glob("*/")}


def test_records_come_from_the_index_until_their_file_changes(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_records(runs)
    name = sorted(before)[0]
    opened: list[str] = []
    whole = Record.read
    monkeypatch.setattr(Record, "read", lambda path: opened.append(path.parent.name) or whole(path))
    read_records(runs)
    assert not opened
    path = runs / name / "record.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"loss": 9.0}))
    assert read_records(runs)[name].loss == 9.0
    assert opened == [name]


def test_a_record_that_went_is_gone_and_one_of_equal_length_is_read_anew(runs: Path) -> None:
    gone, changed = sorted(read_records(runs))[:2]
    (runs / gone / "record.json").unlink()
    path = runs / changed / "record.json"
    text = path.read_text()
    path.write_text(text.replace("complete", "diverged"))
    os.utime(path, ns=(1, 1))
    known = read_records(runs)
    assert gone not in known
    assert known[changed].status == "diverged"


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[1, 2]\n", b'["a", 1, 2, {"id": 3}]\n', bytes(range(256)), b"[" * 9999]
)
def test_a_damaged_index_is_made_anew(runs: Path, damage: bytes) -> None:
    before = read_records(runs)
    (runs / INDEX).write_bytes(damage)
    assert read_records(runs) == before
    assert len((runs / INDEX).read_bytes().splitlines()) == 12


def test_few_runs_leave_no_index_and_a_folder_that_cannot_be_written_is_read(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(index, "write_bytes", full)
    assert len(read_records(runs)) == 12
    assert not (runs / INDEX).exists()
    monkeypatch.setattr(index, "WORTH", 100)
    assert len(read(runs.parent)) == 12
    assert not (runs / INDEX).exists()
