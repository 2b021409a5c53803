"""The figure of each question: a pure function of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from isoflop.report.axes import BLUE, GREEN, GREY, ORANGE, PINK, compact, log_axis, power, shades
from isoflop.report.words import Lang
from isoflop.study.questions.answer import Answer

COLOURS = (BLUE, ORANGE, GREEN, PINK)
MARKS = ("o-", "s--", "^-.", "d:", "v-", "P--", "X-.", "*:")
"""Told apart without colour too."""


def regime(answer: Answer, ax: Axes, lang: Lang = "en") -> Axes:
    """The exponent a with its interval against the smallest N that the law was fitted to."""
    told = answer.numbers
    N, a = np.array(told["N"]), np.array(told["a"])
    bars = np.array([a - np.array(told["low"]), np.array(told["high"]) - a])
    ax.errorbar(N, a, bars, fmt="o-", color=BLUE, capsize=5, label=_say("a", lang))
    if 0 < told["start"] < len(N) - 2:
        ax.axvline(N[told["start"]], color=ORANGE, linestyle="--", label=_say("start", lang))
    for value, label in ((0.5, "Chinchilla 0.50"), (0.73, "Kaplan 0.73")):
        ax.axhline(value, color=GREY, linewidth=1, linestyle=":")
        ax.annotate(label, (1.0, value), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREY)
    log_axis(ax, "x", N.min() / 1.15, N.max() * 1.15)
    ax.set_ylim(min(0.0, a.min() - 0.05), max(1.0, a.max() + 0.05))
    ax.set(xlabel=_say("smallest N", lang), ylabel=_say("exponent", lang), title=_say("regime", lang))
    ax.legend(loc="best")
    return ax


def rate(answer: Answer, ax: Axes, lang: Lang = "en") -> Axes:
    """Regret of the carried rate at each larger shape, one colour a parametrization, hollow where its gate is shut."""
    rows = answer.numbers["parametrizations"]
    every = sorted((size for row in rows for size in row["sizes"][1:]), key=lambda size: size["num_layers"])
    shapes = list(dict.fromkeys(_growth(rows[0], size, lang) for size in every))
    for k, (row, colour) in enumerate(zip(rows, COLOURS, strict=False)):
        larger = [size for size in row["sizes"][1:] if size["regret"] is not None]
        x = np.array([shapes.index(_growth(row, size, lang)) for size in larger]) + 0.25 * (k - (len(rows) - 1) / 2)
        y = np.array([size["regret"] for size in larger])
        ends = [size["between"] or [size["regret"]] * 2 for size in larger]
        low, high = (np.array([np.nan if end[i] is None else end[i] for end in ends]) for i in (0, 1))
        label = row["parametrization"] if row["gate"] else _say("shut", lang).format(name=row["parametrization"])
        ax.plot(x, y, "o", color=colour, markersize=9, fillstyle="full" if row["gate"] else "none", label=label)
        ax.vlines(x, low, high, color=colour, linewidth=2)
        tops = np.where(np.isnan(high), y, high)
        for at, top, size in zip(x, tops, larger, strict=True):
            text = f"{'≥ ' if size['edge'] else ''}{size['regret']:.3f}"
            note = ax.annotate(
                text, (at, top), (0, 4), textcoords="offset points", ha="center", color=colour, fontsize=9
            )
            note.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # the allowed line passes behind
    ax.axhline(max(row["tolerance"] for row in rows), color=GREY, linestyle="--", label=_say("allowed", lang))
    ax.set_xticks(range(len(shapes)), shapes)
    ax.set_xlim(-0.5, len(shapes) - 0.5)
    ax.set(xlabel=_say("larger", lang), ylabel=_say("regret", lang), title=_say("rate", lang))
    ax.legend(loc="best")
    return ax


def _growth(row: Mapping[str, Any], size: Mapping[str, Any], lang: Lang) -> str:
    base = row["sizes"][0]
    pairs = ((name, size[name] / base[name]) for name in ("d_model", "num_layers"))
    return ", ".join(_say(f"times {name}", lang).format(times=f"{times:g}") for name, times in pairs if times != 1)


def aspect(answer: Answer, ax: Axes, lang: Lang = "en") -> Axes:
    """Loss over the best against d_model over num_layers, with every seed, and the band of 1 %."""
    ratios: list[float] = []
    for row, colour in zip(answer.numbers["cells"], COLOURS, strict=False):
        x, best = np.array(row["aspect"]), min(row["loss"])
        over = 100 * (np.array(row["loss"]) / best - 1)
        # mathtext beside Chinese has no font for it
        size = compact(row["size"]) if row["kind"] == "tokens" else f"{row['size']:.2g}".replace("e+", "e")
        label = _say("same tokens" if row["kind"] == "tokens" else "same FLOPs", lang).format(size=size)
        ax.plot(x, over, "o-", color=colour, label=label, markersize=7)
        losses = 100 * (np.array(row["losses"]) / best - 1)
        ax.plot(np.repeat(x, losses.shape[1]), losses.ravel(), ".", color=colour, alpha=0.4, markersize=5)
        ratios += row["aspect"]
    ax.axhspan(0, 1, color=GREY, alpha=0.15, linewidth=0, label=_say("within", lang))
    log_axis(ax, "x", min(ratios) / 1.15, max(ratios) * 1.15)
    ax.set(xlabel=_say("aspect axis", lang), ylabel=_say("over", lang), title=_say("aspect", lang))
    ax.legend(loc="best")
    return ax


def heads(answer: Answer, ax: Axes, lang: Lang = "en") -> Axes:
    """Loss over the best against the number of heads, with the interval of a difference and every seed's own."""
    counts: list[int] = []
    for row, colour in zip(answer.numbers["cells"], COLOURS, strict=False):
        x, over, losses = np.array(row["heads"]), np.array(row["over"]), np.array(row["losses"])
        kind, size = next(iter(row["length"].items()))
        label = f"d_model {row['d_model']}, {compact(size) if kind == 'tokens' else power(size)} {kind}"
        ax.plot(x, over, "o-", color=colour, markersize=7, label=label)
        others = over > 0
        ax.errorbar(x[others], over[others], row["margin"], fmt="none", ecolor=colour, capsize=5)
        each = losses - losses[int(over.argmin())]
        ax.plot(np.repeat(x, each.shape[1]), each.ravel(), ".", color=colour, alpha=0.4, markersize=6)
        counts += row["heads"]
    ax.axhline(0, color=GREY, linewidth=1)
    log_axis(ax, "x", min(counts) / 1.2, max(counts) * 1.2)
    ax.set_xticks([float(count) for count in sorted(set(counts))])
    ax.set(xlabel=_say("heads axis", lang), ylabel=_say("over best", lang), title=_say("heads", lang))
    ax.legend(loc="best")
    return ax


