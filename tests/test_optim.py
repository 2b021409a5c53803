"""python -m pytest tests/test_optim.py"""

import math

import pytest
import torch

from isoflop.config import OptimConfig
from isoflop.lm.model import Transformer
from isoflop.lm.optim import (
    OPTIMIZERS,
    Optimizer,
    adamw_update,
    build,
    clip_by_global_norm,
    decays,
    hidden,
    muon_group,
    orthogonalize,
    sgd_group,
)
from isoflop.presets import preset


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("fused", [False, True])
def test_adamw_equals_torchs_step_by_step(weight_decay: float, fused: bool) -> None:
    torch.manual_seed(0)
    mine = [torch.randn(5, 3, requires_grad=True), torch.randn(4, requires_grad=True)]
    theirs = [param.detach().clone().requires_grad_() for param in mine]
    settings = {"lr": 0.03, "betas": (0.8, 0.97), "eps": 1e-7, "weight_decay": weight_decay}
    rule, _ = OPTIMIZERS["adamw"]
    ours = Optimizer([{"params": mine, "update": rule, **settings}], lr=0.03, fused=fused)
    reference = torch.optim.AdamW(theirs, **settings)
    for step in range(50):
        for a, b in zip(mine, theirs, strict=True):
            a.grad = torch.randn_like(a) * (1 + step % 3)
            b.grad = a.grad.clone()
        ours.step()
        reference.step()
        for a, b in zip(mine, theirs, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-6, atol=2e-7)


def test_the_first_update_moves_by_the_rate_against_the_sign() -> None:
    param, grad = torch.zeros(2), torch.tensor([3.0, -0.5])
    adamw_update(
        param, grad, torch.zeros(2), torch.zeros(2), step=1, lr=0.1, betas=(0.9, 0.95), eps=0.0, weight_decay=0.0
    )
    torch.testing.assert_close(param, torch.tensor([-0.1, 0.1]))


def test_clipping_equals_torchs() -> None:
    torch.manual_seed(0)
    grads = [torch.randn(7), torch.randn(2, 3)]
    params = [torch.zeros_like(grad, requires_grad=True) for grad in grads]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(params, 0.5)
    torch.testing.assert_close(clip_by_global_norm(grads, 0.5), expected)
    for param, grad in zip(params, grads, strict=True):
        torch.testing.assert_close(grad, param.grad)


def test_clipping_leaves_short_gradients_alone() -> None:
    grads = [torch.tensor([3.0, 4.0])]
    assert clip_by_global_norm(grads, math.inf).item() == 5.0
    assert torch.equal(grads[0], torch.tensor([3.0, 4.0]))


def test_weight_decay_acts_on_block_matrices_only_unless_told() -> None:
    model = Transformer(preset("gpt", vocab_size=5, context_length=4, d_model=8, num_layers=1, num_heads=2))
    decayed = {name for name, param in model.named_parameters() if decays(name, param, OptimConfig())}
    assert decayed == {f"blocks.0.{part}.weight" for part in ("attn.qkv", "attn.out", "mlp.up", "mlp.down")}
    assert all(decays(name, param, OptimConfig(decay_all=True)) for name, param in model.named_parameters())


def test_muon_equals_torchs_matrix_by_matrix_out_of_one_buffer() -> None:
    torch.manual_seed(0)
    shapes = [(12, 8), (8, 24), (16, 16)]
    theirs = [torch.randn(shape, requires_grad=True) for shape in shapes]
    flat = torch.cat([param.detach().flatten() for param in theirs]).requires_grad_()
    starts = [0, 96, 288]
    group = {
        "params": [flat],
        "update": muon_group,
        "matrices": tuple((start, *shape) for start, shape in zip(starts, shapes, strict=True)),
        "momentum": 0.9,
        "weight_decay": 0.1,
    }
    ours = Optimizer([group], lr=0.02)
    settings = {"lr": 0.02, "weight_decay": 0.1, "momentum": 0.9, "adjust_lr_fn": "match_rms_adamw"}
    reference = torch.optim.Muon(theirs, **settings)
    for _ in range(5):
        for param in theirs:
            param.grad = torch.randn_like(param)
        flat.grad = torch.cat([param.grad.flatten() for param in theirs])
        ours.step()
        reference.step()
        torch.testing.assert_close(flat, torch.cat([param.flatten() for param in theirs]), rtol=1e-3, atol=1e-4)


