"""The decoder-only Transformer, whole: the parts as functions of plain tensors, the modules that hold their weights.

Shape legend: batch sequences of seq tokens; d_model wide; heads of head_size; kv_heads ≤ heads share keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from isoflop.config import ModelConfig
from isoflop.lm.kernels import block_attention, linear_cross_entropy, mixed_linear, rotate, tabled_gelu
from isoflop.lm.transfer import forward_factors, multipliers, width_ratio

Hidden = Float[Tensor, "batch seq d_model"]


def linear(
    x: Float[Tensor, "... d_in"], weight: Float[Tensor, "d_out d_in"], bias: Float[Tensor, " d_out"] | None = None
) -> Float[Tensor, "... d_out"]:
    """x·Wᵀ + b; the product of a bf16 x with fp32 weights is in bf16."""
    return mixed_linear(x, weight, bias) if _mixed(x, weight) else F.linear(x, weight, bias)


def _mixed(x: Tensor, weight: Tensor) -> bool:
    return x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type)


def embedding(ids: Int[Tensor, "..."], weight: Float[Tensor, "vocab_size d_model"]) -> Float[Tensor, "... d_model"]:
    """Row of the table for each id."""
    return F.embedding(ids, weight)


def layer_norm(
    x: Float[Tensor, "... d"],
    gain: Float[Tensor, " d"] | None = None,
    bias: Float[Tensor, " d"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "... d"]:
    """(x − mean) / √(variance + eps) · gain + bias (arXiv:1607.06450)."""
    return F.layer_norm(x, x.shape[-1:], gain, bias, eps)


def rms_norm(
    x: Float[Tensor, "... d"],
    gain: Float[Tensor, " d"] | None = None,
    bias: Float[Tensor, " d"] | None = None,
    eps: float = 1e-5,
) -> Float[Tensor, "... d"]:
    """x / √(mean x² + eps) · gain + bias (arXiv:1910.07467)."""
    normed = F.rms_norm(x, x.shape[-1:], gain, eps)
    return normed if bias is None else normed + bias


def softmax(x: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """e^x / Σ e^x along `dim`, shifted by the maximum so that nothing overflows."""
    exp = (x - x.amax(dim, keepdim=True)).exp()
    return exp / exp.sum(dim, keepdim=True)


def cross_entropy(logits: Float[Tensor, "... vocab_size"], targets: Int[Tensor, "..."]) -> Float[Tensor, ""]:
    """Mean of −log softmax(logits)[target], nats per token."""
    return (logits.logsumexp(-1) - logits.gather(-1, targets[..., None])[..., 0]).mean()


def silu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x·σ(x)."""
    if x.dtype == torch.bfloat16:
        return F.silu(x)  # rounds once
    return x * torch.sigmoid(x)


def gelu(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """x·Φ(x), by the tanh approximation that GPT-2 uses (arXiv:1606.08415)."""
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
        return tabled_gelu(x)
    return F.gelu(x, approximate="tanh")


def relu2(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """max(x, 0)² (arXiv:2109.08668)."""
    positive = F.relu(x)
    return positive * positive


def swiglu(
    x: Float[Tensor, "... d_model"],
    gate: Float[Tensor, "d_ff d_model"],
    up: Float[Tensor, "d_ff d_model"],
    down: Float[Tensor, "d_model d_ff"],
) -> Float[Tensor, "... d_model"]:
    """W_down (silu(W_gate x) ⊙ W_up x) (arXiv:2002.05202)."""
    return linear(silu(linear(x, gate)) * linear(x, up), down)


def rope_angles(
    context_length: int, head_size: int, theta: float = 10_000.0
) -> tuple[Float[Tensor, "seq 1 pairs"], Float[Tensor, "seq 1 pairs"]]:
    """Cosine and sine of position · theta^(−2i/head_size) (arXiv:2104.09864)."""
    frequencies = theta ** (-torch.arange(0, head_size, 2, dtype=torch.float64) / head_size)
    angles = torch.outer(torch.arange(context_length, dtype=torch.float64), frequencies)[:, None]
    return angles.cos().float(), angles.sin().float()


def rope(
    x: Float[Tensor, "batch seq heads head_size"], theta: float = 10_000.0
) -> Float[Tensor, "batch seq heads head_size"]:
    """Rotary position embedding of queries or keys that stand at positions 0, 1, …"""
    return rotate(x, *(angle.to(x.device) for angle in rope_angles(x.shape[1], x.shape[3], theta)))


def causal_attention(
    q: Float[Tensor, "batch seq heads head_size"],
    k: Float[Tensor, "batch seq kv_heads head_size"],
    v: Float[Tensor, "batch seq kv_heads head_size"],
    dropout: float = 0.0,
    scale: float | None = None,
) -> Float[Tensor, "batch seq heads head_size"]:
    """softmax(scale·q·kᵀ) v over the tokens up to one's own; a kv head serves heads / kv_heads query heads.

    The scale is 1/√head_size unless it is given.
    """
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    shared = q.shape[1] != k.shape[1]
    out = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scale, enable_gqa=shared)
    return out.transpose(1, 2)


class Linear(nn.Module):
    """Weights of `linear`."""

    def __init__(self, d_in: int, d_out: int, *, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d_out, d_in))
        self.bias = nn.Parameter(torch.zeros(d_out)) if bias else None

    def forward(self, x: Float[Tensor, "... d_in"]) -> Float[Tensor, "... d_out"]:
        """Apply `linear`."""
        return linear(x, self.weight, self.bias)


