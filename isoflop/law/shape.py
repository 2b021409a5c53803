"""The shapes that a plan may choose from: whole heads, whole layers, an aspect near the wanted one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from isoflop.config import ModelConfig
from isoflop.flops import compute, count_params, params_by_convention
from isoflop.law.rates import RateName
from isoflop.record import Floats

SLACK = 1.5
"""d_model over num_layers may leave the wanted aspect by this factor, so that sizes lie close enough together."""
LARGEST = 1e15
"""N beyond which no shape is listed, a thousand times the largest models; the grid grows with its root."""
MOST_ASPECT = 4096.0
"""Largest aspect: every model ever trained had more layers, and a smaller number leaves more shapes than one lists."""
REACH = 8.0
"""Shapes within this factor of the optimal N are looked at."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a plan must keep to, beside its budget."""

    head_size: int | None = None
    """Width of one head, which divides d_model; None: as the runs', or the preset's 64."""
    num_layers: int | None = None
    """Layers; None: the runs' where all of them have as many, else by the aspect."""
    num_heads: int | None = None
    """Heads, instead of their width; None: the runs' where all of them have as many, else by head_size."""
    aspect: float = 64.0
    """d_model over num_layers, within SLACK (nanochat's scripts/base_train.py; arXiv:2001.08361, figure 5: flat)."""
    max_params: float | None = None
    """Most parameters in all."""
    tokens_per_param: float | None = None
    """D/N, N in the law's own count, instead of the optimal one."""
    unique_tokens: float | None = None
    """Tokens there are; more than these are repeated."""
    inference_tokens: float | None = None
    """Tokens that will be served: the budget's loss is kept and training plus serving made cheapest."""
    rate: RateName | None = None
    """Where learning rate and batch come from: Step Law, the best of the runs' own (fit), or theirs by transfer; None:
    transfer from own runs of one recipe, otherwise Step Law."""

    def __post_init__(self) -> None:
        for name in (
            "head_size",
            "num_layers",
            "num_heads",
            "aspect",
            "max_params",
            "tokens_per_param",
            "unique_tokens",
            "inference_tokens",
        ):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise ValueError(f"{name}={value:g} must be a positive, finite number")
        if not 1 <= self.aspect <= MOST_ASPECT:
            raise ValueError(
                f"aspect={self.aspect:g} is d_model over num_layers; give a number from 1 to {MOST_ASPECT:g}, "
                "such as 64"
            )
        if self.head_size is not None and self.num_heads is not None:
            raise ValueError(
                f"head_size={self.head_size} and num_heads={self.num_heads} fix d_model between them; give one of them"
            )
        if self.tokens_per_param is not None and self.inference_tokens is not None:
            raise ValueError(
                f"tokens_per_param={self.tokens_per_param:g} fixes what inference_tokens={self.inference_tokens:g} "
                f"would choose; give one of them"
            )


class Family(NamedTuple):
    """What models of several widths have in common."""

    num_layers: int | None
    """None where it varies."""
    num_heads: int | None
    aspect: float
    """Their median d_model over num_layers."""


