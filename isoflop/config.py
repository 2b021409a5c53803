"""Every choice on one page: the frozen configurations of model, data, optimizer and training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from isoflop.fields import fraction, of_their_types, positive
from isoflop.files import read_json, write_json

PositionKind = Literal["learned", "rope"]
NormKind = Literal["layernorm", "rmsnorm"]
MlpKind = Literal["gelu", "swiglu", "relu2"]
InitKind = Literal["fixed", "fan_in"]
ScheduleKind = Literal["cosine", "linear", "constant", "wsd"]
OptimizerKind = Literal["adamw"]
Precision = Literal["fp32", "bf16", "autocast"]
Device = Literal["auto", "cpu", "cuda"]
TokenDtype = Literal["int16", "uint16", "int32", "uint32", "int64"]

PASSING: Mapping[str, bool] = {"identity": False}
"""Marks a field that changes where or how often a run writes, not what it computes: left out of the run's id."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape and parts of a decoder-only Transformer."""

    vocab_size: int = 256
    """Number of token ids."""
    context_length: int = 128
    """Longest sequence, tokens."""
    d_model: int = 128
    """Width of the residual stream."""
    num_layers: int = 4
    """Number of blocks (attention and MLP)."""
    num_heads: int | None = None
    """Query heads per layer; None: one for every 64 of d_model."""
    num_kv_heads: int | None = None
    """Key and value heads per layer (grouped-query attention, arXiv:2305.13245); None: as many as query heads."""
    d_ff: int | None = None
    """Width of the MLP; None: 4·d_model, or 8/3·d_model rounded up to a multiple of 8 for swiglu."""
    position: PositionKind = "rope"
    """Positions: a learned table, or rotary embedding (RoPE, arXiv:2104.09864)."""
    rope_theta: float = 10_000.0
    """Base wavelength of RoPE, in tokens (arXiv:2104.09864)."""
    norm: NormKind = "rmsnorm"
    """Pre-norm of each branch and the final norm: LayerNorm (arXiv:1607.06450) or RMSNorm (arXiv:1910.07467)."""
    norm_gain: bool = True
    """Norms multiply by a learned vector."""
    norm_bias: bool = False
    """Norms add a learned vector."""
    attn_bias: bool = False
    """Attention projections add a learned vector."""
    mlp_bias: bool = False
    """MLP projections add a learned vector."""
    mlp: MlpKind = "gelu"
    """MLP: GELU, SwiGLU (arXiv:2002.05202), or squared ReLU (arXiv:2109.08668)."""
    tied_head: bool = True
    """The read-out uses the embedding's matrix."""
    attn_pdrop: float = 0.0
    """Dropout probability of attention weights, training only."""
    residual_pdrop: float = 0.0
    """Dropout probability of each branch's output and of the embedding, training only."""
    init: InitKind = "fixed"
    """Matrices start with the standard deviation given, or with it divided by the square root of their fan-in."""
    embed_std: float = 0.02
    """Initial standard deviation of the token embedding."""
    position_std: float = 0.02
    """Initial standard deviation of learned positions."""
    in_std: float = 0.02
    """Initial standard deviation of the matrices that read the residual stream (see init)."""
    out_std: float = 0.02
    """Initial standard deviation of the matrices that write to it (see init, depth_init)."""
    head_std: float = 0.02
    """Initial standard deviation of an untied read-out."""
    depth_init: bool = True
    """Divide out_std by √(2·num_layers), as GPT-2 does."""

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "vocab_size", "context_length", "d_model", "num_layers", "num_heads", "num_kv_heads", "d_ff")
        positive(self, "rope_theta", "embed_std", "position_std", "in_std", "out_std", "head_std")
        fraction(self, "attn_pdrop", "residual_pdrop")
        if self.d_model % self.heads:
            nearest = max(1, round(self.d_model / self.heads)) * self.heads
            raise ValueError(
                f"d_model={self.d_model} does not split into num_heads={self.heads} equal heads; try d_model={nearest}"
            )
        if self.heads % self.kv_heads:
            divisors = ", ".join(str(n) for n in range(1, self.heads + 1) if self.heads % n == 0)
            raise ValueError(
                f"num_kv_heads={self.kv_heads} does not divide num_heads={self.heads}; try one of {divisors}"
            )
        if self.position == "rope" and self.head_size % 2:
            raise ValueError(
                f"d_model={self.d_model} over num_heads={self.heads} gives heads of {self.head_size}, but RoPE turns "
                f"pairs and needs an even size; try d_model={self.d_model + self.heads} or position=learned"
            )

    @property
    def heads(self) -> int:
        """Query heads, with the default worked out: the divisor of d_model nearest to d_model / 64."""
        if self.num_heads is not None:
            return self.num_heads
        parity = 2 if self.position == "rope" and self.d_model % 2 == 0 else 1
        divisors = [n for n in range(1, self.d_model + 1) if self.d_model % (n * parity) == 0]
        return min(divisors, key=lambda n: (abs(n - self.d_model / 64), n))

    @property
    def kv_heads(self) -> int:
        """Key and value heads, with the default worked out."""
        return self.num_kv_heads if self.num_kv_heads is not None else self.heads

    @property
    def head_size(self) -> int:
        """Width of one head."""
        return self.d_model // self.heads

    @property
    def mlp_width(self) -> int:
        """Width of the MLP, with the default worked out."""
        if self.d_ff is not None:
            return self.d_ff
        return 8 * -(-self.d_model // 3) if self.mlp == "swiglu" else 4 * self.d_model


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where a run's tokens come from, and which of them measure it."""

    data: str = field(default="", metadata=PASSING)
    """Token folder made by `isoflop data`, or a raw file of token ids."""
    dtype: TokenDtype = "int32"
    """Type of a raw file's ids, little-endian (a token folder says its own)."""
    val: str | None = field(default=None, metadata=PASSING)
    """Raw file of validation ids; None: the last 1 % of a raw training file."""
    end_of_text: int | None = None
    """Id that ends a document in a raw file, so that the hold-out starts with a document."""
    tokenizer_file: str | None = field(default=None, metadata=PASSING)
    """The tokenizer.json of a raw file, which gives its vocabulary and end of text."""
    train_tokens: int | None = None
    """Train on so many of the training tokens, evenly spread, over and over where the run is longer; None: on all."""
    val_tokens: int = 262_144
    """Validation tokens of one evaluation, strided over the whole validation file."""

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "val_tokens", "train_tokens")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    optimizer: OptimizerKind = "adamw"
    """AdamW (arXiv:1711.05101)."""
    lr: float = 5e-3
    """Peak learning rate, at width lr_width where that is given."""
    lr_width: int | None = 64
    """Scale the peak rate as lr·lr_width/d_model, so that one rate serves every width; None: use lr as it is."""
    beta1: float = 0.9
    """Decay of the gradient's running mean."""
    beta2: float = 0.95
    """Decay of the squared gradient's running mean."""
    eps: float = 1e-8
    """Added to the root of the squared gradient's mean."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices inside blocks, times the learning rate."""
    decay_all: bool = False
    """Decay embeddings, read-out, norms and biases too."""
    grad_clip: float | None = 1.0
    """Longest global gradient norm; None: no clipping."""
    schedule: ScheduleKind = "cosine"
    """Learning rate after the warm-up."""
    warmup_steps: int = 50
    """Shortest linear warm-up, steps (never more than a quarter of the run)."""
    warmup_fraction: float = 0.02
    """Linear warm-up as a fraction of the run; the longer of the two counts."""
    final_lr_fraction: float = 0.0
    """Rate at the last step over the peak rate."""
    decay_fraction: float = 0.2
    """Part of the run in which schedule=wsd decays (arXiv:2405.18392)."""

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "lr", "lr_width", "eps", "grad_clip")
        fraction(self, "beta1", "beta2", "warmup_fraction", "decay_fraction")
        if self.weight_decay < 0 or self.warmup_steps < 0:
            raise ValueError(
                f"weight_decay={self.weight_decay} and warmup_steps={self.warmup_steps} must not be negative"
            )
        if not 0 <= self.final_lr_fraction <= 1:
            raise ValueError(f"final_lr_fraction={self.final_lr_fraction} must lie between 0 and 1")

    def peak_lr(self, d_model: int) -> float:
        """Peak learning rate of a model of this width."""
        return self.lr if self.lr_width is None else self.lr * self.lr_width / d_model


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, batch and bookkeeping of a run; exactly one of epochs, tokens, flops and steps decides the length."""

    epochs: float | None = None
    """Length in passes over the training tokens."""
    tokens: int | None = None
    """Length in tokens."""
    flops: float | None = None
    """Length in training FLOPs, by the product's own count."""
    steps: int | None = None
    """Length in optimizer steps."""
    batch_size: int = 16
    """Sequences in one optimizer step."""
    grad_accum: int = 1
    """Parts into which a step's batch is cut to save memory."""
    precision: Precision = "fp32"
    """Arithmetic of the matrix products; weights and optimizer stay in fp32. bf16: on a CPU by kernels of our own;
    autocast: by torch's autocast and attention, which is also what bf16 means on a GPU."""
    seed: int = 0
    """Seed of initial weights, data order and dropout."""
    device: Device = field(default="auto", metadata=PASSING)
    """Where to train; auto: a GPU if there is one."""
    eval_every: int | None = field(default=None, metadata=PASSING)
    """Steps between evaluations; None: ten in a run."""
    log_every: int | None = field(default=None, metadata=PASSING)
    """Steps between lines of log.jsonl; None: two hundred in a run."""
    checkpoint_every: int | None = field(default=None, metadata=PASSING)
    """Steps between checkpoints; None: every epoch, or five in a run shorter than two epochs."""
    keep_last: int = field(default=2, metadata=PASSING)
    """Checkpoints kept."""

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "epochs", "tokens", "flops", "steps", "batch_size", "grad_accum")
        positive(self, "eval_every", "log_every", "checkpoint_every", "keep_last")
        if self.batch_size % self.grad_accum:
            raise ValueError(
                f"batch_size={self.batch_size} does not split into grad_accum={self.grad_accum} equal parts; "
                f"try batch_size={max(1, round(self.batch_size / self.grad_accum)) * self.grad_accum}"
            )

    @property
    def length(self) -> tuple[str, float]:
        """The field that decides the length, and its value.

        Raises:
            ValueError: none or several are given.
        """
        given = {name: getattr(self, name) for name in LENGTHS if getattr(self, name) is not None}
        if len(given) != 1:
            said = " and ".join(f"{name}={value:g}" for name, value in given.items()) or "nothing"
            raise ValueError(f"say how long a run is by exactly one of {', '.join(LENGTHS)}; {said} was given")
        return next(iter(given.items()))


