"""From a law and a budget to a model that can be built: its shape, tokens, batch, rate, loss, and what else costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from isoflop.config import ModelConfig
from isoflop.flops import compute, count_params, params_by_convention
from isoflop.law.economy import (
    FACTORS,
    Deviation,
    inference_optimum,
    tokens_to_reach,
    total_cost,
)
from isoflop.law.fit import Fit
from isoflop.law.forecast import forecast
from isoflop.law.frontier import approach3
from isoflop.law.laws import LAWS, PUBLISHED, Optimum, Terms, Value, optimum
from isoflop.law.rates import RATES
from isoflop.law.repetition import effective
from isoflop.law.shape import REACH, Shapes, Wishes, nearest, shape, shapes
from isoflop.record import Floats, ParamConvention, Records

KEPT_RATIO = 0.2
"""Largest distance of tokens per parameter from the wish, in its logarithm; shapes of a grid lie nearer than that."""
SAME_LOSS = 1e-4
"""Nats per token below which two shapes are as good as each other; two seeds of one run differ by more."""
SAME_RATIO = 0.02
"""Relative difference of D/N below which two shapes are alike."""
SAME_COST = 0.001
"""The same for FLOPs."""
OFF_BUDGET = 0.01
"""Part of the budget by which a plan may miss it without saying so."""


@dataclass(frozen=True)
class Basis:
    """What losses are predicted by: a fit of runs, or a published law."""

    law: str
    """Key of LAWS."""
    parameters: Mapping[str, float]
    named: str
    """What to print: whose constants made a number."""
    convention: ParamConvention
    """How the law counts N; `given` by an outside table is taken as `total`."""
    fit: Fit | None = None
    """The fit, which knows the runs; None for a published law."""
    tried: Records | None = None
    """All the runs, those of other learning rates too; None: those of the fit."""
    notes: tuple[str, ...] = ()
    """What a reader must know of it."""

    @property
    def terms(self) -> Terms:
        """The falling part of the loss."""
        return LAWS[self.law].balance(self.parameters)

    @property
    def counted(self) -> str:
        """Key of `params_by_convention` under which a shape's N enters the law."""
        return "total" if self.convention == "given" else self.convention

    @property
    def records(self) -> Records | None:
        """The runs, where there are any."""
        return None if self.fit is None else self.fit.records

    def loss(self, N: Value, D: Value, unique: float | None = None) -> Value:
        """L of the law, nats per token; with unique tokens, of N' and D' (arXiv:2305.16264)."""
        law = LAWS[self.law]
        if unique is not None and "U" not in law.variables:
            N, D = self.worth(N, D, unique)
        return law.loss(self.parameters, N=N, D=D, U=unique)

    def worth(self, N: Value, D: Value, unique: Value) -> tuple[Value, Value]:
        """Return N' and D' by the law's own constants of repetition, or by those of arXiv:2305.16264."""
        known = PUBLISHED["muennighoff2023"].parameters
        fade = {name: self.parameters.get(name, known[name]) for name in ("R_D", "R_N")}
        return effective(N, D, unique, **self.terms._asdict(), **fade)

    def worths(self) -> Records:
        """Return the runs with N' and D' for N and D where the law was fitted to repeated tokens; else as they are."""
        runs = self.fit.records if self.fit is not None else None
        assert runs is not None
        if "U" not in LAWS[self.law].variables:
            return runs
        N, D = (np.asarray(part, dtype=np.float64) for part in self.worth(runs.N, runs.D, runs.U))
        changed = zip(runs.runs, N.tolist(), D.tolist(), strict=True)
        return replace(runs, runs=tuple(replace(run, params={runs.convention: n}, tokens=d) for run, n, d in changed))


def published(name: str) -> Basis:
    """Return a published law as a basis.

    Raises:
        ValueError: there is no such law.
    """
    if name not in PUBLISHED:
        raise ValueError(f"law={name!r} is not published here; choose one of {', '.join(PUBLISHED)}")
    law = PUBLISHED[name]
    convention: Any = law.convention
    return Basis(law.law, law.parameters, f"{name} ({law.source})", convention)


def fitted(fit: Fit, *, tried: Records | None = None, notes: tuple[str, ...] = ()) -> Basis:
    """Return a fit of runs as a basis; it may leave out runs that were tried."""
    named = f"{fit.law} fitted to {len(fit.records)} runs of {fit.records.source}"
    return Basis(fit.law, fit.values, named, fit.records.convention, fit, tried or fit.records, notes)


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
    if not budget > 0 or not np.isfinite(budget):
        raise ValueError(f"flops={budget:g} of a plan must be a positive, finite number")
    best = optimal_size(basis, budget, wishes.unique_tokens)
    ratio = wishes.tokens_per_param
    grid = shapes(basis.counted, float(best.N) if ratio is None else (budget / 6 / ratio) ** 0.5, model, wishes)
    chosen, tokens = _for_budget(basis, budget, grid, wishes)
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
    head_size = wishes.head_size or model.head_size
    model = shape(model, head_size, int(grid.d_model[chosen]), int(grid.num_layers[chosen]))
    return _describe(basis, budget, wishes, model, tokens, best, served, saving)


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
    rate, named, notes = RATES[wishes.rate](basis.tried, model, N, tokens)
    size = max(1, round(rate.batch_tokens / model.context_length))
    loss, low, high = _loss(basis, N, tokens, flops, unique)
    n_low, n_high = _interval(basis, budget) if unique is None else (None, None)
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
        deviations=deviations(basis, budget, best, unique),
        inference_flops=served,
        saving=saving,
        notes=(*notes, *_notes(basis, unique, tokens, flops / budget)),
    )


def _loss(basis: Basis, N: float, D: float, C: float, unique: float | None) -> tuple[float, float | None, float | None]:
    """Forecast by the runs where there are runs, or evaluate the published law."""
    if basis.records is None:
        return float(np.asarray(basis.loss(N, D, unique))), None, None
    if unique is not None:
        N, D = (float(np.asarray(part)) for part in basis.worth(N, D, unique))
    ahead = forecast(basis.worths(), N=N, D=D, C=C)
    return float(ahead.mean[0]), float(ahead.low[0]), float(ahead.high[0])


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


def _notes(basis: Basis, unique: float | None, tokens: float, spent: float) -> tuple[str, ...]:
    notes = [*basis.notes]
    if abs(spent - 1) > OFF_BUDGET:
        notes.append(f"training takes {spent:.3g} times the budget: so much longer a smaller model reaches its loss")
    if basis.convention == "given":
        notes.append("the table's N is none of the counts that a shape has here, or not said; taken as all parameters")
    if unique is not None and tokens > unique:
        whose = "the fit's own" if "R_D" in basis.parameters else "its"
        notes.append(f"repeated tokens by arXiv:2305.16264 with {whose} constants; no interval covers their error")
    return tuple(notes)
