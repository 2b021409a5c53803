"""Run: python -m pytest tests/test_terminal.py"""

import numpy as np

from isoflop.report.terminal import MARKS, Series, scatter


def text(series: list[Series], **size: int) -> list[str]:
    return ["".join(cell.mark for cell in line) for line in scatter(series, **size)]


def test_points_lie_where_their_numbers_say() -> None:
    lines = text([Series("a", np.array([1e3, 1e4, 1e5]), np.array([3.0, 2.0, 1.0]))], width=29, height=5)
    # 21 columns hold the plot, and ln x is even
    assert [line[8:].find(MARKS[0]) for line in lines[:5]] == [0, -1, 10, -1, 20]
    assert lines[0].startswith(" 3.000 ┤")
    assert lines[4].startswith(" 1.000 ┤")
    assert lines[5].strip().startswith("└1k")
    assert lines[5].endswith("100k")
    assert lines[6].strip() == f"{MARKS[0]} a"


def test_each_series_has_a_mark_and_its_best_point_a_plus() -> None:
    x, y = np.array([1.0, 2.0, 4.0]), np.array([2.0, 1.0, 2.0])
    lines = text([Series("low", x, y, (2.0, 0.5)), Series("high", x, y + 1)])
    assert sum(line.count("+") for line in lines[:-1]) == 1
    assert sum(line.count(MARKS[1]) for line in lines[:-1]) == 3
    assert "low" in lines[-1] and "high" in lines[-1]


def test_the_legend_of_many_series_breaks() -> None:
    many = [Series(f"{10 + k}e+10", np.array([1.0, 2.0]), np.array([2.0, 1.0]) + k) for k in range(12)]
    lines = text(many)
    assert max(map(len, lines)) <= 60 and sum("e+10" in line for line in lines) == 3


def test_one_point_and_none() -> None:
    assert sum(line.count(MARKS[0]) for line in text([Series("a", np.array([5.0]), np.array([1.0]))])[:-1]) == 1
    assert text([]) == text([Series("a", np.array([]), np.array([]))]) == []
