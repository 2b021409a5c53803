"""Figures of width and depth transfer: activations as a model grows, and loss against learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator

from isoflop.law.transfer import Coordinates, Size, Transfer
from isoflop.report.axes import GREY, log_axis, shades
from isoflop.report.words import Lang

MARKERS = "osD^vP"
SPREAD = 1.0
"""Nats above the lowest loss that a sweep's figure reaches; what diverged or nearly did lies beyond."""


def activations(measured: Coordinates, ax: Axes, lang: Lang = "en") -> Axes:
    """Draw mean |activation| against size at each place: after the last update, and faint before the first."""
    shade = shades(np.arange(1.0, len(measured.places) + 1))
    last = measured.slopes[-1]
    for i, place in enumerate(measured.places):
        colour, values = shade(i + 1.0), measured.activations[:, :, i]
        name = " ".join(_say(word, lang) for word in place.split())
        label = f"{name}: {last[i]:+.2f}"
        ax.plot(measured.sizes, values[:, 0], ":", color=colour, alpha=0.6, linewidth=1.5)
        ax.plot(measured.sizes, values[:, -1], f"{MARKERS[i % len(MARKERS)]}-", color=colour, label=label)
    log_axis(ax, "x", min(measured.sizes) / 1.15, max(measured.sizes) * 1.15)
    ax.xaxis.set_major_locator(FixedLocator([float(size) for size in measured.sizes]))
    low, high = _joined(ax, float(measured.activations.min()) / 1.3, float(measured.activations.max()) * 1.3)
    log_axis(ax, "y", low, high, write=lambda value: f"{value:g}")
    title = f"{measured.parametrization}: {_say('after', lang).format(updates=len(measured.slopes) - 1)}"
    ax.set(xlabel=_say(measured.axis, lang), ylabel=_say("activation", lang), title=title)
    ax.legend(title=_say("slope", lang), loc="best")
    return ax


def rates(found: Transfer, ax: Axes, lang: Lang = "en") -> Axes:
    """Draw loss against peak rate, one line for each size, the best of each as a star, the carried rate as a line."""
    shade = shades(np.array([_order(size) for size in found.sizes]))
    several = len({size.num_layers for size in found.sizes}) > 1
    for size in found.sizes:
        depth = f" × {size.num_layers}" if several else ""
        x, y = (np.array(part) for part in (size.rates, size.losses))
        sound = np.isfinite(y)
        ax.plot(x[sound], y[sound], "o-", color=shade(_order(size)), label=f"{size.d_model}{depth}")
        ax.plot([size.best], [min(size.losses)], "*", color=shade(_order(size)), markersize=16)
    ax.axvline(found.rate, color=GREY, linestyle="--", linewidth=1.5, label=_say("carried", lang))
    tried = found.sizes[0].rates
    log_axis(ax, "x", tried[0] / 1.2, tried[-1] * 1.2, write=lambda value: f"{value:g}")
    ax.xaxis.set_major_locator(FixedLocator(list(tried)))
    finite = [loss for size in found.sizes for loss in size.losses if math.isfinite(loss)]
    ax.set_ylim(_joined(ax, min(finite) - 0.05, min(max(finite), min(finite) + SPREAD) + 0.05))
    ax.set(xlabel=_say("rate", lang), ylabel=_say("loss", lang), title=found.parametrization)
    ax.legend(title="d_model × num_layers" if several else "d_model", loc="best")
    return ax


def _joined(ax: Axes, low: float, high: float) -> tuple[float, float]:
    """Widen limits to those of the panels beside, whose vertical axis is the same."""
    drawn = [other.get_ylim() for other in ax.get_shared_y_axes().get_siblings(ax) if other is not ax and other.lines]
    return min([low, *(ends[0] for ends in drawn)]), max([high, *(ends[1] for ends in drawn)])


def _order(size: Size) -> float:
    return float(size.d_model**2 * size.num_layers)


def _say(key: str, lang: Lang) -> str:
    return SAID[key][("en", "zh").index(lang)] if key in SAID else key


SAID: Mapping[str, tuple[str, str]] = {
    "width": ("d_model", "d_model"),
    "depth": ("num_layers", "num_layers"),
    "activation": ("mean |activation|", "激活绝对值的均值"),
    "after": ("after {updates} updates (dotted: before)", "{updates} 次更新之后（点线：更新之前）"),
    "slope": ("slope", "斜率"),
    "last": ("last", "最后一个"),
    "block": ("block", "块"),
    "logits": ("logits", "logits"),
    "rate": ("peak learning rate of the base model", "基准模型的峰值学习率"),
    "loss": ("validation loss (nats per token)", "验证损失（nat/token）"),
    "carried": ("best rate of the base model", "基准模型的最优学习率"),
}
