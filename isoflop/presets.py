"""Models by name: what GPT-2, Llama, the course and studies of tiny models start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal

from isoflop.config import ModelConfig


def preset(name: str, **changes: Any) -> ModelConfig:
    """Return the model configuration that `name` stands for, with `changes` to single fields.

    Raises:
        ValueError: no such preset, or a field that a model does not have.
    """
    if name not in PRESETS:
        raise ValueError(f"preset={name!r} is not known; choose one of {', '.join(PRESETS)}")
    known = {f.name for f in fields(ModelConfig)}
    if unknown := sorted(set(changes) - known):
        raise ValueError(f"{unknown[0]} is no field of a model; the fields are {', '.join(sorted(known))}")
    return ModelConfig(**{**PRESETS[name], **changes})


_COURSE: dict[str, Any] = {"vocab_size": 50_257, "context_length": 128, "mlp_bias": True}
"""The course's family: RoPE, gain-only RMSNorm, GELU with biases in the MLP alone, tied read-out."""

PRESETS: Mapping[str, dict[str, Any]] = {
    # GPT-2: every matrix 0.02, what writes to the residual stream 0.02/√(2·layers) (nanoGPT's reading of the paper)
    "gpt": {"position": "learned", "norm": "layernorm", "norm_bias": True, "attn_bias": True, "mlp_bias": True},
    # Llama (arXiv:2302.13971): RoPE, RMSNorm, SwiGLU, no biases, own read-out; every matrix 0.02 as in its public code
    "llama": {"mlp": "swiglu", "tied_head": False, "depth_init": False},
    # for widths of 16 to 128 on bytes: gain-free LayerNorm, squared ReLU, a loud embedding, fan-in initialisation
    "small": {
        "context_length": 64,
        "d_model": 48,
        "num_layers": 2,
        "num_heads": 2,
        "norm": "layernorm",
        "norm_gain": False,
        "mlp": "relu2",
        "init": "fan_in",
        "embed_std": 0.1,
        "in_std": 0.8,
        "out_std": 0.566,
    },
    "70M": {**_COURSE, "d_model": 384, "num_layers": 24, "num_heads": 6},
    "130M": {**_COURSE, "d_model": 512, "num_layers": 36, "num_heads": 8},
    "300M": {**_COURSE, "d_model": 768, "num_layers": 36, "num_heads": 12},
}
PresetName = Literal["gpt", "llama", "small", "70M", "130M", "300M"]
