"""What torch leaves slow on a CPU, as autograd functions; the tests hold each against its plain reference.

Shape legend: batch sequences of seq tokens; heads of head_size; pairs = head_size / 2; tokens = batch · seq flattened.
"""

from __future__ import annotations

import ctypes
import sys
import time
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK_TOKENS = 512
"""Tokens whose logits exist at once: 256 to 512 stay in the cache of one core (measured, ×1.1 against 2048)."""


class _Rotation(torch.autograd.Function):
    """Turn pairs by an angle; the backward pass is the turn back, so nothing but the angles is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turn(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turn(grads[0], cos, -sin), None, None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    first, second = x.chunk(2, dim=-1)
    out = torch.empty_like(x)
    out_first, out_second = out.chunk(2, dim=-1)
    torch.mul(first, cos, out=out_first).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second).addcmul_(first, sin)
    return out


def rotate(
    x: Float[Tensor, "batch seq heads head_size"],
    cos: Float[Tensor, "seq 1 pairs"],
    sin: Float[Tensor, "seq 1 pairs"],
) -> Float[Tensor, "batch seq heads head_size"]:
    """Turn the pairs (i, i + head_size/2) of each head by the angle of their position (arXiv:2104.09864)."""
    turned: Tensor = _Rotation.apply(x, cos, sin)  # type: ignore[no-untyped-call]
    return turned


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of `hidden @ weight.T`, with both gradients worked out chunk by chunk in the forward pass."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        tokens = len(targets)
        training = any(ctx.needs_input_grad)
        hidden_grad = torch.empty_like(hidden) if training else hidden
        weight_grad = torch.zeros_like(weight, dtype=torch.float32) if training else weight
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for start in range(0, tokens, CHUNK_TOKENS):
            part = slice(start, start + CHUNK_TOKENS)
            logits = (hidden[part] @ weight.T).float()
            index = targets[part, None]
            logits.sub_(logits.amax(-1, keepdim=True))
            total -= logits.gather(-1, index).sum()
            # from here on in place, towards (softmax − onehot) / tokens: the logits are not needed again
            norm = logits.exp_().sum(-1, keepdim=True)
            total += norm.log().sum()
            if training:
                logits.mul_(1 / (norm * tokens)).scatter_add_(-1, index, torch.full_like(norm, -1 / tokens))
                grad = logits.to(hidden.dtype)
                torch.mm(grad, weight, out=hidden_grad[part])
                weight_grad.add_(torch.mm(grad.T, hidden[part]))
        if training:
            ctx.save_for_backward(hidden_grad, weight_grad)
        return total / tokens

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        hidden_grad, weight_grad = ctx.saved_tensors
        return hidden_grad * grads[0].to(hidden_grad.dtype), weight_grad * grads[0], None


def linear_cross_entropy(
    hidden: Float[Tensor, "tokens d_model"],
    weight: Float[Tensor, "vocab_size d_model"],
    targets: Int[Tensor, " tokens"],
) -> Float[Tensor, ""]:
    """Mean of −log softmax(hidden @ weight.T)[target], nats per token; the logits never exist as a whole.

    Under autocast the products run in its type; sums, softmax and the matrix's gradient stay in fp32.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    with torch.autocast(hidden.device.type, enabled=False):
        loss: Tensor = _LinearCrossEntropy.apply(hidden, weight.to(hidden.dtype), targets)  # type: ignore[no-untyped-call]
    return loss


def keep_freed_memory() -> None:
    """Ask glibc not to return freed memory after every step, so that each step does not fault its pages in anew.

    Worth a tenth of the time of models of width 16 to 72 on one core; elsewhere than on glibc nothing happens.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3  # malloc.h
    libc.mallopt(m_mmap_threshold, 32 * 2**20)
    libc.mallopt(m_trim_threshold, 2**30)
    libc.mallopt(m_top_pad, 64 * 2**20)


def measure_peak_flops(size: int = 1024, repeats: int = 4) -> float:
    """Best FLOP/s of a square fp32 matrix product on this CPU with the threads in use: the peak that MFU refers to."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
