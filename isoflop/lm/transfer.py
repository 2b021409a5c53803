"""What a model takes over from a narrower or shallower one: multipliers of initial weights, rates and forward pass.

Symbols: m = d_model / base_width; n = num_layers / base_depth; a is the power of n that damps each residual branch.
Hidden widths (heads times head size, d_ff) are taken to grow as d_model does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from torch import Tensor

from isoflop.architecture import ModelConfig, ParametrizationKind

Kind = Literal["embedding", "hidden", "vector", "final_norm", "readout"]


class Multipliers(NamedTuple):
    """Factors of one parameter, over what the base model has."""

    init: float = 1.0
    """Of the initial standard deviation."""
    lr: float = 1.0
    weight_decay: float = 1.0
    """Where the parameter decays at all; it acts times the learning rate."""
    eps: float = 1.0
    """Of what is added to the root of the squared gradient's mean."""


class Factors(NamedTuple):
    """Factors of the forward pass."""

    embedding: float
    residual: float
    """Of what each branch adds to the residual stream."""
    logits: float
    attention: float | None
    """Of q·kᵀ; None: 1/√head_size."""


Rule = Callable[[float, float, float], Multipliers]
"""Multipliers from m, n and a."""


def kind_of(name: str, param: Tensor) -> Kind:
    """Say what a parameter of `Transformer` is; a tied read-out counts as embedding, whose factors are the same."""
    if name.startswith("blocks."):
        return "hidden" if param.ndim >= 2 else "vector"
    return "final_norm" if name.startswith("final_norm.") else "readout" if name == "head" else "embedding"


def width_ratio(model: ModelConfig) -> float:
    """Return m, or 1 in the standard parametrization."""
    return model.d_model / model.rate_width


def depth_ratio(model: ModelConfig) -> float:
    """Return n, or 1 where the parametrization takes no care of depth."""
    return model.num_layers / (model.base_depth or model.num_layers)


def multipliers(name: str, param: Tensor, model: ModelConfig, optimizer: str = "adamw") -> Multipliers:
    """Return the factors of a parameter in a model's parametrization under an optimizer (a key of `RULES`)."""
    rule = RULES[optimizer][kind_of(name, param)]
    return rule(width_ratio(model), depth_ratio(model), PARAMETRIZATIONS[model.parametrization])


def forward_factors(model: ModelConfig) -> Factors:
    """Return the factors of a model's forward pass: α_in, n^−a, α_out/m and √base_head_size / head_size."""
    grown = model.base_head_size not in (None, model.head_size)
    return Factors(
        embedding=model.alpha_in,
        residual=depth_ratio(model) ** -PARAMETRIZATIONS[model.parametrization],
        logits=model.alpha_out / width_ratio(model),
        attention=(model.base_head_size or 1) ** 0.5 / model.head_size if grown else None,
    )


# arXiv:2505.01618, table 1 and equation 40: hidden gradients shrink by m·n^a, those outside the blocks by m alone, and
# eps with them (the authors' code kept n^−a for all parameters until arXiv:2512.22382 pointed to it)
_ADAMW: Mapping[Kind, Rule] = {
    "embedding": lambda m, n, a: Multipliers(eps=1 / m),
    "hidden": lambda m, n, a: Multipliers(init=m**-0.5, lr=n ** (a - 1) / m, weight_decay=m, eps=n**-a / m),
    "vector": lambda m, n, a: Multipliers(lr=n ** (a - 1), eps=n**-a / m),
    "final_norm": lambda m, n, a: Multipliers(eps=1 / m),
    "readout": lambda m, n, a: Multipliers(eps=1 / m),
}

# arXiv:2203.03466, table 8, for width; an update is as large as its gradient, which shrinks by n^a, and its branch is
# damped by n^a again: n^(2a − 1) makes n of them move the stream as much as one, n⁰ at a = ½ as in arXiv:2310.02244.
# It holds without grad_clip alone: a bound on the joint norm scales updates by what the width does to all gradients
_SGD: Mapping[Kind, Rule] = {
    "embedding": lambda m, n, a: Multipliers(lr=m, weight_decay=1 / m),
    "hidden": lambda m, n, a: Multipliers(init=m**-0.5, lr=n ** (2 * a - 1)),
    "vector": lambda m, n, a: Multipliers(lr=m * n ** (2 * a - 1)),
    "final_norm": lambda m, n, a: Multipliers(lr=m),
    "readout": lambda m, n, a: Multipliers(lr=m, weight_decay=1 / m),
}


def _muon(m: float, n: float, a: float) -> Multipliers:
    """Keep the spectral norm of an update, which matching AdamW's RMS (arXiv:2502.16982) lets grow as √m, fixed.

    That is the condition of arXiv:2310.17813; an update has full rank here, where AdamW's grows as m.
    """
    return Multipliers(init=m**-0.5, lr=n ** (a - 1) * m**-0.5, weight_decay=m**0.5)


RULES: Mapping[str, Mapping[Kind, Rule]] = {"adamw": _ADAMW, "sgd": _SGD, "muon": {**_ADAMW, "hidden": _muon}}
"""Multipliers by optimizer and kind of parameter; Muon leaves all but hidden matrices to AdamW."""

PARAMETRIZATIONS: Mapping[ParametrizationKind, float] = {
    "standard": 0.0,
    "mup": 0.0,
    "depth_mup": 0.5,  # arXiv:2310.02244
    "completep": 1.0,  # arXiv:2505.01618
}
"""The power a; what else they differ in is which ratios are not 1 (`isoflop.architecture.BASES`)."""