def heads_fixed(answer: Answer, ax: Axes, lang: Lang = "en") -> Axes:
    """N* of each budget in both sweeps, with their lines."""
    told = answer.numbers
    C = np.array(told["budgets"])
    names = (_say("fixed heads", lang), _say("fixed size", lang))
    every: list[float] = []
    for arm, name, value, colour in zip(
        told["arms"], names, (told["num_heads"], told["head_size"]), COLOURS, strict=False
    ):
        N = np.array(arm["minima"])
        label = f"{name.format(value=value)}: a = {arm['a']:.3f} ({arm['low']:.3f}–{arm['high']:.3f})"
        ax.plot(C, N, "o", color=colour, markersize=9, label=label)
        middle = np.exp(np.log(N).mean() + arm["a"] * (np.log(C) - np.log(C).mean()))
        ax.plot(C, middle, color=colour, linewidth=1.5)
        every += [*N.tolist(), *middle.tolist()]
    log_axis(ax, "x", C.min() / 1.2, C.max() * 1.2, write=power)
    log_axis(ax, "y", min(every) / 1.2, max(every) * 1.2)
    ax.set(xlabel=_say("C", lang), ylabel=_say("N*", lang), title=_say("heads-fixed", lang))
    ax.legend(loc="upper left")
    return ax


def batch(answer: Answer, ax: Axes, lang: Lang = "en") -> Axes:
    """Tokens against steps to each loss: measured as dots, the hyperbola as a line."""
    rows = answer.numbers["targets"]
    shade = shades(np.array([row["loss"] for row in rows]))
    steps = np.concatenate([row["steps"] for row in rows])
    tokens = np.concatenate([row["examples"] for row in rows])
    for row in rows:
        B = np.geomspace(min(row["batches"]) / 2, max(row["batches"]) * 2, 60)
        S = row["S_min"] * (1 + row["critical"] / B)
        label = _say("target", lang).format(loss=row["loss"], critical=row["critical"])
        ax.plot(S, B * S, color=shade(row["loss"]), label=label)
        ax.plot(row["steps"], row["examples"], "o", color=shade(row["loss"]))
    log_axis(ax, "x", steps.min() / 1.5, steps.max() * 1.5)
    log_axis(ax, "y", tokens.min() / 1.5, tokens.max() * 1.5)
    ax.set(xlabel=_say("steps", lang), ylabel=_say("examples", lang), title=_say("batch", lang))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def epochs(answer: Answer, ax: Axes, lang: Lang = "en") -> Axes:
    """Validation loss against epochs, one colour a corpus and one style a size, the lowest point of each marked."""
    rows = answer.numbers["curves"]
    pools, sizes = sorted({row["pool"] for row in rows}), sorted({row["N"] for row in rows})
    every = np.concatenate([row["epochs"] for row in rows])
    for row in rows:
        colour = COLOURS[pools.index(row["pool"]) % 4]
        style = MARKS[sizes.index(row["N"]) % len(MARKS)]
        label = _say("curve", lang).format(pool=compact(row["pool"]), N=compact(row["N"]))
        ax.plot(row["epochs"], row["loss"], style, color=colour, markersize=5, label=label)
        at = row["at"]
        ax.plot([row["epochs"][at]], [row["loss"][at]], "o", color=colour, markersize=12, fillstyle="none")
    log_axis(ax, "x", float(every.min()) / 1.2, float(every.max()) * 1.2, write=lambda value: f"{value:g}")
    ax.set(xlabel=_say("epochs axis", lang), ylabel=_say("L", lang), title=_say("epochs", lang))
    ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax


