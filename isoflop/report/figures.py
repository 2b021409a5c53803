"""The figures, each a pure function of what is known; and the pictures of a run's and a study's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from isoflop.files import write_bytes
from isoflop.law.frontier import Frontier, budgets
from isoflop.law.uncertainty import Interval
from isoflop.record import Floats
from isoflop.report.axes import BLUE, GREEN, GREY, ORANGE, PINK, compact, log_axis, picture, power, shades
from isoflop.report.evidence import Curves, Evidence, optimal_loss, read_curves, read_evidence, sizes
from isoflop.report.words import Lang, word

APPROACH_COLOURS = {2: BLUE, 3: ORANGE}
HORIZON = 1e24
"""FLOPs to which optima are extrapolated, somewhat above the 5.76e23 of the largest run of arXiv:2203.15556."""
SMOOTH = 9
"""Points of a training log that one point of a crowded figure averages."""


def isoflop_curves(evidence: Evidence, ax: Axes, lang: Lang = "en") -> Axes:
    """Loss against N, one colour a budget, with parabolas in ln N and their minima."""
    records, minima = evidence.records, evidence.minima
    parts = budgets(records)
    shade = shades(np.array(list(parts)))
    for budget, rows in parts.items():
        label = word("budget", lang, C=power(budget))
        ax.scatter(records.N[rows], records.L[rows], color=shade(budget), s=36, zorder=3, label=label)
    for low in minima:
        N = np.geomspace(low.sampled[0] / 1.05, low.sampled[1] * 1.05, 100)
        ax.plot(N, low.loss + low.bend * np.log(N / low.params) ** 2, color=shade(low.budget))
    if minima:
        x, y = [low.params for low in minima], [low.loss for low in minima]
        ax.plot(x, y, "D", color=ORANGE, markersize=9, markerfacecolor="none", markeredgewidth=2, zorder=4)
        ax.get_lines()[-1].set_label(word("minimum", lang))
    log_axis(ax, "x", records.N.min() / 1.15, records.N.max() * 1.15)
    title = word("isoflop" if minima else "no bottom", lang)
    ax.set(xlabel=_params_label("N", evidence, lang), ylabel=word("L", lang), title=title)
    _legend(ax, len(parts) + 1)
    return ax


def optimal_params(evidence: Evidence, ax: Axes, lang: Lang = "en") -> Axes:
    """N* against C, extrapolated to 1e24 FLOPs."""
    ax.set(ylabel=_params_label("N*", evidence, lang))
    return _optima(evidence, ax, lang, "N")


def optimal_tokens(evidence: Evidence, ax: Axes, lang: Lang = "en") -> Axes:
    """D* against C, extrapolated to 1e24 FLOPs."""
    ax.set(ylabel=word("D*", lang))
    return _optima(evidence, ax, lang, "D")


def _optima(evidence: Evidence, ax: Axes, lang: Lang, letter: str) -> Axes:
    known = float(evidence.records.C.min()), float(evidence.records.C.max())
    C = np.geomspace(known[0], max(HORIZON, 10 * known[1]), 200)
    ax.axvspan(*known, color=GREY, alpha=0.12, linewidth=0, label=word("sampled", lang))
    reached = [_line(frontier, ax, lang, letter, C=C, known=known[1]) for frontier in evidence.frontiers]
    lowest, value, highest = (np.array(part) for part in zip(*reached, strict=True))
    if evidence.minima:
        points = [low.params if letter == "N" else low.tokens for low in evidence.minima]
        at = [low.budget for low in evidence.minima]
        ax.scatter(at, points, color="black", s=30, zorder=4, label=word("minimum", lang))
    log_axis(ax, "x", known[0] / 3, C[-1] * 2, write=power)
    # a band that knows little would press everything else flat
    log_axis(ax, "y", float(lowest.min()) / 3, float(min(highest.max() * 2, value.max() * 100)))
    slope = _exponent(evidence.frontiers[0], letter).value
    title = "optimal_params" if letter == "N" else "optimal_tokens"
    ax.set(xlabel=word("C", lang), title=word(title, lang, slope=slope))
    ax.legend(loc="upper left")
    return ax


def _exponent(frontier: Frontier, letter: str) -> Interval:
    return frontier.a if letter == "N" else frontier.b


def _line(
    frontier: Frontier, ax: Axes, lang: Lang, letter: str, *, C: Floats, known: float
) -> tuple[float, float, float]:
    """Draw one approach's optima, solid among the runs and dashed beyond; return its least, last and highest value."""
    colour = APPROACH_COLOURS[frontier.approach]
    value, low, high = frontier.params(C) if letter == "N" else frontier.tokens(C)
    value, slope = np.asarray(value), _exponent(frontier, letter)
    name = word(f"approach {frontier.approach}", lang)
    label = word("line", lang, approach=name, letter=letter, slope=slope.value)
    if slope.low is not None:
        label += word("interval", lang, low=slope.low, high=slope.high)
    inside = known >= C
    ax.plot(C[inside], value[inside], color=colour, linewidth=2, label=label)
    ax.plot(C[~inside], value[~inside], color=colour, linewidth=1.5, linestyle=(0, (4, 2)))
    if low is None or high is None:
        return float(value[0]), float(value[-1]), float(value[-1])
    ax.fill_between(C, np.asarray(low), np.asarray(high), color=colour, alpha=0.15, linewidth=0)
    return float(value[0]), float(value[-1]), float(np.asarray(high)[-1])