def test_an_orthogonalized_matrix_has_singular_values_near_one_and_the_directions_it_had() -> None:
    torch.manual_seed(0)
    for shape in ((10, 30), (30, 10)):
        matrix = torch.randn(shape)
        made = orthogonalize(matrix).float()
        assert torch.linalg.svdvals(made).sub(1).abs().max() < 0.5  # the quintic's band
        left, _, right = torch.linalg.svd(matrix, full_matrices=False)
        inside = (left.T @ made @ right.T).abs()
        assert inside.diag().sum() / inside.sum() > 0.9
    assert torch.equal(orthogonalize(torch.zeros(3, 4)), torch.zeros(3, 4, dtype=torch.bfloat16))


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_equals_torchs_with_decay_apart_from_the_gradient(decay: float) -> None:
    torch.manual_seed(0)
    mine, theirs = (torch.arange(6.0).requires_grad_() for _ in range(2))
    group = {"params": [mine], "update": sgd_group, "momentum": 0.9, "weight_decay": decay}
    ours, reference = Optimizer([group], lr=0.05), torch.optim.SGD([theirs], lr=0.05, momentum=0.9)
    for _ in range(20):
        mine.grad = torch.randn(6)
        theirs.grad = mine.grad.clone()
        with torch.no_grad():
            theirs.mul_(1 - 0.05 * decay)
        ours.step()
        reference.step()
        torch.testing.assert_close(mine, theirs)


def test_muon_takes_each_matrix_of_the_blocks_and_leaves_the_rest_to_adamw() -> None:
    config = preset("llama", vocab_size=13, context_length=8, d_model=16, num_layers=1, num_heads=4, num_kv_heads=2)
    model = Transformer(config)
    optimizer, _ = build(model, OptimConfig(optimizer="muon"), shape=config)
    inside, outside = optimizer.param_groups
    rows = [(height, width) for _, height, width in inside["matrices"]]
    assert rows == [(16, 16), (8, 16), (8, 16), (16, 16), (48, 16), (48, 16), (16, 48)]  # q, k, v, out, gate, up, down
    starts = [start for start, *_ in inside["matrices"]]
    assert starts == [sum(h * w for h, w in rows[:i]) for i in range(len(rows))]
    assert sum(param.numel() for name, param in model.named_parameters() if hidden(name, param)) == starts[-1] + 16 * 48
    assert (inside["update"], outside["update"]) == OPTIMIZERS["muon"]
    assert outside["matrices"] == () and (inside["weight_decay"], outside["weight_decay"]) == (0.1, 0.0)


def test_flat_buffers_change_nothing() -> None:
    """A model trained through flat buffers equals one trained by torch's AdamW on its own parameters."""
    config = preset("gpt", vocab_size=13, context_length=8, d_model=16, num_layers=2, num_heads=2)
    optim = OptimConfig(lr=0.01, lr_width=None, weight_decay=0.2)
    flat, plain = Transformer(config), Transformer(config)
    optimizer, flats = build(flat, optim, shape=config)
    groups = [
        {
            "params": [p for name, p in plain.named_parameters() if decays(name, p, optim) is decayed],
            "weight_decay": 0.2 * decayed,
        }
        for decayed in (True, False)
    ]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.9, 0.95), eps=1e-8)
    for _ in range(5):
        ids = torch.randint(0, 13, (2, 9))
        for buffer in flats:
            buffer.grads.zero_()
        reference.zero_grad()
        for model in (flat, plain):
            model.loss(ids[:, :-1], ids[:, 1:]).backward()
        optimizer.step()
        reference.step()
    for mine, theirs in zip(flat.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
