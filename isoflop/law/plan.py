"""From a law and a budget to a model that can be built: its shape, tokens, batch, rate, loss, and what else costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from isoflop.config import ModelConfig
from isoflop.flops import compute, count_params, params_by_convention
from isoflop.law.basis import Basis
from isoflop.law.economy import (
    FACTORS,
    Deviation,
    inference_optimum,
    tokens_to_reach,
    total_cost,
)
from isoflop.law.forecast import Forecast, forecast
from isoflop.law.frontier import approach3
from isoflop.law.laws import Optimum, optimum
from isoflop.law.rates import RATES, usual
from isoflop.law.shape import REACH, Shapes, Wishes, model_at, nearest, shapes
from isoflop.record import Floats, of_a_run

KEPT_RATIO = 0.2
"""Largest distance of tokens per parameter from the wish, in its logarithm; shapes of a grid lie nearer than that."""
SAME_LOSS = 1e-4
"""Nats per token below which two shapes are as good as each other; two seeds of one run differ by more."""
SAME_RATIO = 0.02
"""Relative difference of D/N below which two shapes are alike."""
SAME_COST = 0.001
"""The same for FLOPs."""
FAR_OFF = 2.0
"""Factor between a shape and N* that is said; the grid's own steps are smaller."""
WORN = float(np.log(100))
"""Repetitions over R*_D after which D' lies within 1 % of all that it can become (arXiv:2305.16264, equation 5)."""
OFF_BUDGET = 0.01
"""Part of the budget by which a plan may miss it without saying so."""


@dataclass(frozen=True)
class Plan:
    """A run to train, and what it should give."""

    basis: str
    """Whose constants made the numbers."""
    convention: str
    """How N is counted in `optimum`, `deviations` and the loss."""
    budget: float
    """FLOPs asked for."""
    model: ModelConfig
    params: Mapping[str, float]
    """N of every kind, and under every convention of a fit."""
    tokens: float
    flops: float
    """True training FLOPs of the shape, by `isoflop.flops.compute`."""
    batch_size: int
    """Sequences in a step."""
    steps: int
    lr: float
    rate: str
    """Whose learning rate and batch these are."""
    epochs: float | None
    """Passes over the unique tokens; None where their number was not given."""
    loss: float
    """Nats per token."""
    low: float | None
    """90 % interval; a published law has none."""
    high: float | None
    optimum: Optimum
    """N* and D* of the budget by the law alone, C = 6ND."""
    optimum_low: float | None
    """90 % interval of N*, where the fit has replicates."""
    optimum_high: float | None
    deviations: tuple[Deviation, ...]
    inference_flops: float | None
    """FLOPs of serving, a third of training's per token."""
    saving: float | None
    """Part of training plus serving that is saved against the shape which is best for the budget alone."""
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        optimal = {"params": float(self.optimum.N), "tokens": float(self.optimum.D)}
        return {**asdict(self), "optimum": optimal}


def plan(basis: Basis, budget: float, model: ModelConfig, wishes: Wishes) -> Plan:
    """Choose the shape on the grid that the law finds best for a budget of training FLOPs.

    Args:
        basis: What losses are predicted by.
        budget: FLOPs.
        model: What the shape leaves open: vocabulary, context, parts, and the size of a head.
        wishes: What else to keep to.

    Raises:
        ValueError: the budget is no positive number, no shape keeps to the wishes, or the runs cannot be fitted.
    """
    of_a_run(f"flops={budget:g} of a plan", budget)
    best = optimal_size(basis, budget, wishes.unique_tokens)
    ratio = wishes.tokens_per_param
    grid = shapes(basis.counted, float(best.N) if ratio is None else (budget / 6 / ratio) ** 0.5, model, wishes)
    chosen, tokens = _for_budget(basis, budget, grid, wishes)
    if wishes.unique_tokens is not None and wishes.unique_tokens < model.context_length:
        raise ValueError(
            f"unique_tokens={wishes.unique_tokens:g} is less than one sequence of {model.context_length} tokens; give "
            "how many different tokens there are"
        )
    if tokens < model.context_length:
        raise ValueError(
            f"flops={budget:g} pays for {tokens:.3g} tokens of a model with d_model={grid.d_model[chosen]:.0f}, less "
            f"than one sequence of {model.context_length}; give more, or a smaller head_size, vocabulary or context"
        )
    saving = served = None
    if wishes.inference_tokens is not None:
        first = grid.flops[chosen] * (tokens + wishes.inference_tokens / 3)
        now = Optimum(float(grid.N[chosen]), tokens)
        grid = shapes(basis.counted, cheapest_size(basis, now, wishes), model, wishes, reach=2.0)
        chosen, tokens = _for_serving(basis, now, grid, wishes)
        served = float(grid.flops[chosen] / 3 * wishes.inference_tokens)
        saving = float(1 - (grid.flops[chosen] * tokens + served) / first)
    built = model_at(grid, chosen, model, wishes)
    return _describe(basis, budget, wishes, built, tokens, best, served, saving)


