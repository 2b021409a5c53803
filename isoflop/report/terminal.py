"""Pictures for a terminal: points of several series in characters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from isoflop.record import Floats
from isoflop.report.axes import compact

MARKS = "●▲■◆▼★○△□◇"
COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "red")


class Series(NamedTuple):
    """Points that belong together."""

    label: str
    x: Floats
    """Drawn in the logarithm."""
    y: Floats
    best: tuple[float, float] | None = None
    """A point of its own, drawn as +: the bottom of a parabola."""


class Cell(NamedTuple):
    """One character and its colour."""

    mark: str = " "
    colour: str = ""


def scatter(series: Sequence[Series], *, width: int = 60, height: int = 12) -> list[list[Cell]]:
    """Draw series over ln x as lines of cells, with the ends of both axes named; no line without a point.

    Args:
        series: Points; each series has a mark and a colour of its own.
        width: Characters, axis included.
        height: Lines of the plot, without the x axis.
    """
    drawn = [one for one in series if len(one.x)]
    if not drawn:
        return []
    ends = np.array([one.best for one in drawn if one.best is not None]).reshape(-1, 2)
    x = np.log(np.concatenate([*(one.x for one in drawn), ends[:, 0]]))
    y = np.concatenate([*(one.y for one in drawn), ends[:, 1]])
    left = 8
    columns = width - left
    grid = [[Cell()] * columns for _ in range(height)]

    def put(at_x: float, at_y: float, cell: Cell) -> None:
        column = round((np.log(at_x) - x.min()) / max(np.ptp(x), 1e-9) * (columns - 1))
        row = round((y.max() - at_y) / max(np.ptp(y), 1e-9) * (height - 1))
        grid[row][column] = cell

    for index, one in enumerate(drawn):
        mark, colour = MARKS[index % len(MARKS)], COLOURS[index % len(COLOURS)]
        for at_x, at_y in zip(one.x, one.y, strict=True):
            put(at_x, at_y, Cell(mark, colour))
        if one.best is not None:
            put(*one.best, Cell("+", f"bold {colour}"))
    levels = {0: y.max(), height - 1: y.min()}
    lines = [
        [*_plain(f"{levels[row]:6.3f} ┤" if row in levels else f"{'':6} │"), *cells] for row, cells in enumerate(grid)
    ]
    low, high = compact(float(np.exp(x.min()))), compact(float(np.exp(x.max())))
    axis = f"{'':6} └{low}{'─' * max(1, columns - len(low) - len(high))}{high}"
    return [*lines, _plain(axis), *_legend(drawn, width)]


def _legend(drawn: Sequence[Series], width: int) -> list[list[Cell]]:
    """Name the series, in as many lines as the width asks for."""
    lines: list[list[Cell]] = []
    for index, one in enumerate(drawn):
        mark = Cell(MARKS[index % len(MARKS)], COLOURS[index % len(COLOURS)])
        entry = [mark, *_plain(f" {one.label}")]
        if not lines or len(lines[-1]) + 2 + len(entry) > width:
            lines.append(_plain(" " * 8) + entry)
        else:
            lines[-1] += _plain("  ") + entry
    return lines


def _plain(text: str) -> list[Cell]:
    return [Cell(mark) for mark in text]
