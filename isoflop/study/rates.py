"""Where the learning rate and the batch of a study's runs come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

from isoflop.config import ModelConfig, OptimConfig, TrainConfig
from isoflop.flops import count_params
from isoflop.law.rates import step_law

RateName = Literal["given", "step_law"]
Rates = tuple[OptimConfig, TrainConfig]


def given(optim: OptimConfig, train: TrainConfig, model: ModelConfig, tokens: float) -> Rates:
    """As the study says: lr, or lr·lr_width/d_model, and batch_size."""
    return optim, train


def by_step_law(optim: OptimConfig, train: TrainConfig, model: ModelConfig, tokens: float) -> Rates:
    """Peak rate and batch of Step Law for this size and length (arXiv:2503.04715; fitted from 60M parameters on)."""
    found = step_law(count_params(model).body, tokens)
    parts = max(1, round(found.batch_tokens / (model.context_length * train.grad_accum)))
    rated = replace(optim, lr=found.lr, lr_width=None, rate_rule="Step Law (arXiv:2503.04715)")
    return rated, replace(train, batch_size=parts * train.grad_accum)


RATES: Mapping[RateName, Callable[[OptimConfig, TrainConfig, ModelConfig, float], Rates]] = {
    "given": given,
    "step_law": by_step_law,
}
