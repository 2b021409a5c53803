"""python -m pytest tests/test_kernels.py"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from isoflop.lm import kernels
from isoflop.lm.kernels import (
    BLOCK_ROWS,
    CHUNK_TOKENS,
    Angles,
    block_attention,
    linear_cross_entropy,
    measure_peak_flops,
    mixed_linear,
    rotate,
    tabled_gelu,
)
from isoflop.lm.model import cross_entropy, rope_angles


def plain_rotation(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def test_rotation_and_its_gradient_equal_the_plain_form() -> None:
    torch.manual_seed(0)
    cos, sin = rope_angles(7, 6)
    x = torch.randn(2, 7, 3, 6, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    weights = torch.randn(2, 7, 3, 6)
    (rotate(x, cos, sin) * weights).sum().backward()
    (plain_rotation(y, cos, sin) * weights).sum().backward()
    torch.testing.assert_close(rotate(x, cos, sin), plain_rotation(y, cos, sin), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-6)


def test_rotation_keeps_lengths_and_depends_on_distance_alone() -> None:
    torch.manual_seed(0)
    cos, sin = rope_angles(16, 8)
    q, k = torch.randn(8).expand(1, 16, 1, 8), torch.randn(8).expand(1, 16, 1, 8)
    turned_q, turned_k = rotate(q, cos, sin)[0, :, 0], rotate(k, cos, sin)[0, :, 0]
    torch.testing.assert_close(turned_q.norm(dim=-1), q[0, :, 0].norm(dim=-1))
    scores = turned_q @ turned_k.T
    torch.testing.assert_close(scores.diagonal(-3), scores[3, 0].expand(13), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [5, CHUNK_TOKENS, 2 * CHUNK_TOKENS + 3])
def test_chunked_cross_entropy_equals_the_plain_one(tokens: int) -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, 12), torch.randn(31, 12)
    targets = torch.randint(0, 31, (tokens,))
    ours = [t.clone().requires_grad_() for t in (hidden, weight)]
    plain = [t.clone().requires_grad_() for t in (hidden, weight)]
    loss = linear_cross_entropy(*ours, targets)
    reference = cross_entropy(plain[0] @ plain[1].T, targets)
    (3 * loss).backward()
    (3 * reference).backward()
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-5, atol=1e-6)


def test_chunked_cross_entropy_survives_huge_logits() -> None:
    hidden, weight = torch.full((2, 1), 1e4), torch.tensor([[1.0], [-1.0]])
    assert linear_cross_entropy(hidden, weight, torch.tensor([0, 1])).item() == pytest.approx(1e4)


def assert_no_farther(exact: list[Tensor], ours: list[Tensor], usual: list[Tensor]) -> None:
    """The distance of each of ours from the exact one is at most the usual one's (1e-4: the order of the sums)."""
    for right, mine, theirs in zip(exact, ours, usual, strict=True):
        assert (mine.float() - right).norm() <= (theirs.float() - right).norm() * (1 + 1e-4)


@pytest.mark.parametrize(("tile", "group", "chunk"), [(4096, 1024, 512), (100, 300, 128)])
@pytest.mark.parametrize("scale", [0.02, 0.1, 0.5])
def test_chunked_cross_entropy_in_bf16_is_no_farther_from_fp32_than_autocast(
    monkeypatch, scale: float, tile: int, group: int, chunk: int
) -> None:
    for name, size in (("TILE_IDS", tile), ("GROUP_TOKENS", group), ("CHUNK_TOKENS", chunk)):
        monkeypatch.setattr(kernels, name, size)
    squares = torch.zeros(2)
    for seed in range(8):
        torch.manual_seed(seed)
        hidden, weight = torch.randn(700, 48), torch.randn(256, 48) * scale
        targets = torch.randint(0, 256, (700,))

        def gradients(
            loss_of: Callable[[Tensor, Tensor], Tensor], autocast: bool, inputs=(hidden, weight)
        ) -> list[Tensor]:
            h, w = (x.clone().requires_grad_() for x in inputs)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                loss = loss_of(h, w)
            loss.backward()
            return [loss.detach(), h.grad, w.grad]

        def plain(h: Tensor, w: Tensor, targets=targets) -> Tensor:
            return F.cross_entropy(h @ w.T, targets)

        exact, usual = gradients(plain, False), gradients(plain, True)
        for ours in (
            gradients(lambda h, w, t=targets: linear_cross_entropy(h, w, t), True),
            gradients(lambda h, w, t=targets: linear_cross_entropy(h, w, t, torch.bfloat16), False),
        ):
            for right, mine, theirs in zip(exact[1:], ours[1:], usual[1:], strict=True):
                assert (mine - right).norm() <= (theirs - right).norm()
        squares += torch.stack([ours[0] - exact[0], usual[0] - exact[0]]) ** 2
    assert squares[0] <= squares[1]  # one number a seed, so judged over all of them


