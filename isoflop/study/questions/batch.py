"""Which batch? Steps and examples to a loss, the hyperbola between them, and the critical batch against D."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from isoflop.record import Floats, Record, Records
from isoflop.study.questions.answer import APART, Answer, Cited, answered, differ_only_in, few, field_of
from isoflop.study.questions.noise import noise_scale

FEWEST_BATCHES = 4
"""The hyperbola has two unknowns; two more batches can contradict it."""
TARGETS = 4
"""Losses at which steps and examples are read."""
WIDE = 10.0
"""A critical batch whose 90 % interval spans more than this factor is not determined."""
REACH = 4.0
"""Farthest factor of D beyond the runs at which a critical batch is given."""
REPLICATES = 1000
GRID = np.geomspace(1e-3, 1e3, 241)
"""Critical batches tried, in geometric means of the batches."""


class Critical(NamedTuple):
    """A critical batch, tokens, with its 90 % interval."""

    value: float
    low: float
    high: float


def batch(records: Records) -> Answer:
    """Fit (S/S_min − 1)(E/E_min − 1) = 1 to steps and tokens to a loss, with the best rate of each batch and length.

    E = B·S turns it into ln S = ln S_min + ln(1 + B_crit/B) with B_crit = E_min/S_min, tokens.

    Raises:
        ValueError: too few batches, or no loss that all of them reach.
    """
    differ_only_in(
        records, {"optim": {"lr"}, "train": {"seed", "batch_size", "tokens", "flops", "steps", "grad_accum"}}
    )
    curves, edges = _curves(records)
    if len(curves) < FEWEST_BATCHES:
        raise ValueError(
            f"{len(curves)} batch sizes of {records.source} cannot contradict a hyperbola; add some, to "
            f"{FEWEST_BATCHES} in all"
        )
    low, high = max(loss.min() for _, loss in curves.values()), min(loss.max() for _, loss in curves.values())
    if low >= high:
        raise ValueError(
            f"no loss is reached by every batch of {records.source} within its lengths ({low:.3f} is the worst batch's "
            f"best, {high:.3f} the best batch's worst); train small batches shorter and large ones longer"
        )
    rows = [_row(float(goal), curves) for goal in np.linspace(high, low, TARGETS + 2)[1:-1]]
    numbers: dict[str, Any] = {
        "targets": rows,
        "line": _line(rows),
        "edges": edges,
        "noise_scale": noise_scale(records, _batch_tokens),
    }
    measured = [
        f"{'loss':>7} {'D, tokens':>10} {'S_min':>8} {'E_min':>9} {'critical batch, tokens':>23} {'90 % interval':>18}"
    ]
    measured += [
        f"{row['loss']:7.3f} {row['tokens']:10.3g} {row['S_min']:8.0f} {row['E_min']:9.3g} {row['critical']:>23.0f} "
        f"{f'''{row['low']:.0f} to {row['high']:.0f}''':>18}"
        for row in rows
    ]
    measured += _noise_table(numbers)
    decided, verdict = _verdict(rows, numbers)
    return answered(
        records,
        question="batch",
        decided=decided,
        verdict=verdict,
        measured=tuple(measured),
        numbers=numbers | {"reach": REACH},
        literature=LITERATURE,
    )


def _batch_tokens(run: Record) -> float:
    return float(field_of(run, "train", "batch_size")) * float(field_of(run, "model", "context_length"))


def _curves(records: Records) -> tuple[dict[float, tuple[Floats, Floats]], list[float]]:
    """Return, for each batch in tokens, ln of the steps of each length, and the lowest loss over rates there.

    Also the batches whose best rate at the longest length is the first or last of several tried.
    """
    cells: dict[float, dict[float, dict[float, list[float]]]] = {}
    for run in records.runs:
        lengths = cells.setdefault(_batch_tokens(run), {}).setdefault(run.tokens, {})
        assert run.loss is not None
        lengths.setdefault(float(field_of(run, "optim", "lr")), []).append(run.loss)
    out, edges = {}, []
    for size, of_length in sorted(cells.items()):
        if len(of_length) >= 2:
            loss = [min(float(np.mean(seeds)) for seeds in rates.values()) for _, rates in sorted(of_length.items())]
            out[size] = (np.log(np.array(sorted(of_length)) / size), np.minimum.accumulate(loss))
            longest = {lr: float(np.mean(seeds)) for lr, seeds in of_length[max(of_length)].items()}
            if len(longest) > 1 and _at_edge(longest):
                edges.append(size)
    return out, edges


def _at_edge(losses: dict[float, float]) -> bool:
    """Whether the least or the greatest rate is best, and not by noise alone."""
    inner = sorted(losses)[1:-1]
    best = min(losses, key=losses.__getitem__)
    return best not in inner and all(losses[rate] > losses[best] + APART for rate in inner)


def _row(goal: float, curves: dict[float, tuple[Floats, Floats]]) -> dict[str, Any]:
    B = np.array(list(curves))
    ln_s = np.array([float(np.interp(-goal, -loss, steps)) for steps, loss in curves.values()])
    unit = float(np.exp(np.log(B).mean()))
    critical, ln_least, cost = _hyperbola(B / unit, ln_s[None])
    spare = len(B) - 2
    rng = np.random.default_rng(0)
    scale = np.sqrt(cost[0] / rng.chisquare(spare, (REPLICATES, 1)))
    fitted = ln_least[0] + np.log1p(critical[0] * unit / B)
    drawn, least, _ = _hyperbola(B / unit, fitted + scale * rng.standard_normal((REPLICATES, len(B))))
    low, high = np.percentile(drawn * unit, (5, 95))
    B_crit, S_min = float(critical[0]) * unit, float(np.exp(ln_least[0]))
    return {
        "loss": goal,
        "batches": B.tolist(),
        "steps": np.exp(ln_s).tolist(),
        "examples": (B * np.exp(ln_s)).tolist(),
        "S_min": S_min,
        "E_min": S_min * B_crit,
        # at the critical batch both cost twice their least
        "tokens": 2 * S_min * B_crit,
        "critical": B_crit,
        "low": float(low),
        "high": float(high),
        "known": bool(high / low <= WIDE and drawn.min() > GRID[0] and np.percentile(drawn, 95) < GRID[-1]),
        "ln_draws": (np.log(drawn * unit)).tolist(),
        "ln_tokens": (np.log(2 * drawn * unit) + least).tolist(),
    }


def _hyperbola(
    B: Floats, ln_s: Float64[np.ndarray, "replicates batches"]
) -> tuple[Float64[np.ndarray, "replicates"], Float64[np.ndarray, "replicates"], Float64[np.ndarray, "replicates"]]:
    """Return B_crit, ln S_min and the squared error in ln S of the best hyperbola."""
    form = np.log1p(GRID[:, None] / B)
    rest = ln_s[:, None] - form
    least = rest.mean(-1)
    cost = ((rest - least[..., None]) ** 2).sum(-1)
    rows, best = np.arange(len(ln_s)), cost.argmin(1)
    # between grid points by a parabola in ln B_crit
    inner = np.clip(best, 1, len(GRID) - 2)
    below, here, above = (cost[rows, inner + step] for step in (-1, 0, 1))
    bend = below - 2 * here + above
    shift = np.where((bend > 0) & (best == inner), 0.5 * (below - above) / np.where(bend > 0, bend, 1.0), best - inner)
    critical = GRID[inner] * (GRID[1] / GRID[0]) ** shift
    left = ln_s - np.log1p(critical[:, None] / B)
    return (
        np.asarray(critical),
        np.asarray(left.mean(1)),
        np.asarray(((left - left.mean(1, keepdims=True)) ** 2).sum(1)),
    )


def _line(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Draw ln B_crit against ln D through the targets whose critical batch is known."""
    known = [row for row in rows if row["known"]]
    if len(known) < 3:
        return None
    x, y = np.log([row["tokens"] for row in known]), np.log([row["critical"] for row in known])
    drawn, _ = _drawn_line(known, 0.0)
    low, high = np.percentile(drawn, (5, 95))
    return {
        "slope": float(np.polyfit(x, y, 1)[0]),
        "low": float(low),
        "high": float(high),
        "tokens": float(np.exp(x.mean())),
        "critical": float(np.exp(y.mean())),
    }