LENGTHS = ("epochs", "tokens", "flops", "steps")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run, whole."""

    model: ModelConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    data_sha256: str
    """Fingerprint of the token files and tokenizer, so that the same run on other text is another run."""

    @cached_property
    def id(self) -> str:
        """Name of the run's folder: width, depth, and ten digits of the hash of everything that decides its result."""
        known = {part: _identity(getattr(self, part)) for part in PARTS} | {"data_sha256": self.data_sha256}
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        return f"d{self.model.d_model}-l{self.model.num_layers}-{digest[:10]}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RunConfig:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: a field is missing or unknown.
        """
        try:
            parts = {name: part(**value[name]) for name, part in PARTS.items()}
            return cls(**parts, data_sha256=value["data_sha256"])
        except (KeyError, TypeError) as error:
            said = f"this is not a run's configuration ({error}); was it written by another version?"
            raise ValueError(said) from error

    def differences(self, other: RunConfig) -> list[str]:
        """Fields that decide the result and differ, as `name=mine (other's)`."""
        out = [
            f"{name}={mine!r} (there {theirs!r})"
            for part in PARTS
            for (name, mine), theirs in zip(
                _identity(getattr(self, part)).items(), _identity(getattr(other, part)).values(), strict=True
            )
            if mine != theirs
        ]
        if self.data_sha256 != other.data_sha256:
            out.append(f"data_sha256={self.data_sha256[:10]} (there {other.data_sha256[:10]})")
        return out


PARTS: Mapping[str, Any] = {"model": ModelConfig, "data": DataConfig, "optim": OptimConfig, "train": TrainConfig}


def _identity(part: Any) -> dict[str, Any]:
    return {f.name: getattr(part, f.name) for f in fields(part) if f.metadata.get("identity", True)}


def write_run(config: RunConfig, out: Path) -> Path:
    """Make the run's folder `out/<id>` with its config.json, or find it; return it.

    Raises:
        ValueError: the folder holds another run.
    """
    folder = out / config.id
    if (folder / "config.json").exists():
        if differences := config.differences(read_run(folder)):
            raise ValueError(f"{folder} holds another run: {', '.join(differences)}; choose another --out")
        return folder
    write_json(folder / "config.json", config.to_dict())
    return folder


def read_run(folder: Path) -> RunConfig:
    """Read the configuration of a run folder.

    Raises:
        ValueError: the folder holds no run.
    """
    if not (folder / "config.json").exists():
        study = "it is a study, whose runs lie in its folder runs/; " if (folder / "study.json").exists() else ""
        raise ValueError(f"{folder} holds no run (no config.json); {study}`isoflop train --data T` starts one")
    return RunConfig.from_dict(read_json(folder / "config.json"))