def family(models: Sequence[Mapping[str, Any]]) -> Family:
    """Read what all of these configurations share."""
    shared: dict[str, int | None] = {}
    for name in ("num_layers", "num_heads"):
        values = {model[name] for model in models}
        shared[name] = values.pop() if len(values) == 1 else None
    aspects = sorted(model["d_model"] / model["num_layers"] for model in models)
    return Family(shared["num_layers"], shared["num_heads"], aspects[len(aspects) // 2])


def in_family(wishes: Wishes, models: Sequence[Mapping[str, Any]]) -> Wishes:
    """Keep to the depth and heads of runs of several widths, for their law tells of no others; unless wished."""
    if len({model["d_model"] for model in models}) < 2:
        return wishes
    theirs = family(models)
    if wishes.num_layers is None and wishes.aspect == Wishes.aspect:
        aspect = min(max(theirs.aspect, 1.0), MOST_ASPECT)
        wishes = replace(wishes, num_layers=theirs.num_layers, aspect=aspect)
    if wishes.num_heads is None and wishes.head_size is None:
        wishes = replace(wishes, num_heads=theirs.num_heads)
    return wishes


class Shapes(NamedTuple):
    """Models of a grid, side by side."""

    d_model: Float64[np.ndarray, "shapes"]
    num_layers: Float64[np.ndarray, "shapes"]
    N: Float64[np.ndarray, "shapes"]
    """In the law's count."""
    total: Float64[np.ndarray, "shapes"]
    flops: Float64[np.ndarray, "shapes"]
    """Training FLOPs per token."""


def shapes(counted: str, N: float, model: ModelConfig, wishes: Wishes, *, reach: float = REACH) -> Shapes:
    """List the shapes within a factor of N, N counted as said, that keep to max_params.

    Raises:
        ValueError: all are larger than max_params, or N is no size of a model.
    """
    parts = []
    d_model = step = _grain(model, wishes)
    if not N < LARGEST:
        raise ValueError(f"a model of {N:.3g} parameters is beyond every grid of shapes; give a smaller budget")
    while True:
        layers, head_size = _layers(d_model, wishes), _head_size(d_model, model, wishes)
        # every count is linear in the layers, so two depths tell all
        one, two = (_counts(counted, shape(model, head_size, d_model, depth)) for depth in (1, 2))
        counts = one[:, None] + (two - one)[:, None] * (layers - 1)
        if not counts[1, 0] < LARGEST:
            raise ValueError(
                f"the smallest shape, d_model={d_model} with vocab_size={model.vocab_size:.4g}, has {counts[1, 0]:.3g} "
                "parameters, more than any model; give a smaller vocab_size, context_length or head_size"
            )
        parts.append(np.vstack([np.full(len(layers), float(d_model)), layers, counts]))
        if counts[0, 0] > reach * N:
            break
        d_model += step
    table = np.hstack(parts)
    allowed = table if wishes.max_params is None else table[:, table[3] <= wishes.max_params]
    if not allowed.size:
        d_model, layers_, _, total, _ = table[:, int(table[3].argmin())]
        raise ValueError(
            f"max_params={wishes.max_params:.3g} is less than the smallest shape, {total:.3g} parameters with d_model="
            f"{d_model:.0f} and num_layers={layers_:.0f}; allow more, or a smaller head_size or vocabulary"
        )
    floor = min(N / reach, float(allowed[2].max()))
    return Shapes(*allowed[:, allowed[2] >= floor])


SHARE = 0.5
"""Largest part of the parameters that embedding and read-out may take in a model for which nobody said a vocabulary."""
OUTSIDE: tuple[dict[str, Any], ...] = (
    {"vocab_size": 32_000, "context_length": 2048},
    {"vocab_size": 8192, "context_length": 1024},
    {"vocab_size": 2048, "context_length": 512},
    {"vocab_size": 256, "context_length": 256},
)
"""Vocabulary and context where runs do not tell them: those of arXiv:2112.11446 and arXiv:2203.15556, and smaller ones
down to bytes for models that a large vocabulary would fill."""


HEADS = (64, 32, 16)
"""Widths of a head that are tried where nobody said one: the smaller, the finer the grid of sizes."""
MET = 0.1
"""Distance of ln N from the wish within which a size is met."""


def outside(counted: str, N: float, model: ModelConfig, wishes: Wishes, given: dict[str, Any]) -> ModelConfig:
    """Return the model with the first vocabulary, context and head that meet N and leave room for a body."""
    heads = (wishes.head_size or model.head_size,) if wishes.head_size or model.num_heads else HEADS
    for step in OUTSIDE:
        for head_size in heads:
            tried = shape(replace(model, **{**step, **given}), head_size, 4 * head_size, 1)
            grid = shapes(counted, N, tried, wishes)
            at = int(np.abs(np.log(grid.N / N)).argmin())
            found = count_params(shape(tried, head_size, int(grid.d_model[at]), int(grid.num_layers[at])))
            if found.body >= (1 - SHARE) * found.total and abs(np.log(grid.N[at] / N)) <= MET:
                return tried
    return tried


def _grain(model: ModelConfig, wishes: Wishes) -> int:
    """Return the step of d_model: a head, and as many as share keys; of so many heads, an even width for each."""
    if wishes.num_heads is not None:
        return math.lcm(2 * wishes.num_heads, 4)
    return (wishes.head_size or model.head_size) * (model.heads // model.kv_heads)


def _head_size(d_model: int, model: ModelConfig, wishes: Wishes) -> int:
    return d_model // wishes.num_heads if wishes.num_heads is not None else wishes.head_size or model.head_size


def _layers(d_model: int, wishes: Wishes) -> Floats:
    if wishes.num_layers is not None:
        return np.array([float(wishes.num_layers)])
    low = max(1, int(np.ceil(d_model / wishes.aspect / SLACK)))
    return np.arange(low, max(low, int(d_model * SLACK / wishes.aspect)) + 1, dtype=np.float64)


def model_at(grid: Shapes, at: int, model: ModelConfig, wishes: Wishes) -> ModelConfig:
    """Return the model that a row of the grid is."""
    d_model = int(grid.d_model[at])
    return shape(model, _head_size(d_model, model, wishes), d_model, int(grid.num_layers[at]))


def _counts(counted: str, model: ModelConfig) -> Float64[np.ndarray, "three"]:
    kinds = params_by_convention(model)
    return np.array([kinds[counted], kinds["total"], compute(model)], dtype=np.float64)


def shape(model: ModelConfig, head_size: int, d_model: int, num_layers: int) -> ModelConfig:
    """Return the model with another width and depth; vocabulary, context, parts and ratios within a layer stay."""
    heads = d_model // head_size
    return replace(
        model,
        d_model=d_model,
        num_layers=num_layers,
        num_heads=heads,
        num_kv_heads=None if model.num_kv_heads is None else heads * model.kv_heads // model.heads,
        d_ff=None if model.d_ff is None else round(d_model * model.d_ff / model.d_model),
    )


def nearest(objective: Floats, same: float, grid: Shapes, wishes: Wishes) -> int:
    """Of the shapes whose objective is as good as the least, return the one nearest to the wanted aspect."""
    away = np.abs(np.log(grid.d_model / grid.num_layers / wishes.aspect))
    return int(np.argmin(np.where(objective <= objective.min() + same, away, np.inf)))