def _drawn_line(known: list[dict[str, Any]], ln_tokens: float) -> tuple[Floats, Floats]:
    """Slopes of the lines through the replicates of the targets, and ln of the critical batch that each gives there."""
    at, to = (np.array([row[key] for row in known]) for key in ("ln_tokens", "ln_draws"))
    away = at - at.mean(0)
    slope = (away * (to - to.mean(0))).sum(0) / (away**2).sum(0)
    return slope, to.mean(0) + slope * (ln_tokens - at.mean(0))


def critical_batch(answer: Answer, tokens: float) -> Critical:
    """Return the critical batch of a run of so many tokens.

    Raises:
        ValueError: the runs do not determine it, or reach not within a factor of four of that length.
    """
    if answer.numbers["line"] is None:
        raise ValueError(
            "fewer than three losses have a known critical batch, so it cannot be given for other D; add runs"
        )
    given, (least, most) = _at(answer.numbers, tokens)
    if given is None:
        raise ValueError(
            f"D={tokens:.3g} tokens is more than ×{REACH:g} outside what was measured, {least:.3g} to {most:.3g}; "
            "train nearer to it"
        )
    return given


def _at(numbers: Mapping[str, Any], tokens: float) -> tuple[Critical | None, tuple[float, float]]:
    """Read the critical batch off the line, None beyond its reach, and the range of D that was measured."""
    line, known = numbers["line"], [row for row in numbers["targets"] if row["known"]]
    least, most = (end(row["tokens"] for row in known) for end in (min, max))
    if not least / REACH <= tokens <= most * REACH:
        return None, (least, most)
    low, high = np.exp(np.percentile(_drawn_line(known, float(np.log(tokens)))[1], (5, 95)))
    value = float(line["critical"] * (tokens / line["tokens"]) ** line["slope"])
    return Critical(value, float(low), float(high)), (least, most)