def _say(key: str, lang: Lang) -> str:
    return SAID[key][("en", "zh").index(lang)]


SAID: Mapping[str, tuple[str, str]] = {
    "L": ("validation loss, nats per token", "验证损失（nat/token）"),
    "C": ("C, training FLOPs", "C，训练 FLOPs"),
    "N*": ("N*, parameters (compute count)", "N*，参数量（按计算量）"),
    "a": ("a with its 90% interval", "a 及其 90% 区间"),
    "start": ("from here on it moves no more", "从这里起不再变化"),
    "smallest N": ("smallest N that the law was fitted to (compute count)", "参与拟合的最小 N（按计算量）"),
    "exponent": ("a in N* ∝ C^a", "N* ∝ C^a 中的 a"),
    "regime": ("Does the exponent move as small models are left out?", "去掉小模型后，指数是否变化？"),
    "rate": (
        "What does the best rate of the small model cost larger ones?",
        "小模型的最优学习率用于大模型，损失多少？",
    ),
    "regret": ("regret, nats per token, 90% interval", "与各自最优学习率的损失差（nat/token，90% 区间）"),
    "larger": ("larger than the base model by", "相对基准模型放大"),
    "allowed": ("allowed", "允许值"),
    "shut": ("{name} (coordinate check not passed)", "{name}（未通过坐标检查）"),
    "times d_model": ("×{times} width", "宽度 ×{times}"),
    "times num_layers": ("×{times} depth", "深度 ×{times}"),
    "aspect axis": ("d_model / num_layers", "d_model / num_layers"),
    "over": ("loss over the best, %", "比最优损失高出（%）"),
    "over best": ("loss over the best, nats per token, 90% interval", "比最优损失高出（nat/token，90% 区间）"),
    "aspect": ("Width against depth at one N (dots: single runs)", "同样的 N 下，宽还是深（小点：单次训练）"),
    "same tokens": ("same N, {size} tokens", "同样的 N，{size} token"),
    "same FLOPs": ("same N, {size} FLOPs", "同样的 N，{size} FLOPs"),
    "within": ("within 1% of the best", "与最优相差 1% 以内"),
    "heads axis": ("heads", "注意力头数"),
    "heads": ("How many heads? Runs paired by seed (dots)", "多少个头？按种子配对（小点）"),
    "fixed heads": ("{value} heads", "固定 {value} 个头"),
    "fixed size": ("heads of {value}", "每个头宽 {value}"),
    "heads-fixed": ("Do fixed heads move the exponent of N*?", "固定头数会改变 N* 的指数吗？"),
    "steps": ("S, optimizer steps", "S，优化步数"),
    "examples": ("E, tokens", "E，token 数"),
    "target": ("loss {loss:.3f}: {critical:.0f} tokens", "损失 {loss:.3f}：{critical:.0f} token"),
    "batch": ("Steps and tokens to a loss, and its critical batch", "达到某一损失所需的步数与 token 数及其临界批量"),
    "epochs axis": ("epochs over the unique tokens", "在不重复数据上的轮数"),
    "curve": ("{pool} unique, N = {N}", "{pool} 不重复，N = {N}"),
    "epochs": ("Where does validation loss turn? (rings: lowest)", "验证损失在哪里回升？（圆圈：最低点）"),
}
DRAWINGS: Mapping[str, Callable[..., Axes]] = {
    "regime": regime,
    "rate": rate,
    "aspect": aspect,
    "heads": heads,
    "heads-fixed": heads_fixed,
    "batch": batch,
    "epochs": epochs,
}
