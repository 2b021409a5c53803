"""python -m pytest tests/test_cells.py"""

import pytest

from isoflop.sources.cells import number_of, parse


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.3e9", 1.3e9),
        ("70M", 7e7),
        ("1.5 B", 1.5e9),
        ("2t", 2e12),
        ("1,000,000", 1e6),
        ("1,000.5", 1000.5),
        ("12 345", 12345),
        ("3,5", 3.5),
        ("0,123", 0.123),
    ],
)
def test_a_number_as_people_write_it(text: str, number: float) -> None:
    assert parse(text) == pytest.approx(number)


def test_a_loss_has_a_comma_for_a_point_and_no_suffix() -> None:
    assert parse("3,512", loss=True) == 3.512
    with pytest.raises(ValueError, match="has a suffix, which no loss has"):
        parse("3M", loss=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("70,500", r"row 3: n='70,500' may be 70500 or 70\.500; write it without the comma"),
        ("many", "row 3: n='many' is no number; correct it or drop the row"),
        ("7e7 params", "row 3: n='7e7 params' is no number"),
        ("-1", "row 3: n=-1 must be positive and finite"),
        ("1e-320", "row 3: n=1e-320 is of no run"),
    ],
)
def test_a_cell_that_is_none_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        number_of({"n": text}, {"params": "n"}, "params", "row 3")
    assert number_of({"n": " "}, {"params": "n"}, "params", "row 3") is None
