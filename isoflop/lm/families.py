"""Architectures of the `transformers` library: how they call a ModelConfig's fields and a model's weights."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from isoflop.config import ModelConfig

LONGEST_CONTEXT = 1 << 20
"""Positions; a config.json that asks for more would fill the memory with RoPE's angles before a weight is read."""
ROPE = ("rope_scaling", "rope_parameters")
"""Keys of config.json that hold RoPE's settings, in transformers 4 and 5."""
NOT_IN_WEIGHTS = frozenset(
    {"init", "embed_std", "position_std", "in_std", "out_std", "head_std", "depth_init", "attn_pdrop", "residual_pdrop"}
)
"""Fields that matter to training alone: whatever they are, the trained model computes the same."""


@dataclass(frozen=True)
class Fixed:
    """A key of config.json that stands for no field of ModelConfig, since only one behaviour exists here."""

    written: Any
    default: Any
    """What a config.json that lacks the key means."""
    also: tuple[Any, ...] = ()
    """Other spellings of the same behaviour."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture, its config.json and its weights."""

    name: str
    model_type: str
    architecture: str
    keys: Mapping[str, str]
    """Fields of ModelConfig by their keys in config.json."""
    defaults: Mapping[str, Any]
    """What a config.json that lacks a field's key means; fields that are not here must be there."""
    needs: Mapping[str, Any]
    """Fields of ModelConfig that can have this value only."""
    unused: frozenset[str] = frozenset()
    """Fields of ModelConfig that nothing reads under `needs`."""
    fixed: Mapping[str, Fixed]
    weights: Mapping[str, tuple[str, ...]]
    """Our modules by theirs, # for the number of a block; three theirs share the rows: queries, keys, values."""
    prefix: str
    """Stands before every name but the read-out's; a file of the model without read-out lacks it."""
    transposed: bool = False
    """Matrices of blocks stand as d_in × d_out."""
    leftovers: str
    """Pattern of what old files hold besides weights: buffers that follow from the configuration."""


# names and defaults of LlamaConfig and LlamaForCausalLM, transformers 5.24; RoPE turns the same pairs as here
LLAMA = Family(
    name="Llama",
    model_type="llama",
    architecture="LlamaForCausalLM",
    keys={
        "vocab_size": "vocab_size",
        "context_length": "max_position_embeddings",
        "d_model": "hidden_size",
        "num_layers": "num_hidden_layers",
        "num_heads": "num_attention_heads",
        "num_kv_heads": "num_key_value_heads",
        "d_ff": "intermediate_size",
        "rope_theta": "rope_theta",
        "attn_bias": "attention_bias",
        "mlp_bias": "mlp_bias",
        "tied_head": "tie_word_embeddings",
        "attn_pdrop": "attention_dropout",
    },
    defaults={
        "num_kv_heads": None,
        "rope_theta": 10_000.0,
        "attn_bias": False,
        "mlp_bias": False,
        "tied_head": False,
        "attn_pdrop": 0.0,
    },
    needs={"position": "rope", "norm": "rmsnorm", "norm_gain": True, "norm_bias": False, "mlp": "swiglu"},
    fixed={
        "hidden_act": Fixed("silu", "silu", ("swish",)),
        "rms_norm_eps": Fixed(1e-5, 1e-6),
        "rope_type": Fixed("default", "default"),
        "partial_rotary_factor": Fixed(1.0, 1.0),
    },
    weights={
        "embed": ("model.embed_tokens",),
        "blocks.#.attn_norm": ("model.layers.#.input_layernorm",),
        "blocks.#.attn.qkv": tuple(f"model.layers.#.self_attn.{part}_proj" for part in "qkv"),
        "blocks.#.attn.out": ("model.layers.#.self_attn.o_proj",),
        "blocks.#.mlp_norm": ("model.layers.#.post_attention_layernorm",),
        "blocks.#.mlp.gate": ("model.layers.#.mlp.gate_proj",),
        "blocks.#.mlp.up": ("model.layers.#.mlp.up_proj",),
        "blocks.#.mlp.down": ("model.layers.#.mlp.down_proj",),
        "final_norm": ("model.norm",),
        "head": ("lm_head",),
    },
    prefix="model.",
    leftovers=r"rotary_emb\.inv_freq$",
)