def _noise_table(numbers: dict[str, Any]) -> list[str]:
    """Set the gradient noise scale at the end of runs of each length beside the critical batch of that D."""
    scale = numbers["noise_scale"]
    if scale is None:
        return []
    quarters = ", ".join(f"{one['value']:.0f} ({one['low']:.0f} to {one['high']:.0f})" for one in scale["along"])
    lines = [
        "",
        f"{'D, tokens':>10} {'runs':>5} {'gradient noise scale, tokens':>29} {'least to greatest':>18} "
        f"{'critical batch, tokens':>23} {'90 % interval':>18}",
    ]
    for end in scale["ends"]:
        given = None if numbers["line"] is None else _at(numbers, end["tokens"])[0]
        value = "-" if given is None else f"{given.value:.0f}"
        interval = "-" if given is None else f"{given.low:.0f} to {given.high:.0f}"
        spread = f"{end['low']:.0f} to {end['high']:.0f}"
        lines.append(
            f"{end['tokens']:10.3g} {end['runs']:>5} {end['value']:29.0f} {spread:>18} {value:>23} {interval:>18}"
        )
    return [*lines, f"along the runs of {scale['tokens']:.3g} tokens, in quarters: {quarters} tokens"]


def _verdict(rows: list[dict[str, Any]], numbers: dict[str, Any]) -> tuple[bool, str]:
    known = [row for row in rows if row["known"]]
    if not known:
        widest = rows[-1]
        return False, (
            f"Not decided: at loss {widest['loss']:.3f} the critical batch lies between {widest['low']:.0f} and "
            f"{widest['high']:.0f} tokens; add batches and seeds."
        )
    last, line, scale = known[-1], numbers["line"], numbers["noise_scale"]
    edges = ", ".join(f"{size:.0f}" for size in numbers["edges"])
    said = (
        f"Not decided: batches of {edges} tokens are best at the first or last rate tried, so that others may need "
        "fewer steps; as far as tried, the critical"
        if edges
        else "The critical"
    )
    said += (
        f" batch is {last['critical']:.0f} tokens (90 % interval {last['low']:.0f} to {last['high']:.0f}) at a loss of "
        f"{last['loss']:.3f} nats per token, D = {few(last['tokens'])} tokens"
    )
    if line is not None:
        grows = line["low"] > 0
        said += (
            f"; it {'grows' if grows else 'cannot be said to grow'} with D, as D^{line['slope']:.2f} "
            f"({line['low']:.2f} to {line['high']:.2f}), and is not given beyond ×{REACH:g} of the D measured"
        )
    if scale is not None:
        end = scale["along"][-1]
        said += (
            f"; the gradient noise scale in the last quarter of runs of {few(scale['tokens'])} tokens is "
            f"{end['value']:.0f} tokens (least and greatest of {end['runs']} runs: {end['low']:.0f} and "
            f"{end['high']:.0f})"
        )
    return not edges, said + "."


LITERATURE = (
    Cited(
        "arXiv:1812.06162",
        "the gradient noise scale predicts the largest useful batch, and grows as the loss falls; model size matters "
        "mostly through the loss",
    ),
    Cited(
        "arXiv:2410.21676",
        "the critical batch grows with D and hardly with N, from 85 million to 1.2 billion parameters",
    ),
    Cited("arXiv:2505.13738", "critical and best batch are power laws in D, whatever N; the best one as D^0.383"),
)
