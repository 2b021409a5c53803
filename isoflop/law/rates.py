"""Where a plan's peak learning rate and batch come from: Step Law, the runs' best ones, or the runs' by transfer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from isoflop.config import ModelConfig, OptimConfig
from isoflop.flops import count_params
from isoflop.law.lawful import cells, setting
from isoflop.record import Floats, Records

RateName = Literal["step_law", "fit", "transfer"]
STEP_LAW_N = (215e6, 1.07e9)
"""Sizes that Step Law was fitted on (github.com/step-law/steplaw data/dense_lr_bs_loss.csv)."""
STEP_LAW_D = (4e9, 100e9)
"""Tokens of the same runs."""
FEWEST_RATES = 3
"""Fewest rates tried at one N and D from which a best one is read."""
AS_GOOD = 0.002
"""Losses within this part of the least are as good, and of such rates the mean is taken: on Step Law's own runs the
rates then scatter least about their power law, 11 % against 23 % for the very best alone and 13 % for 0.005."""


class Rate(NamedTuple):
    """Peak learning rate of AdamW, and tokens in one step."""

    lr: float
    batch_tokens: float


class Rated(NamedTuple):
    """A rate, whose it is, and what one must know of it."""

    rate: Rate
    named: str
    notes: tuple[str, ...]


def step_law(N: float, D: float) -> Rate:
    """Step Law: lr = 1.79·N^-0.713·D^0.307, batch = 0.58·D^0.571 tokens, N without embeddings (arXiv:2503.04715)."""
    return Rate(1.79 * N**-0.713 * D**0.307, 0.58 * D**0.571)


def _by_step_law(_: Records | None, model: ModelConfig, __: float, tokens: float) -> Rated:
    N = float(count_params(model).body)
    told = [_beyond(N, STEP_LAW_N, "N"), _beyond(tokens, STEP_LAW_D, "D")]
    outside = "; caution: " + ", ".join(filter(None, told)) if any(told) else ""
    note = f"Step Law was fitted on {STEP_LAW_N[0]:.3g} to {STEP_LAW_N[1]:.3g} parameters and {STEP_LAW_D[0]:.3g} to "
    note += f"{STEP_LAW_D[1]:.3g} tokens; this run lies outside"
    return Rated(step_law(N, tokens), f"Step Law (arXiv:2503.04715){outside}", (note,) if outside else ())


def _beyond(value: float, known: tuple[float, float], letter: str) -> str:
    """Say by which factor a value lies outside a range; empty within it."""
    if value < known[0]:
        return f"{letter} {known[0] / value:,.3g} times below its range"
    return f"{letter} {value / known[1]:,.3g} times above its range" if value > known[1] else ""


def _by_transfer(runs: Records | None, model: ModelConfig, _: float, tokens: float) -> Rated:
    configs = [] if runs is None else [run.config for run in runs.runs if run.config]
    if not configs:
        raise ValueError(
            "rate='transfer' needs runs that know their configuration; give a study's folder, or rate=step_law"
        )
    if len({_recipe(config) for config in configs}) > 1:
        raise ValueError(
            "rate='transfer' needs runs of one recipe, but these tried several learning rates or batches; use rate=fit "
            "or rate=step_law"
        )
    optim, train = OptimConfig(**configs[-1]["optim"]), configs[-1]["train"]
    batch = float(train["batch_size"] * configs[-1]["model"]["context_length"])
    scaled = "as they are" if optim.lr_width is None else "∝ 1/width"
    return Rated(Rate(optim.peak_lr(model.rate_width), batch), f"the runs' own, transferred {scaled}", ())


class Best(NamedTuple):
    """The best rate and batch of each N and D at which several rates were tried."""

    N: Floats
    D: Floats
    lr: Floats
    batch: Floats
    """Tokens; NaN where the runs do not say."""


def best_rates(runs: Records) -> Best:
    """Read the best rates off runs that know their own: the mean, in logarithms, of those that are as good as the best.

    Returns:
        One row for each N and D with three rates at least; none where there are no such.
    """
    rows = []
    number = cells(runs)
    told = [setting(run) for run in runs.runs]
    rates = np.array([one.lr or np.nan for one in told])
    batches = np.array([one.batch_tokens or np.nan for one in told])
    for cell in np.unique(number):
        mine = np.flatnonzero((number == cell) & np.isfinite(rates))
        if len(np.unique(rates[mine])) < FEWEST_RATES:
            continue
        good = mine[runs.L[mine] <= runs.L[mine].min() * (1 + AS_GOOD)]
        lr, batch = (float(np.exp(np.log(column[good]).mean())) for column in (rates, batches))
        rows.append((float(runs.N[mine[0]]), float(runs.D[mine[0]]), lr, batch))
    return Best(*np.array(rows, dtype=np.float64).reshape(-1, 4).T)


class Power(NamedTuple):
    """A quantity ∝ N^a·D^b, by least squares in logarithms."""

    level: float
    a: float
    b: float
    scatter: float
    """Standard deviation of ln about it."""

    def at(self, N: float, D: float) -> float:
        """Evaluate it."""
        return float(np.exp(self.level + self.a * np.log(N) + self.b * np.log(D)))


def power(N: Floats, D: Floats, value: Floats) -> Power | None:
    """Fit ln value = level + a·ln N + b·ln D; None where the points do not tell a from b."""
    design: Float64[np.ndarray, "points three"] = np.column_stack([np.ones(len(N)), np.log(N), np.log(D)])
    if len(N) <= 3 or np.linalg.matrix_rank(design - [0, np.log(N).mean(), np.log(D).mean()], tol=0.1) < 3:
        return None
    found = np.linalg.lstsq(design, np.log(value), rcond=None)[0]
    error = np.log(value) - design @ found
    level, a, b = map(float, found)
    return Power(level, a, b, float(np.sqrt((error**2).sum() / (len(N) - 3))))


def _by_own_fit(runs: Records | None, model: ModelConfig, N: float, tokens: float) -> Rated:
    best = None if runs is None else best_rates(runs)
    law = None if best is None else power(best.N, best.D, best.lr)
    if best is None or law is None:
        count = 0 if best is None else len(best.N)
        raise ValueError(
            f"rate='fit' needs runs with a column lr (or own runs) that tried {FEWEST_RATES} rates each at four or "
            f"more sizes and lengths, but only {count} such are there; give those, or rate=step_law"
        )
    notes = []
    away = [max(x / known.max(), known.min() / x) for x, known in ((N, best.N), (tokens, best.D))]
    if max(away) > 1:
        notes.append(
            f"the rate is extrapolated, {max(away):.3g} times beyond the sizes and lengths that it was fitted on"
        )
    wide = power(best.N, best.D, best.batch) if np.isfinite(best.batch).all() else None
    if wide is None:
        notes.append("the runs do not tell their batch in tokens (a column steps would); batch by Step Law")
    batch = step_law(float(count_params(model).body), tokens).batch_tokens if wide is None else wide.at(N, tokens)
    named = f"the best of {len(best.N)} sizes and lengths: lr ∝ N^{law.a:.2f}·D^{law.b:.2f}, ±{law.scatter:.0%}"
    if wide is not None:
        named += f"; batch ∝ N^{wide.a:.2f}·D^{wide.b:.2f}, ±{wide.scatter:.0%}"
    return Rated(Rate(law.at(N, tokens), batch), named, tuple(notes))


RATES: Mapping[RateName, Callable[[Records | None, ModelConfig, float, float], Rated]] = {
    "step_law": _by_step_law,
    "fit": _by_own_fit,
    "transfer": _by_transfer,
}


def usual(runs: Records | None) -> RateName:
    """Name where a rate comes from unless it is said: from runs of one recipe by transfer, otherwise Step Law."""
    configs = [] if runs is None else [run.config for run in runs.runs]
    recipes = {_recipe(config) if {"model", "optim", "train"} <= config.keys() else None for config in configs}
    return "transfer" if len(recipes) == 1 and None not in recipes else "step_law"


def _recipe(config: Mapping[str, Any]) -> tuple[Any, ...]:
    optim, batch = OptimConfig(**config["optim"]), config["train"]["batch_size"]
    return optim.optimizer, optim.lr, optim.lr_width, batch, config["model"]["context_length"]
