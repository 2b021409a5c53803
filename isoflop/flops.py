"""Parameters and training FLOPs of a model in closed form, under each paper's convention; needs no torch.

Symbols: L layers, d width, h heads of size k, T context, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from isoflop.config import ModelConfig, TrainConfig


@dataclass(frozen=True, kw_only=True)
class ParamCounts:
    """Parameters of a model by kind."""

    body: int
    """Matrices of attention and MLP."""
    embedding: int
    """Token embedding, V·d."""
    position: int
    """Learned positions, T·d, or 0."""
    head: int
    """Read-out, V·d; the same numbers as the embedding when tied, yet computed with in every step."""
    norms: int
    """Gains and biases of the norms."""
    biases: int
    """Biases of attention and MLP."""
    total: int
    """Numbers that are stored and trained; a tied read-out is counted once."""


def count_params(model: ModelConfig) -> ParamCounts:
    """Count the parameters of a model by kind."""
    d, layers, ff = model.d_model, model.num_layers, model.mlp_width
    kv = model.kv_heads * model.head_size
    attention = 2 * d * d + 2 * d * kv
    body = layers * (attention + _mlp_matrices(model) * d * ff)
    embedding = head = model.vocab_size * d
    position = model.context_length * d if model.position == "learned" else 0
    norms = (2 * layers + 1) * d * (model.norm_gain + model.norm_bias)
    attn_biases = model.attn_bias * (2 * d + 2 * kv)
    mlp_biases = model.mlp_bias * ((_mlp_matrices(model) - 1) * ff + d)
    biases = layers * (attn_biases + mlp_biases)
    total = body + embedding + position + norms + biases + (0 if model.tied_head else head)
    return ParamCounts(
        body=body, embedding=embedding, position=position, head=head, norms=norms, biases=biases, total=total
    )


def _mlp_matrices(model: ModelConfig) -> int:
    return 3 if model.mlp == "swiglu" else 2


def compute(model: ModelConfig) -> int:
    """The product's own count: 6·(N_body + N_head) + 6·L·T·d per token, what the matrix products of training cost."""
    return palm_causal(model)


def kaplan(model: ModelConfig) -> int:
    """6·N_body per token (arXiv:2001.08361)."""
    return 6 * count_params(model).body


def kaplan_context(model: ModelConfig) -> int:
    """3·(2·N_body + 2·L·T·d) per token (arXiv:2001.08361, table 1)."""
    return kaplan(model) + 6 * model.num_layers * model.context_length * model.d_model


def palm(model: ModelConfig) -> int:
    """6·(N_body + N_head) + 12·L·h·k·T per token: attention as if every token saw all T (arXiv:2204.02311, B)."""
    params = count_params(model)
    attention = 12 * model.num_layers * model.heads * model.head_size * model.context_length
    return 6 * (params.body + params.head) + attention


def palm_causal(model: ModelConfig) -> int:
    """As `palm`, the causal half of attention counted once."""
    return palm(model) - 6 * model.num_layers * model.heads * model.head_size * model.context_length


def chinchilla(model: ModelConfig) -> int:
    """Three times the forward pass of arXiv:2203.15556, appendix F, over T, with embedding and logits."""
    return chinchilla_body(model) + 3 * 4 * model.vocab_size * model.d_model


def chinchilla_body(model: ModelConfig) -> int:
    """As `chinchilla`, without embedding and logits; matrices that the paper lacks (gates, grouped heads) as 2 each."""
    attention = 4 * model.context_length * model.heads * model.head_size + 3 * model.heads * model.context_length
    return 3 * (2 * count_params(model).body + model.num_layers * attention)


FLOPS: Mapping[str, Callable[[ModelConfig], int]] = {
    "compute": compute,
    "kaplan": kaplan,
    "kaplan_context": kaplan_context,
    "palm": palm,
    "palm_causal": palm_causal,
    "chinchilla": chinchilla,
    "chinchilla_body": chinchilla_body,
}
"""Training FLOPs per token (forward and backward) by convention."""


def params_by_convention(model: ModelConfig) -> dict[str, float]:
    """N under each convention of a fit; `compute` is FLOPs per token over six, so that C = 6ND holds exactly."""
    params = count_params(model)
    return {
        "compute": compute(model) / 6,
        "body": float(params.body),
        "body+head": float(params.body + params.head),
        "total": float(params.total),
    }


def train_steps(model: ModelConfig, train: TrainConfig, *, train_tokens: int) -> int:
    """Optimizer steps that meet the run's length as nearly as whole steps can.

    Args:
        model: Shape of the model.
        train: Length and batch.
        train_tokens: Training tokens of the data, which turn epochs into steps.

    Raises:
        ValueError: the length is shorter than half a step, or not given exactly once.
    """
    kind, value = train.length
    per_step = train.batch_size * model.context_length
    steps = {
        "steps": lambda: value,
        "tokens": lambda: value / per_step,
        "epochs": lambda: value * train_tokens / per_step,
        "flops": lambda: value / (compute(model) * per_step),
    }[kind]()
    if round(steps) < 1:
        raise ValueError(
            f"{kind}={value:g} is less than one step of {per_step} tokens; give more, or a smaller batch_size"
        )
    return round(steps)