def fixed_size(evidence: Evidence, ax: Axes, lang: Lang = "en") -> Axes:
    """Loss against FLOPs, one line for each N: the fitted law as a line, the runs as dots."""
    records, fit = evidence.records, evidence.fit
    shade = shades(records.N)
    C = np.geomspace(records.C.min() / 1.5, records.C.max() * 1.5, 60)
    groups = sizes(records)
    for group in groups:
        N = float(np.exp(np.log(group.N).mean()))
        label = word("size", lang, N=compact(N))
        ax.plot(group.C, group.L, "o" if fit else "o-", color=shade(N), markersize=6, label=label)
        if fit is not None:
            ax.plot(C, np.asarray(fit.loss(N, C / (6 * N))), color=shade(N), linewidth=1.2)
    log_axis(ax, "x", float(C[0]), float(C[-1]), write=power)
    spread = float(np.ptp(records.L)) or 1.0
    ax.set_ylim(records.L.min() - 0.1 * spread, records.L.max() + 0.15 * spread)
    ax.set(xlabel=word("C", lang), ylabel=word("L", lang), title=word("fixed_size", lang))
    _legend(ax, len(groups))
    return ax


def best_loss(evidence: Evidence, ax: Axes, lang: Lang = "en") -> Axes:
    """Optimal loss against FLOPs, with the locked forecast and what was measured."""
    records, locked, measured = evidence.records, evidence.locked, evidence.measured
    last = max(float(records.C.max()) * 3, 0.0 if locked is None else locked.flops * 2)
    C = np.geomspace(records.C.min(), last, 100)
    ax.scatter(records.C, records.L, color=GREY, alpha=0.5, s=18, label=word("runs", lang))
    if evidence.fit is not None:
        _curve(ax, C, evidence, lang)
    ax.plot(
        [low.budget for low in evidence.minima],
        [low.loss for low in evidence.minima],
        "D",
        color=BLUE,
        label=word("minimum", lang) if evidence.minima else None,
    )
    title = word("optimal_loss", lang)
    if locked is not None:
        bars = np.array([[locked.loss - locked.low], [locked.high - locked.loss]])
        label = word("forecast", lang, level=locked.level)
        ax.errorbar(
            [locked.flops],
            [locked.loss],
            bars,
            fmt="s",
            color=PINK,
            markersize=11,
            markerfacecolor="white",
            capsize=8,
            linewidth=2,
            label=label,
        )
    if measured is not None and measured.loss is not None:
        ax.plot(
            [measured.flops],
            [measured.loss],
            "x",
            color=GREEN,
            markersize=9,
            markeredgewidth=3,
            zorder=5,
            label=word("measured", lang),
        )
    if locked is not None and measured is not None and measured.loss is not None:
        told = {"loss": locked.loss, "low": locked.low, "high": locked.high, "measured": measured.loss}
        title = word("verdict", lang, **told)
    log_axis(ax, "x", float(C[0]) / 1.5, last, write=power)
    ax.set(xlabel=word("C", lang), ylabel=word("L", lang), title=title)
    ax.legend(loc="upper right")
    return ax


def _curve(ax: Axes, C: Floats, evidence: Evidence, lang: Lang) -> None:
    assert evidence.fit is not None
    value, low, high = optimal_loss(evidence.fit, C)
    ax.plot(C, np.asarray(value), color=ORANGE, linewidth=2, label=word("law", lang))
    if low is not None and high is not None:
        ax.fill_between(
            C, np.asarray(low), np.asarray(high), color=ORANGE, alpha=0.2, linewidth=0, label=word("band", lang)
        )


def training_losses(evidence: Evidence, ax: Axes, lang: Lang = "en") -> Axes:
    """Training loss of every run against the FLOPs spent, coloured by N."""
    shade = shades(evidence.records.N)
    for group in sizes(evidence.records):
        for i, run in enumerate(run for run in group.runs if run.id in evidence.curves):
            curves, N = evidence.curves[run.id], float(group.N[0])
            label = word("size", lang, N=compact(N)) if i == 0 else None
            C = curves.tokens * run.flops / run.tokens
            ax.plot(_smooth(C), _smooth(curves.train), color=shade(N), linewidth=1.2, label=label)
    firsts = [float(np.asarray(line.get_xdata())[0]) for line in ax.get_lines()]
    log_axis(ax, "x", min(firsts), float(evidence.records.C.max()) * 1.1, write=power)
    ax.set(xlabel=word("C", lang), ylabel=word("loss", lang), title=word("training", lang))
    _legend(ax, len(firsts))
    return ax


