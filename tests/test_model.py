"""python -m pytest tests/test_model.py"""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.config import PRESETS, ModelConfig, preset
from isoflop.flops import count_params
from isoflop.lm import model as lm
from isoflop.lm.model import Transformer

TINY = ModelConfig(vocab_size=11, context_length=8, d_model=12, num_layers=2, num_heads=2)

shapes = st.builds(
    lambda head, heads, kv, **rest: ModelConfig(
        d_model=2 * head * heads * kv, num_heads=heads * kv, num_kv_heads=kv, **rest
    ),
    head=st.integers(1, 3),
    heads=st.integers(1, 3),
    kv=st.integers(1, 2),
    vocab_size=st.integers(1, 40),
    context_length=st.integers(1, 9),
    num_layers=st.integers(1, 3),
    d_ff=st.none() | st.integers(1, 30),
    position=st.sampled_from(["learned", "rope"]),
    norm=st.sampled_from(["layernorm", "rmsnorm"]),
    norm_gain=st.booleans(),
    norm_bias=st.booleans(),
    attn_bias=st.booleans(),
    mlp_bias=st.booleans(),
    mlp=st.sampled_from(["gelu", "swiglu", "relu2"]),
    tied_head=st.booleans(),
)


@given(config=shapes)
@settings(max_examples=200, deadline=None)
def test_closed_form_counts_equal_the_built_model(config: ModelConfig) -> None:
    built = {name: param.numel() for name, param in Transformer(config).named_parameters()}
    params = count_params(config)
    assert params.total == sum(built.values())
    matrices = {name: n for name, n in built.items() if name.startswith("blocks.") and name.endswith(".weight")}
    assert params.body == sum(matrices.values())
    assert params.norms == sum(n for name, n in built.items() if "norm" in name)
    assert params.biases == sum(n for name, n in built.items() if name.endswith(".bias") and "norm" not in name)
    assert params.position == built.get("position", 0)
    assert params.embedding == params.head == built["embed"]