# names and defaults of GPT2Config and GPT2LMHeadModel, transformers 5.24
GPT2 = Family(
    name="GPT-2",
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    keys={
        "vocab_size": "vocab_size",
        "context_length": "n_positions",
        "d_model": "n_embd",
        "num_layers": "n_layer",
        "num_heads": "n_head",
        "d_ff": "n_inner",
        "tied_head": "tie_word_embeddings",
        "attn_pdrop": "attn_pdrop",
        "residual_pdrop": "resid_pdrop",
    },
    defaults={"d_ff": None, "tied_head": True, "attn_pdrop": 0.1, "residual_pdrop": 0.1},
    needs={
        "position": "learned",
        "norm": "layernorm",
        "norm_gain": True,
        "norm_bias": True,
        "attn_bias": True,
        "mlp_bias": True,
        "mlp": "gelu",
    },
    unused=frozenset({"rope_theta"}),
    fixed={
        "activation_function": Fixed("gelu_new", "gelu_new", ("gelu_pytorch_tanh",)),
        "layer_norm_epsilon": Fixed(1e-5, 1e-5),
        "scale_attn_weights": Fixed(True, True),
        "scale_attn_by_inverse_layer_idx": Fixed(False, False),
        "add_cross_attention": Fixed(False, False),
    },
    weights={
        "embed": ("transformer.wte",),
        "position": ("transformer.wpe",),
        "blocks.#.attn_norm": ("transformer.h.#.ln_1",),
        "blocks.#.attn.qkv": ("transformer.h.#.attn.c_attn",),
        "blocks.#.attn.out": ("transformer.h.#.attn.c_proj",),
        "blocks.#.mlp_norm": ("transformer.h.#.ln_2",),
        "blocks.#.mlp.up": ("transformer.h.#.mlp.c_fc",),
        "blocks.#.mlp.down": ("transformer.h.#.mlp.c_proj",),
        "final_norm": ("transformer.ln_f",),
        "head": ("lm_head",),
    },
    prefix="transformer.",
    transposed=True,
    leftovers=r"\.attn\.(masked_)?bias$",
)

FAMILIES: Mapping[str, Family] = {family.model_type: family for family in (LLAMA, GPT2)}
"""What can be written and read, by config.json's model_type."""


def family_of(model: ModelConfig) -> Family:
    """Return the family that a model belongs to, with all its parameters and no others.

    Raises:
        ValueError: there is none; the sentence names what stands in the way of the nearest.
    """
    misfits = {name: _misfits(family, model) for name, family in FAMILIES.items()}
    nearest = min(FAMILIES.values(), key=lambda family: len(misfits[family.model_type]))
    if wrong := misfits[nearest.model_type]:
        known = " nor ".join(family.name for family in FAMILIES.values())
        raise ValueError(
            f"this model is neither a {known}: {nearest.name}, the nearest, cannot express {', '.join(wrong)}; "
            "share the run's folder itself, or train with --preset llama or gpt, which can be exported"
        )
    return nearest


def _misfits(family: Family, model: ModelConfig) -> list[str]:
    """List fields that the family cannot express; one it does not know may only have its default."""
    wrong = []
    for field in fields(ModelConfig):
        if field.name in family.keys or field.name in NOT_IN_WEIGHTS | family.unused:
            continue
        value, wanted = getattr(model, field.name), family.needs.get(field.name, field.default)
        if field.name == "num_kv_heads":
            value, wanted = model.kv_heads, model.heads
        if value != wanted:
            wrong.append(f"{field.name}={value!r} (only {wanted!r})")
    return wrong


