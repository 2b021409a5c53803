"""python -m pytest tests/test_report_transfer.py"""

from functools import partial

import numpy as np
import pytest
from matplotlib.figure import Figure

from isoflop.law.transfer import transfer
from isoflop.report.axes import chinese_font, panels
from isoflop.report.transfer import SAID, activations, rates
from tests.test_law_transfer import WIDTHS, coordinates, records


def test_activations_are_drawn_before_and_after_with_their_slopes() -> None:
    ax = activations(coordinates("mup", 0.7, -0.2), Figure().add_subplot())
    assert len(ax.get_lines()) == 4 and list(ax.get_xticks()) == list(WIDTHS)
    assert ax.get_legend_handles_labels()[1] == ["block 1: +0.70", "block 2: -0.20"]
    assert ax.get_title(loc="left") + ax.get_title() == "mup: after 1 updates (dotted: before)"


def test_rates_are_drawn_with_the_best_and_the_carried_one() -> None:
    (found,) = transfer(records({16: 0.03, 64: 0.003}))
    ax = rates(found, Figure().add_subplot())
    lines = ax.get_lines()
    assert [list(line.get_xdata()) for line in lines[1:4:2]] == [[0.03], [0.003]]  # the stars
    assert list(lines[4].get_xdata()) == [0.03, 0.03]
    assert all(np.isfinite(line.get_ydata()).all() for line in lines)
    assert ax.get_legend_handles_labels()[1] == ["16", "64", SAID["carried"][0]]
    (deep,) = transfer(records({16: 0.03, 64: 0.003}, depths=(2, 4)))
    assert "16 × 4" in rates(deep, Figure().add_subplot()).get_legend_handles_labels()[1]


def test_panels_share_an_axis_that_holds_all_of_them() -> None:
    low, high = coordinates("mup", 0.0), coordinates("standard", 1.0)
    figure = Figure()
    first, second = figure.subplots(1, 2, sharey=True)
    activations(high, first)
    activations(low, second)
    assert first.get_ylim() == second.get_ylim() and first.get_ylim()[1] > 500


def test_the_figures_speak_chinese() -> None:
    try:
        chinese_font()
    except ValueError:
        pytest.skip("no font with Chinese glyphs is installed")
    (found,) = transfer(records({16: 0.03, 64: 0.003}))
    drawn = [partial(activations, coordinates("mup", 0.7), lang="zh"), partial(rates, found, lang="zh")]
    # four panels are two rows
    assert panels(drawn * 2, "zh").startswith(b"\x89PNG")