@given(config=shapes)
@settings(max_examples=30, deadline=None)
def test_every_shape_computes_what_its_flops_count(config: ModelConfig) -> None:
    """The matrix products that torch really runs in a forward pass, attention scores aside, are the formula's."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        Transformer(config).eval()(torch.zeros(1, config.context_length, dtype=torch.long))
    counted = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    products = sum(n for op, n in counted.items() if "attention" not in op and "bmm" not in op)
    params = count_params(config)
    assert products == 2 * config.context_length * (params.body + params.head)


def test_parts_equal_torchs() -> None:
    torch.manual_seed(0)
    x, gain, bias = torch.randn(3, 4, 6), torch.randn(6), torch.randn(6)
    assert torch.equal(lm.linear(x, torch.eye(6), bias), F.linear(x, torch.eye(6), bias))
    assert torch.equal(lm.embedding(torch.tensor([2, 0]), x[0]), x[0][[2, 0]])
    torch.testing.assert_close(lm.softmax(x), x.softmax(-1))
    torch.testing.assert_close(lm.softmax(x * 1e4, dim=0), (x * 1e4).softmax(0))
    torch.testing.assert_close(lm.silu(x), F.silu(x))
    torch.testing.assert_close(lm.relu2(x), x.clamp(min=0) ** 2)
    torch.testing.assert_close(lm.gelu(x), F.gelu(x, approximate="tanh"))
    targets = torch.randint(0, 6, (3, 4))
    torch.testing.assert_close(lm.cross_entropy(x, targets), F.cross_entropy(x.flatten(0, 1), targets.flatten()))
    centred = x - x.mean(-1, keepdim=True)
    plain = centred / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(lm.layer_norm(x, gain, bias), plain * gain + bias)
    rms = x / (x.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(lm.rms_norm(x, gain, bias), rms * gain + bias)
    w = torch.randn(3, 8, 6)
    down = torch.randn(6, 8)
    torch.testing.assert_close(lm.swiglu(x, w[0], w[1], down), (F.silu(x @ w[0].T) * (x @ w[1].T)) @ down.T)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_attention_equals_the_definition(kv_heads: int) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 5, 4, 3), torch.randn(2, 5, kv_heads, 3), torch.randn(2, 5, kv_heads, 3)
    out = lm.causal_attention(q, k, v)
    shared = 4 // kv_heads
    for head in range(4):
        scores = q[:, :, head] @ k[:, :, head // shared].transpose(1, 2) / math.sqrt(3)
        scores = scores.masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
        torch.testing.assert_close(out[:, :, head], scores.softmax(-1) @ v[:, :, head // shared])


@pytest.mark.parametrize("name", PRESETS)
def test_no_token_sees_its_future(name: str) -> None:
    config = preset(name, vocab_size=11, context_length=8, d_model=12, num_layers=2, num_heads=2, d_ff=None)
    model = Transformer(config).eval()
    ids = torch.randint(0, 11, (1, 8))
    other = ids.clone()
    other[0, 5:] = (other[0, 5:] + 1) % 11
    torch.testing.assert_close(model(ids)[:, :5], model(other)[:, :5])
    assert not torch.allclose(model(ids)[:, 5:], model(other)[:, 5:])


@pytest.mark.parametrize("name", PRESETS)
def test_a_fresh_model_is_about_as_good_as_guessing(name: str) -> None:
    config = preset(name, vocab_size=64, context_length=16, d_model=32, num_layers=2, num_heads=2)
    loss = Transformer(config).loss(torch.randint(0, 64, (4, 16)), torch.randint(0, 64, (4, 16)))
    assert loss.item() == pytest.approx(math.log(64), abs=0.5)


def test_loss_equals_cross_entropy_of_the_logits() -> None:
    model, ids = Transformer(TINY), torch.randint(0, 11, (2, 9))
    plain = lm.cross_entropy(model(ids[:, :-1]), ids[:, 1:])
    torch.testing.assert_close(model.loss(ids[:, :-1], ids[:, 1:]), plain)


@pytest.mark.parametrize("where", ["attn_pdrop", "residual_pdrop"])
def test_dropout_acts_in_training_and_is_off_in_evaluation(where: str) -> None:
    model, ids = Transformer(replace(TINY, **{where: 0.5})), torch.randint(0, 11, (2, 8))
    model.train()
    assert not torch.equal(model(ids), model(ids))
    model.eval()
    assert torch.equal(model(ids), model(ids))
    assert torch.equal(model(ids), Transformer(TINY).eval()(ids))


def test_seed_decides_the_weights() -> None:
    first, same, other = Transformer(TINY, seed=1), Transformer(TINY, seed=1), Transformer(TINY, seed=2)
    assert torch.equal(first.embed, same.embed)
    assert not torch.equal(first.embed, other.embed)


def test_initial_standard_deviations_are_those_of_the_table() -> None:
    config = preset("small", d_model=64, num_layers=8)
    stds = {name: param.std().item() for name, param in Transformer(config).named_parameters()}
    assert stds["embed"] == pytest.approx(0.1, rel=0.1)
    assert stds["blocks.3.attn.qkv.weight"] == pytest.approx(0.8 / math.sqrt(64), rel=0.1)
    assert stds["blocks.3.attn.out.weight"] == pytest.approx(0.4 / math.sqrt(64 * 8), rel=0.1)
    assert stds["blocks.3.mlp.up.weight"] == pytest.approx(0.8 / math.sqrt(64), rel=0.1)
    assert stds["blocks.3.mlp.down.weight"] == pytest.approx(0.2 / math.sqrt(64 * 8), rel=0.1)


def test_a_sequence_longer_than_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="a sequence of 9 tokens is longer than context_length=8"):
        Transformer(TINY)(torch.zeros(1, 9, dtype=torch.long))


def test_rope_function_turns_by_position() -> None:
    x = torch.randn(1, 4, 1, 6)
    turned = lm.rope(x)
    assert torch.equal(turned[:, 0], x[:, 0])
    assert not torch.allclose(turned[:, 1:], x[:, 1:])
