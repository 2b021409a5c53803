"""python -m pytest tests/test_axes.py"""

import struct

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from isoflop.report import axes
from isoflop.report.axes import MOST_TICKS, chinese_font, compact, log_axis, log_ticks, picture, power, shades


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (950, "950"),
        (2e4, "20k"),
        (12_345, "12.3k"),
        (999_999, "1M"),
        (1.5e9, "1.5B"),
        (2e12, "2T"),
        (1e16, "$10^{16}$"),
    ],
)
def test_counts_are_written_as_people_say_them(value: float, text: str) -> None:
    assert compact(value) == text


def test_powers_have_two_digits() -> None:
    assert power(1e11) == "$10^{11}$"
    assert power(2.04e11) == "$2\\times10^{11}$"
    assert power(9.99e10) == "$10^{11}$"
    assert power(2.5e11) == "$2.5\\times10^{11}$"


@pytest.mark.parametrize(("low", "high"), [(1e4, 1.3e4), (1e4, 6e4), (7e4, 3e6), (1e11, 1e24), (3, 9e99)])
def test_ticks_are_round_and_few_but_never_missing(low: float, high: float) -> None:
    ticks = log_ticks(low, high)
    assert 2 <= len(ticks) <= MOST_TICKS
    assert low <= min(ticks) and max(ticks) <= high
    assert all(float(f"{tick:.3g}") == pytest.approx(tick) for tick in ticks)


def test_an_axis_shows_its_ticks() -> None:
    ax = Figure().add_subplot()
    log_axis(ax, "x", 9e3, 1.2e5)
    assert ax.get_xscale() == "log" and ax.get_xlim() == (9e3, 1.2e5)
    shown = [ax.xaxis.get_major_formatter()(tick) for tick in ax.get_xticks()]
    assert "20k" in shown and "100k" in shown


def test_shades_darken_with_smaller_values_and_survive_a_single_one() -> None:
    shade = shades(np.array([1e11, 1e12]))
    assert sum(shade(1e11)[:3]) < sum(shade(1e12)[:3])
    assert len(shades(np.array([5.0]))(5.0)) == 4


def test_a_picture_has_twice_the_pixels_of_800() -> None:
    image = picture(lambda ax: ax)
    assert image[:4] == b"\x89PNG" and struct.unpack(">II", image[16:24]) == (1600, 1000)


def test_no_chinese_font_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axes, "CHINESE_FONTS", {"No Such Font": "nosuchfont"})
    with pytest.raises(ValueError, match=r"no font with Chinese glyphs .*fonts-wqy-zenhei"):
        picture(lambda ax: ax, "zh")


def test_a_font_that_is_not_in_the_cache_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    file = font_manager.findfont("DejaVu Serif")
    manager = font_manager.FontManager.__new__(font_manager.FontManager)
    manager.ttflist = []
    monkeypatch.setattr(font_manager, "fontManager", manager)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [file])
    monkeypatch.setattr(font_manager.FontManager, "addfont", lambda self, path: self.ttflist.append(path))
    monkeypatch.setattr(axes, "CHINESE_FONTS", {"Some Name": "dejavuserif"})
    assert chinese_font() == "DejaVu Serif"
    assert manager.ttflist == [file]
