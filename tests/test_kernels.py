"""python -m pytest tests/test_kernels.py"""

import pytest
import torch
from torch import Tensor

from isoflop.lm.kernels import CHUNK_TOKENS, linear_cross_entropy, measure_peak_flops, rotate
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


def test_chunked_cross_entropy_in_bf16_is_about_as_near_to_fp32_as_autocast() -> None:
    torch.manual_seed(0)
    hidden, weight = torch.randn(700, 48), torch.randn(256, 48) * 0.1
    targets = torch.randint(0, 256, (700,))

    def weight_gradient(loss_of, autocast: bool) -> tuple[Tensor, Tensor]:
        h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = loss_of(h, w)
        loss.backward()
        return loss.detach(), w.grad

    exact = weight_gradient(lambda h, w: linear_cross_entropy(h, w, targets), False)
    ours = weight_gradient(lambda h, w: linear_cross_entropy(h, w, targets), True)
    theirs = weight_gradient(lambda h, w: torch.nn.functional.cross_entropy(h @ w.T, targets), True)
    for right, mine, usual in zip(exact, ours, theirs, strict=True):
        assert (mine - right).norm() <= 1.5 * (usual - right).norm() + 1e-6


def test_peak_is_a_speed() -> None:
    assert measure_peak_flops(size=64, repeats=2) > 1e6
