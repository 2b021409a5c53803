"""A model's shape and parts, and what it takes over from a base model of another size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from isoflop.fields import ADDED, fraction, of_their_types, positive

PositionKind = Literal["learned", "rope"]
NormKind = Literal["layernorm", "rmsnorm"]
MlpKind = Literal["gelu", "swiglu", "relu2"]
InitKind = Literal["fixed", "fan_in"]
ParametrizationKind = Literal["standard", "mup", "depth_mup", "completep"]

BASES: Mapping[ParametrizationKind, tuple[str, ...]] = {
    "standard": (),
    "mup": ("base_width",),
    "depth_mup": ("base_width", "base_depth"),
    "completep": ("base_width", "base_depth"),
}
"""What each parametrization has to know of the base model, whose rates it carries over."""


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
    """Divide out_std by √(2·num_layers), or √(2·base_depth) where that is given, as GPT-2 does."""
    parametrization: ParametrizationKind = field(default="standard", metadata=ADDED)
    """What a model of another width or depth takes over from a base model: nothing; rates and initial weights by μP
    (arXiv:2203.03466); with depth, by depth-μP (arXiv:2310.02244) or CompleteP (arXiv:2505.01618)."""
    base_width: int | None = field(default=None, metadata=ADDED)
    """d_model of the base model that rates were chosen for, for every parametrization but standard."""
    base_depth: int | None = field(default=None, metadata=ADDED)
    """num_layers of the base model, for depth_mup and completep."""
    base_head_size: int | None = field(default=None, metadata=ADDED)
    """Head size of the base model, where heads grow with the width; None: they keep their size and grow in number."""
    alpha_in: float = field(default=1.0, metadata=ADDED)
    """Factor of the embedding."""
    alpha_out: float = field(default=1.0, metadata=ADDED)
    """Factor of the logits."""

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "vocab_size", "context_length", "d_model", "num_layers", "num_heads", "num_kv_heads", "d_ff")
        positive(self, "rope_theta", "embed_std", "position_std", "in_std", "out_std", "head_std")
        positive(self, "base_width", "base_depth", "base_head_size", "alpha_in", "alpha_out")
        fraction(self, "attn_pdrop", "residual_pdrop")
        self._check_base()
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

    def _check_base(self) -> None:
        wanted = BASES[self.parametrization]
        for name in ("base_width", "base_depth"):
            value = getattr(self, name)
            if name in wanted and value is None:
                raise ValueError(
                    f"parametrization={self.parametrization} carries rates over from a base model; "
                    f"say which by {' and '.join(wanted)}"
                )
            if name not in wanted and value is not None:
                raise ValueError(
                    f"{name}={value} means nothing to parametrization={self.parametrization}; leave it out"
                )
        if self.base_head_size is not None and self.parametrization == "standard":
            raise ValueError(
                f"base_head_size={self.base_head_size} means nothing to parametrization=standard; leave it out"
            )

    def carried_over(self, parametrization: ParametrizationKind, base: ModelConfig) -> ModelConfig:
        """Return a model of this shape in another parametrization, from this base model where it needs one."""
        wanted = BASES[parametrization]
        return replace(
            self,
            parametrization=parametrization,
            base_width=base.d_model if "base_width" in wanted else None,
            base_depth=base.num_layers if "base_depth" in wanted else None,
            base_head_size=base.head_size if "base_width" in wanted else None,
        )

    @property
    def rate_width(self) -> int:
        """Width that a peak rate is for: the base model's, from where the parametrization scales it, or d_model."""
        return self.d_model if self.base_width is None else self.base_width

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
