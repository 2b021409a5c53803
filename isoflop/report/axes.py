"""How figures look: fonts, colours, ticks that people can read, and pictures as bytes."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from isoflop.record import Floats
from isoflop.report.words import Lang

# Okabe and Ito, "Color universal design", 2008: told apart with every common colour blindness
BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#666666"
STYLE: Mapping[str, Any] = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 13,
    "axes.labelsize": 12,
    "font.size": 11,
    "grid.alpha": 0.25,
    "legend.fontsize": 10,
    "legend.frameon": False,
}
MOST_TICKS = 9
"""More short labels than this run into each other on an axis of 500 pixels."""
MOST_POWERS = 6
"""The same for labels like 2×10¹¹."""


def picture(draw: Callable[[Axes], Axes], lang: Lang = "en") -> bytes:
    """Draw one figure as PNG, 8 × 5 inches, twice the pixels of the 800 that it is meant for.

    Raises:
        ValueError: Chinese is asked for and no font has it.
    """
    return panels([draw], lang)


def panels(draws: Sequence[Callable[[Axes], Axes]], lang: Lang = "en") -> bytes:
    """Draw figures in rows of up to three that share their vertical axis, as PNG.

    Raises:
        ValueError: Chinese is asked for and no font has it.
    """
    fonts = ["DejaVu Sans"] if lang == "en" else ["DejaVu Sans", chinese_font()]
    style: dict[Any, Any] = {**STYLE, "font.family": fonts}
    buffer = io.BytesIO()
    with mpl.rc_context(style), _quiet_fonts():
        rows, columns = -(-len(draws) // 3), min(len(draws), 3)
        figure = Figure(
            figsize=(8 if columns == 1 else 5 * columns, 5 if rows == 1 else 4 * rows), dpi=200, layout="constrained"
        )
        axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
        for draw, ax in zip_longest(draws, axes):
            draw(ax) if draw else ax.remove()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


@contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Keep matplotlib from telling that a Chinese font's only weight is not called normal."""
    logger = logging.getLogger("matplotlib.font_manager")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def chinese_font() -> str:
    """Return the name of a font with Chinese glyphs.

    Raises:
        ValueError: there is none.
    """
    for name in CHINESE_FONTS:
        if name in {font.name for font in font_manager.fontManager.ttflist}:
            return name
    # fonts installed after matplotlib wrote its cache
    for path in font_manager.findSystemFonts():
        for stem in CHINESE_FONTS.values():
            if Path(path).stem.lower().startswith(stem):
                font_manager.fontManager.addfont(path)
                return font_manager.FontProperties(fname=path).get_name()
    raise ValueError(
        f"no font with Chinese glyphs was found ({', '.join(CHINESE_FONTS)}); install one, such as the Debian package "
        f"fonts-wqy-zenhei, or use --lang en"
    )


def compact(value: float) -> str:
    """Write a count as people say it: 20k, 1.5M, 3B, 2T, and powers of ten beyond."""
    if value >= 1e15 or value < 1:
        return power(value)
    for unit, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= 0.9995 * unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.3g}"


def power(value: float) -> str:
    """Write a number as m×10^k in mathtext, two digits."""
    digits, exponent = f"{value:.1e}".split("e")
    exponent = f"{{{int(exponent)}}}"
    mantissa = digits.removesuffix(".0")
    return f"$10^{exponent}$" if mantissa == "1" else f"${mantissa}\\times10^{exponent}$"


def log_ticks(low: float, high: float, *, most: int = MOST_TICKS) -> list[float]:
    """Choose round numbers between two positive ones: fine where the axis is short, whole decades where it is long."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for leads in LEADS:
        ticks = [lead / 100 * 10.0**k for k in decades for lead in leads]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            return ticks
    whole = [10.0**k for k in decades if low <= 10.0**k <= high]
    return whole[:: math.ceil(len(whole) / most)]


def log_axis(
    ax: Axes, which: Literal["x", "y"], low: float, high: float, *, write: Callable[[float], str] = compact
) -> None:
    """Make an axis logarithmic from low to high, with labels that `write` makes."""
    axis = ax.xaxis if which == "x" else ax.yaxis
    if which == "x":
        ax.set_xscale("log")
        ax.set_xlim(low, high)
    else:
        ax.set_yscale("log")
        ax.set_ylim(low, high)
    axis.set_major_locator(FixedLocator(log_ticks(low, high, most=MOST_POWERS if write is power else MOST_TICKS)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: write(value)))
    axis.set_minor_locator(NullLocator())


def shades(values: Floats) -> Callable[[float], tuple[float, ...]]:
    """Return colours for positive values, dark to light as they grow (viridis without its yellow, pale on white)."""
    low, high = math.log(values.min()), math.log(values.max())
    map_ = mpl.colormaps["viridis"]

    def shade(value: float) -> tuple[float, ...]:
        along = 0.5 if high - low < 1e-9 else (math.log(value) - low) / (high - low)
        return tuple(float(part) for part in map_(0.85 * float(np.clip(along, 0, 1))))

    return shade


LEADS = (
    range(100, 1000, 5),
    range(100, 1000, 10),
    range(100, 1000, 20),
    (100, 120, 150, 200, 250, 300, 400, 500, 600, 800),
    (100, 150, 200, 300, 500, 700),
    (100, 200, 500),
    (100, 300),
    (100,),
)
"""Ticks within a decade, in hundredths of it, from fine to coarse."""
CHINESE_FONTS: Mapping[str, str] = {
    "WenQuanYi Zen Hei": "wqy-zenhei",
    "WenQuanYi Micro Hei": "wqy-microhei",
    "Noto Sans CJK SC": "notosanscjk",
    "Noto Sans CJK JP": "notosanscjk",
    "Source Han Sans SC": "sourcehansans",
    "SimHei": "simhei",
    "Microsoft YaHei": "msyh",
    "PingFang SC": "pingfang",
}