class Norm(nn.Module):
    """Gain and bias, where the config has them, of `layer_norm` or `rms_norm`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = NORMS[config.norm]
        self.gain = nn.Parameter(torch.ones(config.d_model)) if config.norm_gain else None
        self.bias = nn.Parameter(torch.zeros(config.d_model)) if config.norm_bias else None

    def forward(self, x: Hidden, products: torch.dtype = torch.float32) -> Hidden:
        """Apply the norm, and hand it on in the type of the products that follow."""
        normed: Tensor = self.norm(x, self.gain, self.bias)
        return normed.to(products) if products != x.dtype else normed


class Attention(nn.Module):
    """Multi-head or grouped-query causal self-attention, with RoPE where angles are given."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_size
        self.dropout = config.attn_pdrop
        self.scale = forward_factors(config).attention
        width = (config.heads + 2 * config.kv_heads) * config.head_size
        self.qkv = Linear(config.d_model, width, bias=config.attn_bias)
        self.out = Linear(config.d_model, config.d_model, bias=config.attn_bias)

    def forward(self, x: Hidden, angles: tuple[Tensor, Tensor] | None = None) -> Hidden:
        """Mix tokens; `angles` from `rope_angles`, cut to seq."""
        batch, seq, d_model = x.shape
        qkv = self.qkv(x).view(batch, seq, self.heads + 2 * self.kv_heads, self.head_size)
        dropout = self.dropout if self.training else 0.0
        if _mixed(qkv, self.qkv.weight):
            mixed = block_attention(qkv, angles, self.kv_heads, dropout, self.scale)
        else:
            qk, v = qkv.split([self.heads + self.kv_heads, self.kv_heads], dim=2)
            if angles is not None:
                qk = rotate(qk, *angles)
            q, k = qk.split([self.heads, self.kv_heads], dim=2)
            mixed = causal_attention(q, k, v, dropout, self.scale)
        written: Tensor = self.out(mixed.reshape(batch, seq, d_model))
        return written


class Mlp(nn.Module):
    """Two matrices around GELU or squared ReLU, or the three of SwiGLU."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, bias = config.mlp_width, config.mlp_bias
        self.act = ACTIVATIONS[config.mlp]
        self.gate = Linear(config.d_model, width, bias=bias) if config.mlp == "swiglu" else None
        self.up = Linear(config.d_model, width, bias=bias)
        self.down = Linear(width, config.d_model, bias=bias)

    def forward(self, x: Hidden) -> Hidden:
        """Transform each token by itself."""
        up = self.up(x)
        written: Tensor = self.down(self.act(up) if self.gate is None else self.act(self.gate(x)) * up)
        return written


class Block(nn.Module):
    """x + f·attention(norm(x)), then x + f·mlp(norm(x)), f of the parametrization; dropout on both while training."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attn_norm, self.attn = Norm(config), Attention(config)
        self.mlp_norm, self.mlp = Norm(config), Mlp(config)
        self.dropout, self.factor = config.residual_pdrop, forward_factors(config).residual

    def forward(
        self, x: Hidden, angles: tuple[Tensor, Tensor] | None = None, products: torch.dtype = torch.float32
    ) -> Hidden:
        """Add both branches, their matrix products in the type given, to the residual stream, which stays in fp32."""
        x = torch.add(x, self._drop(self.attn(self.attn_norm(x, products), angles)), alpha=self.factor)
        return torch.add(x, self._drop(self.mlp(self.mlp_norm(x, products))), alpha=self.factor)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout) if self.training and self.dropout else x


