"""python -m pytest tests/test_failures.py"""

from pathlib import Path

from isoflop.study.failures import MOST, failures, forgive, note, quarantined
from isoflop.study.launch.event import cancel, cancelled


def test_twice_in_the_same_way_or_often_enough(tmp_path: Path) -> None:
    assert quarantined(tmp_path) is None
    note(tmp_path, "a")
    note(tmp_path, "b")
    assert quarantined(tmp_path) is None
    note(tmp_path, "a")
    assert len(failures(tmp_path)) == MOST and quarantined(tmp_path) == "failed 3 times, last: a"
    note(tmp_path, "a")
    assert quarantined(tmp_path) == "failed twice in the same way: a"
    assert forgive(tmp_path) and not forgive(tmp_path)
    assert quarantined(tmp_path) is None


def test_one_thing_that_goes_wrong_with_other_numbers_is_the_same(tmp_path: Path) -> None:
    note(tmp_path, "out of memory at a peak of 3.21 GB")
    note(tmp_path, "out of memory at a peak of 3.4 GB")
    assert quarantined(tmp_path) == "failed twice in the same way: out of memory at a peak of 3.4 GB"


def test_a_line_cut_short_is_passed_over(tmp_path: Path) -> None:
    note(tmp_path, "a")
    with (tmp_path / "failures.jsonl").open("a") as file:
        file.write('{"rea')
    assert failures(tmp_path) == ["a"]


def test_a_mark_is_made_and_taken_back(tmp_path: Path) -> None:
    assert cancelled(tmp_path) is None
    cancel(tmp_path, "enough")
    assert cancelled(tmp_path) == "enough"
    assert forgive(tmp_path) and cancelled(tmp_path) is None
