"""Models to train side by side, each as a function of a shape that returns (module, loss of ids and targets).

Needs nothing but torch, and each peer its own package; of isoflop only ours. All have the shape's width, depth, heads,
context and vocabulary, one tied table of embedding and read-out, no dropout, and an MLP of 8·d² parameters a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Shape:
    """What every contestant trains."""

    vocab: int
    context: int
    """Tokens in a sequence."""
    d_model: int
    layers: int
    batch: int
    """Sequences in a step of one process."""

    @property
    def heads(self) -> int:
        """Heads of 64."""
        return self.d_model // 64

    @property
    def tokens(self) -> int:
        """Tokens in a step of one process."""
        return self.batch * self.context


SHAPES = {
    "S0": Shape(1024, 128, 64, 4, 16),
    "S1": Shape(4096, 256, 128, 4, 16),
    "S2": Shape(8192, 256, 256, 6, 8),
    "S3": Shape(50_720, 128, 384, 24, 16),
}


class PlainBlock(nn.Module):
    """The block of a GPT as everyone writes it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        d = shape.d_model
        self.heads = shape.heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d, bias=False), nn.LayerNorm(d, bias=False)
        self.qkv, self.proj = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d, bias=False)
        self.up, self.down, self.act = nn.Linear(d, 4 * d, bias=False), nn.Linear(4 * d, d, bias=False), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, d = x.shape
        q, k, v = (y.view(batch, seq, self.heads, -1).transpose(1, 2) for y in self.qkv(self.ln_1(x)).split(d, dim=2))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, seq, d))
        return x + self.down(self.act(self.up(self.ln_2(x))))


class PlainGpt(nn.Module):
    """A GPT as everyone writes it: learned positions, LayerNorm, GELU, tied head, logits as a whole."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(shape.vocab, shape.d_model), nn.Embedding(shape.context, shape.d_model)
        self.blocks = nn.ModuleList(PlainBlock(shape) for _ in range(shape.layers))
        self.ln_f = nn.LayerNorm(shape.d_model, bias=False)
        self.head = nn.Linear(shape.d_model, shape.vocab, bias=False)
        self.head.weight = self.wte.weight
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                deep = name.endswith(("proj.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * shape.layers) if deep else 0.02)

    def forward(self, ids: Tensor, targets: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.ln_f(x)).flatten(0, 1), targets.flatten())


def plain(shape: Shape) -> tuple[nn.Module, Loss]:
    """A GPT as everyone writes it."""
    model = PlainGpt(shape)
    return model, model


def ours(shape: Shape) -> tuple[nn.Module, Loss]:
    """The same GPT by isoflop, but for GELU's tanh approximation."""
    from isoflop.lm.model import Transformer
    from isoflop.presets import preset

    sizes = {"vocab_size": shape.vocab, "context_length": shape.context, "d_model": shape.d_model}
    bare = {"norm_bias": False, "attn_bias": False, "mlp_bias": False}
    model = Transformer(preset("gpt", num_layers=shape.layers, num_heads=shape.heads, **sizes, **bare))
    return model, model.loss


def logits_loss(model: nn.Module, logits: Callable[[Tensor], Tensor]) -> tuple[nn.Module, Loss]:
    """A model that gives logits, and the mean cross-entropy of all of them."""

    def loss(ids: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits(ids).flatten(0, 1), targets.flatten())

    return model, loss


def hf_gpt2(shape: Shape) -> tuple[nn.Module, Loss]:
    """GPT-2 of transformers; has biases besides."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=shape.vocab,
        n_positions=shape.context,
        n_embd=shape.d_model,
        n_layer=shape.layers,
        n_head=shape.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    model = GPT2LMHeadModel(config)
    return logits_loss(model, lambda ids: model(ids, use_cache=False).logits)


def hf_llama(shape: Shape) -> tuple[nn.Module, Loss]:
    """Llama of transformers, its head tied."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=shape.vocab,
        max_position_embeddings=shape.context,
        hidden_size=shape.d_model,
        intermediate_size=round(8 * shape.d_model / 3),
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    return logits_loss(model, lambda ids: model(ids, use_cache=False).logits)


def litgpt(shape: Shape) -> tuple[nn.Module, Loss]:
    """litgpt's GPT with rotary positions, LayerNorm and GELU; no biases, the head tied here."""
    from litgpt.config import Config
    from litgpt.model import GPT

    config = Config(
        block_size=shape.context,
        padded_vocab_size=shape.vocab,
        vocab_size=shape.vocab,
        n_layer=shape.layers,
        n_head=shape.heads,
        n_embd=shape.d_model,
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
    )
    model = GPT(config)
    model.lm_head.weight = model.transformer.wte.weight
    return logits_loss(model, model)


PEERS: dict[str, Callable[[Shape], tuple[nn.Module, Loss]]] = {
    "ours": ours,
    "plain": plain,
    "hf-gpt2": hf_gpt2,
    "hf-llama": hf_llama,
    "litgpt": litgpt,
}
PACKAGES = {
    "hf": ("torch==2.13.0", "transformers==5.24.0"),
    "litgpt": ("torch==2.13.0", "litgpt==0.5.13"),
}
"""Environments of their own, for their requirements conflict; ours and the plain GPT run in the project's."""
ENVIRONMENTS = {"hf-gpt2": "hf", "hf-llama": "hf", "litgpt": "litgpt"}