@pytest.mark.parametrize("tile", [1, 2])
def test_chunked_cross_entropy_in_bf16_survives_huge_logits(monkeypatch, tile: int) -> None:
    monkeypatch.setattr(kernels, "TILE_IDS", tile)
    hidden, weight = torch.full((2, 1), 1e4), torch.tensor([[1.0], [-1.0]])
    weight.requires_grad_()
    for ids in (weight, weight.flip(0)):  # whether the highest comes first or last
        loss = linear_cross_entropy(hidden, ids, torch.tensor([0, 1]), torch.bfloat16)
        loss.backward()
        assert loss.item() == pytest.approx(1e4, rel=0.01)
        assert weight.grad is not None and weight.grad.isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
def test_mixed_linear_rounds_its_inputs_and_nothing_else_but_the_products(bias: bool) -> None:
    torch.manual_seed(0)
    x, out_grad = torch.randn(3, 50, 24).bfloat16(), torch.randn(3, 50, 40).bfloat16()
    weight, b = torch.randn(40, 24), torch.randn(40) if bias else None

    def run(call: Callable[..., Tensor], *inputs: Tensor | None) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in inputs if t is not None]
        y = call(*leaves)
        y.backward(out_grad.to(y.dtype))
        return [y.detach(), *(leaf.grad for leaf in leaves)]

    def plain(*inputs: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.linear(*inputs)

    ours, usual = run(mixed_linear, x, weight, b), run(plain, x, weight, b)
    assert ours[0].dtype == ours[1].dtype == torch.bfloat16 and ours[2].dtype == torch.float32
    assert_no_farther(run(F.linear, x.float(), weight, b), ours, usual)


def test_tabled_gelu_is_torchs_for_every_bf16_number() -> None:
    x = torch.arange(2**16).to(torch.uint16).view(torch.bfloat16)
    mine, theirs, exact = (t.clone().requires_grad_() for t in (x, x, x.float()))
    value, usual, right = tabled_gelu(mine), F.gelu(theirs, approximate="tanh"), F.gelu(exact, approximate="tanh")
    for y in (value, usual, right):
        y.backward(torch.ones_like(y))
    torch.testing.assert_close(value, usual, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(mine.grad, exact.grad.bfloat16(), rtol=0, atol=0, equal_nan=True)


def plain_attention(
    qkv: Tensor, angles: Angles | None, kv_heads: int, dropout: float = 0.0, scale: float | None = None
) -> Tensor:
    """The definition: all scores at once, the future masked."""
    heads, seq = qkv.shape[2] - 2 * kv_heads, qkv.shape[1]
    q, k, v = qkv.split([heads, kv_heads, kv_heads], 2)
    if angles is not None:
        q, k = plain_rotation(q, *angles), plain_rotation(k, *angles)
    q = q.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4)
    k, v = (x.permute(0, 2, 1, 3)[:, :, None] for x in (k, v))
    scores = q @ k.transpose(-1, -2) * (qkv.shape[-1] ** -0.5 if scale is None else scale)
    weights = scores.masked_fill(torch.ones(seq, seq).triu(1).bool(), -math.inf).softmax(-1)
    if dropout:
        shape = weights.shape
        weights = torch.native_dropout(weights.reshape(-1, shape[2] * seq, seq), dropout, True)[0].view(shape)
    return (weights @ v).permute(0, 3, 1, 2, 4).flatten(2, 3)


def attention_gradients(call: Callable[..., Tensor], qkv: Tensor, out_grad: Tensor, *rest) -> list[Tensor]:
    leaf = qkv.clone().requires_grad_()
    out = call(leaf, *rest)
    out.backward(out_grad.to(out.dtype))
    return [out.detach(), leaf.grad]


SHAPES = [(1, 1, 8), (2, 1, 16), (4, 2, 64), (6, 6, 10), (2, 2, 128), (1, 1, 3)]
"""Query heads, kv heads, head size."""


def test_block_attention_takes_another_scale() -> None:
    torch.manual_seed(0)
    qkv, grad, angles = torch.randn(2, 20, 8, 16), torch.randn(2, 20, 4, 16), rope_angles(20, 16)
    ours = attention_gradients(block_attention, qkv, grad, angles, 2, 0.0, 0.7)
    plain = attention_gradients(plain_attention, qkv, grad, angles, 2, 0.0, 0.7)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seq", [1, 50, BLOCK_ROWS, 2 * BLOCK_ROWS + 37])
@pytest.mark.parametrize(("heads", "kv_heads", "head_size"), SHAPES)
def test_block_attention_equals_the_plain_form(seq: int, heads: int, kv_heads: int, head_size: int) -> None:
    torch.manual_seed(0)
    qkv, grad = torch.randn(2, seq, heads + 2 * kv_heads, head_size), torch.randn(2, seq, heads, head_size)
    angles = rope_angles(seq, head_size) if head_size % 2 == 0 else None
    ours = attention_gradients(block_attention, qkv, grad, angles, kv_heads)
    plain = attention_gradients(plain_attention, qkv, grad, angles, kv_heads)
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("heads", "kv_heads", "head_size"), SHAPES)
def test_block_attention_in_bf16_is_no_farther_from_fp32_than_autocast(
    heads: int, kv_heads: int, head_size: int
) -> None:
    torch.manual_seed(0)
    seq = BLOCK_ROWS + 37
    qkv, grad = torch.randn(4, seq, heads + 2 * kv_heads, head_size), torch.randn(4, seq, heads, head_size)
    angles = rope_angles(seq, head_size) if head_size % 2 == 0 else None

    def autocast(leaf: Tensor, *rest: Any) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return plain_attention(leaf.bfloat16(), *rest)

    ours = attention_gradients(lambda x, *rest: block_attention(x.bfloat16(), *rest), qkv, grad, angles, kv_heads)
    usual = attention_gradients(autocast, qkv, grad, angles, kv_heads)
    assert_no_farther(attention_gradients(plain_attention, qkv, grad, angles, kv_heads), ours, usual)


def test_dropout_of_block_attention_is_the_plain_forms() -> None:
    qkv, grad = torch.randn(2, BLOCK_ROWS, 6, 8), torch.randn(2, BLOCK_ROWS, 4, 8)
    results = []
    for call in (block_attention, plain_attention):
        torch.manual_seed(7)
        results.append(attention_gradients(call, qkv, grad, None, 1, 0.3))
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)
    kept = attention_gradients(block_attention, qkv, grad, None, 1)
    assert not torch.allclose(results[0][0], kept[0])


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_attention_weights_worked_out_again_are_those_that_were_kept(monkeypatch, dropout: float) -> None:
    qkv, grad = torch.randn(2, 150, 4, 16).bfloat16(), torch.randn(2, 150, 2, 16)
    results = []
    for longest in (kernels.KEPT_TOKENS, 0):
        monkeypatch.setattr(kernels, "KEPT_TOKENS", longest)
        torch.manual_seed(7)
        results.append(attention_gradients(block_attention, qkv, grad, rope_angles(150, 16), 1, dropout))
    for mine, theirs in zip(*results, strict=True):
        assert torch.equal(mine, theirs)


def test_peak_is_a_speed() -> None:
    assert measure_peak_flops(size=64, repeats=2) > 1e6
