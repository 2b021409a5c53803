"""python -m pytest tests/test_journal.py"""

import json
from pathlib import Path

import pytest

from isoflop.lm.journal import JOURNAL, note, read_journal, trained_twice
from isoflop.lm.train import train

A, B = "node1:10:1.00", "node2:20:2.00"
SOUND = [(A, "began", 0), (A, "saved", 5), (B, "began", 5), (B, "saved", 9), (B, "done", 9)]


def write(run: Path, lines: list[tuple[str, str, int]]) -> None:
    text = "".join(json.dumps({"owner": owner, what: step}) + "\n" for owner, what, step in lines)
    (run / JOURNAL).write_text(text)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (SOUND, None),
        # killed before it could note what it had saved: the next begins later than the journal knows
        ([(A, "began", 0), (B, "began", 5), (B, "done", 9)], None),
        ([(A, "began", 0), (A, "saved", 5), (B, "began", 0)], "at step 0, though step 5 was saved"),
        ([(A, "began", 0), (B, "began", 0), (A, "saved", 5)], f"{A} trained it while {B} did"),
        ([*SOUND, (A, "began", 9)], "after it was done"),
        ([*SOUND, (B, "done", 9)], "finished it twice"),
    ],
)
def test_what_is_trained_twice_is_found(tmp_path: Path, lines: list[tuple[str, str, int]], said: str | None) -> None:
    write(tmp_path, lines)
    found = trained_twice(tmp_path)
    assert found is None if said is None else said in str(found)


def test_a_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    assert read_journal(tmp_path) == [] and trained_twice(tmp_path) is None
    note(tmp_path, began=3)
    with (tmp_path / JOURNAL).open("a") as file:
        file.write('{"owner": ')
    note(tmp_path, began=5)  # behind the half line, so lost with it
    note(tmp_path, began=6)
    assert [line["began"] for line in read_journal(tmp_path)] == [3, 6]


def test_a_run_keeps_its_journal(make_run) -> None:
    run = make_run(steps=8)
    asked = iter([False] * 4)
    assert train(run, should_stop=lambda: next(asked, True)) is None
    assert train(run) is not None and train(run) is not None
    told = [{name: step for name, step in line.items() if name != "owner"} for line in read_journal(run)]
    assert told == [{"began": 0}, {"saved": 3}, {"saved": 4}, {"began": 4}, {"saved": 6}, {"saved": 8}, {"done": 8}]
    assert trained_twice(run) is None