def optimal_size(basis: Basis, C: float, unique: float | None = None) -> Optimum:
    """Return N* and D* of a budget C = 6ND; where tokens repeat, by search."""
    best = optimum(basis.terms, C)
    best = Optimum(float(best.N), float(best.D))
    if unique is None or unique >= best.D:
        return best
    # repetition makes the optimum smaller, by as much as tokens are short
    N = best.N * np.geomspace(1e-5, REACH, 8001)
    at = int(np.argmin(np.asarray(basis.loss(N, C / (6 * N), unique))))
    return Optimum(float(N[at]), C / (6 * float(N[at])))


def _for_budget(basis: Basis, budget: float, grid: Shapes, wishes: Wishes) -> tuple[int, float]:
    """Spend the budget whole: the shape of least loss, or of the wanted tokens per parameter."""
    D = budget / grid.flops
    if wishes.tokens_per_param is None:
        chosen = nearest(np.asarray(basis.loss(grid.N, D, wishes.unique_tokens)), SAME_LOSS, grid, wishes)
    else:
        off = np.abs(np.log(D / grid.N / wishes.tokens_per_param))
        if off.min() > KEPT_RATIO:
            ratio = float((D / grid.N)[off.argmin()])
            raise ValueError(
                f"tokens_per_param={wishes.tokens_per_param:g} cannot be kept: the nearest shape that is allowed gets "
                f"{ratio:.3g}; allow other sizes, or another budget"
            )
        chosen = nearest(off, SAME_RATIO, grid, wishes)
    return chosen, float(D[chosen])


def _needed(basis: Basis, now: Optimum, N: Floats, wishes: Wishes) -> Floats:
    """Return the tokens at which each N reaches the loss of a run; infinite where no number suffices."""
    many = now.D * np.geomspace(1e-2, 1e5, 701)
    loss = float(np.asarray(basis.loss(now.N, now.D, wishes.unique_tokens)))
    curves = np.asarray(basis.loss(N[:, None], many, wishes.unique_tokens))
    return np.array([tokens_to_reach(loss, many, curve) or np.inf for curve in curves])


def cheapest_size(basis: Basis, now: Optimum, wishes: Wishes) -> float:
    """Return the N of least 6ND + 2N·served at a run's loss, closed where no token repeats (arXiv:2401.00448)."""
    assert wishes.inference_tokens is not None
    if wishes.unique_tokens is None:
        A, alpha, B, beta = basis.terms
        quality = float(A * now.N**-alpha + B * now.D**-beta)
        return float(inference_optimum(basis.terms, quality, wishes.inference_tokens).N)
    N = now.N * np.geomspace(1e-3, 1, 301)
    needed = _needed(basis, now, N, wishes)
    return float(N[np.argmin(total_cost(N, needed, wishes.inference_tokens))])


def _for_serving(basis: Basis, now: Optimum, grid: Shapes, wishes: Wishes) -> tuple[int, float]:
    """Reach a run's loss for the least FLOPs of training and serving together."""
    assert wishes.inference_tokens is not None
    needed = _needed(basis, now, grid.N, wishes)
    chosen = nearest(np.log(grid.flops * (needed + wishes.inference_tokens / 3)), SAME_COST, grid, wishes)
    return chosen, float(needed[chosen])


def _describe(
    basis: Basis,
    budget: float,
    wishes: Wishes,
    model: ModelConfig,
    tokens: float,
    best: Optimum,
    served: float | None,
    saving: float | None,
) -> Plan:
    unique = wishes.unique_tokens
    kinds = params_by_convention(model)
    N, flops = kinds[basis.counted], compute(model) * tokens
    rate, named, notes = RATES[wishes.rate or usual(basis.tried)](basis.tried, model, N, tokens)
    size = max(1, round(rate.batch_tokens / model.context_length))
    loss, low, high = _loss(basis, N, tokens, flops, unique)
    n_low, n_high = _interval(basis, budget) if unique is None else (None, None)
    rows = deviations(basis, budget, best, unique)
    return Plan(
        basis=basis.named,
        convention=basis.counted,
        budget=budget,
        model=model,
        params={**{f"{name}": float(value) for name, value in asdict(count_params(model)).items()}, **kinds},
        tokens=tokens,
        flops=flops,
        batch_size=size,
        steps=max(1, round(tokens / (size * model.context_length))),
        lr=rate.lr,
        rate=named,
        epochs=None if unique is None else tokens / unique,
        loss=loss,
        low=low,
        high=high,
        optimum=best,
        optimum_low=n_low,
        optimum_high=n_high,
        deviations=rows,
        inference_flops=served,
        saving=saving,
        notes=(*notes, *_notes(basis, wishes, Optimum(N, tokens), rows, flops / budget)),
    )


