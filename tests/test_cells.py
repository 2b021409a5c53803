"""python -m pytest tests/test_cells.py"""

import pytest

from isoflop.sources.cells import number_of


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("70,500", r"row 3: n='70,500' may be 70500 or 70\.500; write it without the comma"),
        ("many", "row 3: n='many' is no number; write it like 1e9, 20M or 1.5B, or drop the row"),
        ("7e7 params", "row 3: n='7e7 params' is no number"),
        ("-1", "row 3: n=-1 must be positive and finite"),
        ("1e-320", "row 3: n=1e-320 is of no run"),
    ],
)
def test_a_cell_that_is_none_is_refused_with_its_place(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        number_of({"n": text}, {"params": "n"}, "params", "row 3")
    assert number_of({"n": " "}, {"params": "n"}, "params", "row 3") is None
    assert number_of({"n": "70M"}, {"params": "n"}, "params", "row 3") == 7e7