def _smooth(values: Floats) -> Floats:
    width = min(SMOOTH, len(values))
    return np.convolve(values, np.full(width, 1 / width), mode="valid")


def training_loss(curves: Curves, ax: Axes, lang: Lang = "en") -> Axes:
    """Loss of one run against its tokens, training and validation."""
    ax.plot(curves.tokens, curves.train, color=BLUE, linewidth=1.5, label=word("train", lang))
    if len(curves.val):
        ax.plot(curves.val_tokens, curves.val, "o-", color=ORANGE, markersize=6, label=word("validation", lang))
    ax.xaxis.set_major_formatter(lambda value, _: compact(value) if value > 0 else "0")
    ax.set_xlim(left=0)
    ax.set(xlabel=word("tokens", lang), ylabel=word("loss", lang))
    ax.legend(loc="upper right")
    return ax


def training_perplexity(curves: Curves, ax: Axes, lang: Lang = "en") -> Axes:
    """Perplexity e^loss of one run against its tokens, training and validation."""
    train, val = (np.exp(np.minimum(loss, 700)) for loss in (curves.train, curves.val))
    training_loss(Curves(curves.tokens, train, curves.val_tokens, val), ax, lang)
    both = np.concatenate([train, val])
    log_axis(ax, "y", float(both.min()) / 1.1, float(both.max()) * 1.1)
    ax.set(ylabel=word("perplexity", lang))
    return ax


def draw_training(folder: Path, lang: Lang = "en") -> list[Path]:
    """Write loss.png and perplexity.png into a run's folder.

    Raises:
        ValueError: the run has no log yet, or no font has Chinese.
    """
    curves = read_curves(folder)
    paths = []
    for name, (draw, title) in TRAINING.items():

        def titled(ax: Axes, draw: Callable[..., Axes] = draw, title: str = title) -> Axes:
            ax.set_title(word(title, lang, run=folder.resolve().name))
            return draw(curves, ax, lang)

        write_bytes(folder / f"{name}.png", picture(titled, lang))
        paths.append(folder / f"{name}.png")
    return paths


def draw_study(folder: Path, lang: Lang = "en") -> list[Path]:
    """Write every figure that a study has the data for into its folder `figures`, and remove those that it has not.

    Raises:
        ValueError: the folder holds no complete run, or no font has Chinese.
    """
    evidence = read_evidence(folder)
    paths = []
    for name, figure in FIGURES.items():
        path = folder / "figures" / f"{name}.png"
        if figure.lacks(evidence):
            path.unlink(missing_ok=True)
        else:
            write_bytes(path, picture(partial(figure.draw, evidence, lang=lang), lang))
            paths.append(path)
    return paths


def not_drawn(evidence: Evidence, lang: Lang = "en") -> list[str]:
    """Say which figures a study has no data for, and why."""
    reasons = {name: figure.lacks(evidence) for name, figure in FIGURES.items()}
    return [word("not drawn", lang, figure=name, reason=word(why, lang)) for name, why in reasons.items() if why]


def _params_label(key: str, evidence: Evidence, lang: Lang) -> str:
    return word(key, lang, count=word(evidence.records.convention, lang))


def _legend(ax: Axes, entries: int) -> None:
    """Put many entries beside the axes, where they cover nothing."""
    if entries > 3:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    else:
        ax.legend(loc="best")


def _lacks_budgets(evidence: Evidence) -> str | None:
    parts = budgets(evidence.records).values()
    return None if any(len(np.unique(evidence.records.N[rows])) >= 3 for rows in parts) else "no budgets"


def _lacks_lines(evidence: Evidence) -> str | None:
    return None if evidence.frontiers else "no lines"


def _lacks_lengths(evidence: Evidence) -> str | None:
    return None if evidence.fit or any(len(group) > 1 for group in sizes(evidence.records)) else "no lengths"


def _lacks_optimum(evidence: Evidence) -> str | None:
    return None if evidence.fit or evidence.minima else "no optimum"


def _lacks_logs(evidence: Evidence) -> str | None:
    return None if any(run.id in evidence.curves for run in evidence.records.runs) else "no logs"


class StudyFigure(NamedTuple):
    """A figure of a study."""

    draw: Callable[..., Axes]
    """`(evidence, ax, lang) -> ax`."""
    lacks: Callable[[Evidence], str | None]
    """Key of the words that say what is missing for it, or None."""


TRAINING: Mapping[str, tuple[Callable[..., Axes], str]] = {
    "loss": (training_loss, "loss of"),
    "perplexity": (training_perplexity, "perplexity of"),
}
FIGURES: Mapping[str, StudyFigure] = {
    "isoflop": StudyFigure(isoflop_curves, _lacks_budgets),
    "optimal_loss": StudyFigure(best_loss, _lacks_optimum),
    "optimal_params": StudyFigure(optimal_params, _lacks_lines),
    "optimal_tokens": StudyFigure(optimal_tokens, _lacks_lines),
    "fixed_size": StudyFigure(fixed_size, _lacks_lengths),
    "training": StudyFigure(training_losses, _lacks_logs),
}