def _loss(basis: Basis, N: float, D: float, C: float, unique: float | None) -> tuple[float, float | None, float | None]:
    """Forecast by the runs where there are runs, or evaluate the published law."""
    if basis.records is None:
        return float(np.asarray(basis.loss(N, D, unique))), None, None
    ahead = _ahead(basis, np.array([N]), np.array([D]), C, unique)
    return float(ahead.mean[0]), float(ahead.low[0]), float(ahead.high[0])


def _ahead(basis: Basis, N: Floats, D: Floats, C: float, unique: float | None) -> Forecast:
    at = (N, D) if unique is None else basis.worth(N, D, unique)
    return forecast(basis.worths(), N=at[0], D=at[1], C=C)


def _interval(basis: Basis, budget: float) -> tuple[float | None, float | None]:
    if basis.fit is None or not basis.fit.samples:
        return None, None
    _, low, high = approach3(basis.fit).params(budget)
    return (None, None) if low is None or high is None else (float(np.asarray(low)), float(np.asarray(high)))


def deviations(basis: Basis, C: float, best: Optimum, unique: float | None = None) -> tuple[Deviation, ...]:
    """Return what ×/÷ 2 and 4 of N* costs: the loss at the same C = 6ND, and the FLOPs that would make up for it."""
    loss = float(np.asarray(basis.loss(best.N, best.D, unique)))
    rows = []
    for factor in FACTORS:
        N = float(factor * best.N)
        D = C / (6 * N)
        many = D * np.geomspace(0.5, 1e4, 4001)
        match = tokens_to_reach(loss, many, np.asarray(basis.loss(N, many, unique)))
        needed = None if match is None else 6 * N * match
        here = float(np.asarray(basis.loss(N, D, unique)))
        rows.append(Deviation(factor, N, D, here, here - loss, needed))
    return tuple(rows)


def _notes(basis: Basis, wishes: Wishes, run: Optimum, rows: tuple[Deviation, ...], spent: float) -> tuple[str, ...]:
    unique = wishes.unique_tokens
    told = [*basis.notes]
    if abs(spent - 1) > OFF_BUDGET:
        told.append(f"training takes {spent:.3g} times the budget: so much longer a smaller model reaches its loss")
    if basis.convention == "given":
        told.append("the table's N is none of the counts that a shape has here, or not said; taken as all parameters")
    if unique is not None and unique < run.D:
        told += _repeated(basis, float(run.D) / unique)
    free = (wishes.max_params, wishes.tokens_per_param, wishes.inference_tokens) == (None, None, None)
    off = float(run.N / rows[FACTORS.index(1.0)].params)
    if free and not 1 / FAR_OFF < off < FAR_OFF:
        told.append(f"no shape with this vocabulary and head is nearer to N* than {off:.3g} times it; choose others")
    if basis.records is not None:
        told += _other_size(basis, rows, unique)
    return tuple(told)


def _repeated(basis: Basis, epochs: float) -> list[str]:
    fade = basis.fades["R_D"]
    own = "R_D" in basis.parameters or "R_D" in basis.faded
    constants = f"R*_D = {fade:.3g} as {'fitted to the runs' if own else 'published'}"
    told = [f"repeated tokens by arXiv:2305.16264, {constants}; no interval covers their error"]
    if (epochs - 1) / fade > WORN:
        told.append(
            f"after {1 + WORN * fade:.3g} epochs the data have given 99 % of what they can, and this run makes "
            f"{epochs:.3g}: most of the budget buys nothing; find more data, or spend less"
        )
    return told


def _other_size(basis: Basis, rows: tuple[Deviation, ...], unique: float | None) -> list[str]:
    """Say so where the forecast, which averages several fits, is lower at another size than at the law's own."""
    N, D = (np.array([getattr(row, name) for row in rows]) for name in ("params", "tokens"))
    mean = _ahead(basis, N, D, float(6 * N[0] * D[0]), unique).mean
    own, least = FACTORS.index(1.0), int(mean.argmin())
    if mean[own] - mean[least] <= SAME_LOSS:
        return []
    return [
        f"the forecast, which averages other fits too, is lower at {FACTORS[least]:g} times N* ({mean[least]:.4f} "
        f"against {mean[own]:.4f} nats per token for the same FLOPs): these runs leave the best size open by so much"
    ]