class Transformer(nn.Module):
    """Token embedding, blocks, final norm, read-out."""

    cos: Tensor
    sin: Tensor
    recompute = False
    """Whether training keeps no activations inside blocks and computes them again in the backward pass."""

    def __init__(self, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config, self.factors = config, forward_factors(config)
        self.embed = nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        learned = config.position == "learned"
        self.position = nn.Parameter(torch.empty(config.context_length, config.d_model)) if learned else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.final_norm = Norm(config)
        self.head = None if config.tied_head else nn.Parameter(torch.empty(config.vocab_size, config.d_model))
        cos, sin = rope_angles(config.context_length, config.head_size - config.head_size % 2, config.rope_theta)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        init_weights(self, seed=seed)

    def forward(self, ids: Int[Tensor, "batch seq"]) -> Float[Tensor, "batch seq vocab_size"]:
        """Logits of the next token at every position."""
        return linear(self.hidden(ids), self.readout)

    def loss(
        self,
        ids: Int[Tensor, "batch seq"],
        targets: Int[Tensor, "batch seq"],
        products: torch.dtype = torch.float32,
    ) -> Float[Tensor, ""]:
        """Mean cross-entropy of the targets, nats per token, without ever holding all logits.

        With `products` in bf16 a CPU's kernels do the matrix products in it, without autocast; weights, residual
        stream, sums and the gradients of weights stay in fp32.
        """
        hidden = self.hidden(ids, products).flatten(0, 1)
        return linear_cross_entropy(hidden, self.readout, targets.flatten(), products)

    @property
    def readout(self) -> Tensor:
        """The matrix that turns hidden states into logits."""
        return self.embed if self.head is None else self.head

    def hidden(self, ids: Int[Tensor, "batch seq"], products: torch.dtype = torch.float32) -> Hidden:
        """What the read-out multiplies, in fp32 (`products` is the type of the products before it).

        Raises:
            ValueError: the sequence is longer than the context.
        """
        seq = ids.shape[1]
        if seq > self.config.context_length:
            raise ValueError(f"a sequence of {seq} tokens is longer than context_length={self.config.context_length}")
        x = embedding(ids, self.embed)
        if self.position is not None:
            x = x + self.position[:seq]
        if self.factors.embedding != 1.0:
            x = x * self.factors.embedding
        if self.training and self.config.residual_pdrop:
            x = F.dropout(x, self.config.residual_pdrop)
        angles = None if self.config.position != "rope" else (self.cos[:seq], self.sin[:seq])
        for block in self.blocks:
            if self.recompute and self.training:
                x = checkpoint(block, x, angles, products, use_reentrant=False)
            else:
                x = block(x, angles, products)
        normed: Tensor = self.final_norm(x)
        return normed if self.factors.logits == 1.0 else normed * self.factors.logits


def init_weights(model: Transformer, *, seed: int) -> None:
    """Draw every matrix anew from normals of mean 0; gains are 1 and biases 0.

    | parameter | standard deviation |
    |---|---|
    | token embedding; learned positions; untied read-out | embed_std; position_std; head_std |
    | qkv, MLP up and gate | in_std, over √fan_in with init=fan_in |
    | attention out, MLP down | out_std likewise, and over √(2·num_layers) with depth_init |

    A parametrization other than the standard one draws as its base model does, times its multipliers.
    """
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    depth = math.sqrt(2 * (config.base_depth or config.num_layers)) if config.depth_init else 1.0
    plain = {"embed": config.embed_std, "position": config.position_std, "head": config.head_std}
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2:
            continue
        std = plain.get(name)
        if std is None:
            writes = name.endswith(("attn.out.weight", "mlp.down.weight"))
            std = config.out_std / depth if writes else config.in_std
            std /= math.sqrt(parameter.shape[1] / width_ratio(config)) if config.init == "fan_in" else 1.0
        std *= multipliers(name, parameter, config).init
        nn.init.normal_(parameter, std=std, generator=generator)


NORMS: Mapping[str, Callable[..., Tensor]] = {"layernorm": layer_norm, "rmsnorm": rms_norm}
ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": gelu, "swiglu": silu, "relu2": relu2}
"""What stands between the MLP's matrices; for swiglu, what the gate passes through."""
