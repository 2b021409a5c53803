"""python -m pytest tests/test_optim.py"""

import math

import pytest
import torch

from isoflop.config import OptimConfig
from isoflop.lm.model import Transformer
from isoflop.lm.optim import AdamW, adamw_update, build, clip_by_global_norm, decays
from isoflop.presets import preset


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("fused", [False, True])
def test_adamw_equals_torchs_step_by_step(weight_decay: float, fused: bool) -> None:
    torch.manual_seed(0)
    mine = [torch.randn(5, 3, requires_grad=True), torch.randn(4, requires_grad=True)]
    theirs = [param.detach().clone().requires_grad_() for param in mine]
    settings = {"lr": 0.03, "betas": (0.8, 0.97), "eps": 1e-7, "weight_decay": weight_decay}
    ours, reference = AdamW(mine, **settings, fused=fused), torch.optim.AdamW(theirs, **settings)
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
