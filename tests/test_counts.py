"""python -m pytest tests/test_counts.py"""

import pytest

from isoflop.counts import SUFFIXES, number_of, parse


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.3e9", 1.3e9),
        ("70M", 7e7),
        ("1.5 B", 1.5e9),
        ("2t", 2e12),
        ("3_000", 3000),
        ("3_000k", 3e6),
        ("-1", -1),
        ("1,000,000", 1e6),
        ("1,000.5", 1000.5),
        ("12 345", 12345),
        ("3,5", 3.5),
        ("0,123", 0.123),
    ],
)
def test_a_number_as_people_write_it(text: str, number: float) -> None:
    assert parse(text) == pytest.approx(number)


def test_every_suffix_multiplies() -> None:
    assert {letter: parse(f"2{letter}") / 2 for letter in SUFFIXES} == SUFFIXES


def test_a_loss_has_a_comma_for_a_point_and_no_suffix() -> None:
    assert parse("3,512", loss=True) == 3.512
    with pytest.raises(ValueError, match="has a suffix, which no loss has"):
        parse("3M", loss=True)
    with pytest.raises(ValueError, match=r"is no number; write it like 2\.71"):
        parse("low", loss=True)


@pytest.mark.parametrize("text", ["", "M", "1.2.3", "ten", "_M"])
def test_what_is_no_count(text: str) -> None:
    with pytest.raises(ValueError, match="is no number; write it like 1e9, 20M"):
        parse(text)


def test_a_count_that_may_be_two_numbers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"may be 70500 or 70\.500; write it without the comma"):
        parse("70,500")


def test_one_of_a_thing_is_no_plural() -> None:
    assert [number_of(n, "run") for n in (0, 1, 1200)] == ["0 runs", "1 run", "1,200 runs"]