def write_config(family: Family, model: ModelConfig) -> dict[str, Any]:
    """Return a model's config.json, without what its tokenizer adds."""
    worked_out = {"num_heads": model.heads, "num_kv_heads": model.kv_heads, "d_ff": model.mlp_width}
    value = {key: worked_out.get(name, getattr(model, name)) for name, key in family.keys.items()}
    value |= {key: fixed.written for key, fixed in family.fixed.items()}
    if family is GPT2:
        value["embd_pdrop"] = model.residual_pdrop
    if "rope_theta" in value:
        # transformers 4 reads rope_theta where it stands, 5 in here
        value["rope_parameters"] = {"rope_theta": value["rope_theta"], "rope_type": value.pop("rope_type")}
        del value["partial_rotary_factor"]
    kind = {"architectures": [family.architecture], "model_type": family.model_type}
    return {**kind, **value, "torch_dtype": "float32", "use_cache": True}


def read_config(value: Any) -> tuple[Family, ModelConfig]:
    """Return the family and shape that a config.json describes.

    Raises:
        ValueError: the architecture, or something that it asks for, is unknown here.
    """
    if not isinstance(value, dict) or not isinstance(value.get("model_type"), str):
        raise ValueError("config.json has no model_type; save the model with save_pretrained")
    family = FAMILIES.get(value["model_type"])
    if family is None:
        raise ValueError(f"model_type={value['model_type']!r} is not known; choose a model of {', '.join(FAMILIES)}")
    if value.get("quantization_config"):
        raise ValueError("quantization_config is given, but only plain weights are read; save the model unquantized")
    flat = _flat(value)
    for key, fixed in family.fixed.items():
        if flat.get(key, fixed.default) not in (fixed.written, *fixed.also):
            where = "".join(f" in {outer}" for outer in ROPE if key == "rope_type" and value.get(outer))
            known = f"{key} is missing, which means {fixed.default!r}, and it"
            said = f"{key}={flat[key]!r}{where}" if key in flat else known
            raise ValueError(f"{said} cannot be computed here; {key} has to be {fixed.written!r}")
    model = ModelConfig(**_fields(family, flat), **family.needs)
    if flat.get("head_dim") not in (None, model.head_size):
        raise ValueError(
            f"head_dim={flat['head_dim']} is not hidden_size / num_attention_heads={model.head_size}, "
            "which is what heads have here"
        )
    if model.context_length > LONGEST_CONTEXT:
        raise ValueError(
            f"{family.keys['context_length']}={model.context_length} is more than {LONGEST_CONTEXT} positions; "
            "give a shorter one, which RoPE does not mind"
        )
    return family, model


def _flat(value: Mapping[str, Any]) -> dict[str, Any]:
    """Take RoPE's settings out of where transformers 5 (rope_parameters) and 4 (rope_scaling) keep them."""
    flat = dict(value)
    for key in ROPE:
        inside = flat.pop(key, None) or {}
        if not isinstance(inside, dict):
            raise ValueError(f"{key}={inside!r} has to be an object of names and values")
        flat |= {name: inside[name] for name in ("rope_theta", "partial_rotary_factor") if name in inside}
        if kind := inside.get("rope_type", inside.get("type")):
            flat["rope_type"] = kind
    return flat


def _fields(family: Family, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields of ModelConfig, each of its type."""
    found = {}
    types = {field.name: str(field.type) for field in fields(ModelConfig)}
    for name, key in family.keys.items():
        if key not in flat and name not in family.defaults:
            raise ValueError(f"config.json does not say {key}; save the model with save_pretrained")
        value = flat.get(key, family.defaults.get(name))
        kind, optional = types[name].split(" ")[0], types[name].endswith("None")
        if not (_is(value, kind) or (value is None and optional)):
            raise ValueError(f"{key}={value!r} has to be of type {kind}")
        found[name] = value
    return found


def _is(value: Any, kind: str) -> bool:
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int)
    return isinstance(value, (int, float)) and math.isfinite(value)


def names_in(family: Family, name: str) -> list[str]:
    """Return what one of our parameters is called there; several names share its rows."""
    module, _, kind = name.rpartition(".") if "." in name else (name, "", "weight")
    theirs = family.weights[re.sub(r"\d+", "#", module)]
    block = re.search(r"\d+", module)
    suffix = {"gain": "weight"}.get(kind, kind)
    return [f"{their.replace('#', block[0]) if block else their}.{suffix}" for their in theirs]
