"""Optimizers, gradient clipping, parameter groups, and the flat buffers that make a small model's step cheap."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from isoflop.config import ModelConfig, OptimConfig
from isoflop.lm.transfer import Multipliers, multipliers

Matrix = Float[Tensor, "rows cols"]


def clip_by_global_norm(
    grads: Iterable[Tensor], max_norm: float, *, joint: Callable[[Tensor], Tensor] = lambda norm: norm
) -> Tensor:
    """Scale gradients in place so that their joint norm is at most `max_norm`; return the norm before.

    Where these are a part of all gradients, `joint` tells the norm of all from that of the part.
    """
    grads = list(grads)
    norm: Tensor = joint(torch.stack([torch.linalg.vector_norm(grad) for grad in grads]).norm())
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor)
    return norm


def adamw_update(
    param: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """One AdamW step in place (arXiv:1711.05101, algorithm 2): θ ← θ(1 − lr·λ) − lr·m̂ / (√v̂ + eps); steps from 1."""
    beta1, beta2 = betas
    if weight_decay:
        param.mul_(1 - lr * weight_decay)
    mean.lerp_(grad, 1 - beta1)
    square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
    root = square.sqrt().div_(math.sqrt(1 - beta2**step)).add_(eps)
    param.addcdiv_(mean, root, value=-lr / (1 - beta1**step))


def fused_adamw_update(
    param: Tensor,
    grad: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """As `adamw_update` up to rounding, reading and writing memory once: a sixth of its time on 40 M parameters."""
    torch._fused_adamw_(
        [param],
        [grad],
        [mean],
        [square],
        [],
        [torch.tensor(float(step), device=param.device)],
        lr=lr,
        beta1=betas[0],
        beta2=betas[1],
        weight_decay=weight_decay,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )


def orthogonalize(matrix: Matrix) -> Matrix:
    """Bring all singular values of a matrix near 1 by five Newton–Schulz steps, in bf16 (Muon's quintic)."""
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16()
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)  # as torch.optim.Muon: a gradient of zero stays zero
    a, b, c = QUINTIC
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x


QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of x, x³ and x⁵ (kellerjordan.github.io/posts/muon; torch.optim.Muon)."""
NEWTON_SCHULZ_STEPS = 5
"""As arXiv:2502.16982."""
MATCHED_RMS = 0.2
"""Root mean square of AdamW's updates, which Muon's are scaled to (arXiv:2502.16982, section 2.2)."""


def adamw_group(group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any], *, fused: bool) -> None:
    """AdamW on one flat buffer; its state is the running means of the gradient and of its square."""
    if not state:
        state |= {"step": 0, "mean": torch.zeros_like(param), "square": torch.zeros_like(param)}
    state["step"] += 1
    rates = {name: group[name] for name in ("lr", "betas", "eps", "weight_decay")}
    update = fused_adamw_update if fused else adamw_update
    update(param, grad, state["mean"], state["square"], step=state["step"], **rates)


def muon_group(group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any], *, fused: bool) -> None:
    """Muon on the matrices of one flat buffer: W ← W(1 − lr·λ) − lr·0.2·√max(rows, cols)·NS(g + μ(m − g)).

    m is the running mean of the gradients (Nesterov momentum); each matrix is made orthogonal by itself.
    """
    if not state:
        state |= {"step": 0, "momentum": torch.zeros_like(param)}
    state["step"] += 1
    state["momentum"].lerp_(grad, 1 - group["momentum"])
    ahead = grad.lerp(state["momentum"], group["momentum"])
    param.mul_(1 - group["lr"] * group["weight_decay"])
    for start, rows, cols in group["matrices"]:
        part = slice(start, start + rows * cols)
        scale = group["lr"] * MATCHED_RMS * math.sqrt(max(rows, cols))
        param[part].view(rows, cols).add_(orthogonalize(ahead[part].view(rows, cols)), alpha=-scale)


def sgd_group(group: dict[str, Any], param: Tensor, grad: Tensor, state: dict[str, Any], *, fused: bool) -> None:
    """SGD on one flat buffer: m ← μ·m + g, θ ← θ(1 − lr·λ) − lr·m."""
    if not state:
        state |= {"step": 0, "momentum": torch.zeros_like(param)}
    state["step"] += 1
    state["momentum"].mul_(group["momentum"]).add_(grad)
    param.mul_(1 - group["lr"] * group["weight_decay"])
    param.add_(state["momentum"], alpha=-group["lr"])


class Optimizer:
    """A rule for each group, `update`; the state of a buffer is its steps and tensors, whatever the rule.

    No `torch.optim.Optimizer`: making one imports torch's compiler, which takes as long as half of torch itself.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, fused: bool = False) -> None:
        self.param_groups = [{"lr": lr, **group} for group in groups]
        self.state: defaultdict[Tensor, dict[str, Any]] = defaultdict(dict)
        self.fused = fused

    @torch.no_grad()
    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    group["update"](group, param, param.grad, self.state[param], fused=self.fused)


def bounded_sgd(optim: OptimConfig) -> bool:
    """Whether SGD's steps are cut by the gradient's norm, to which widths contribute otherwise than to its rates."""
    return optim.optimizer == "sgd" and optim.grad_clip is not None


SGD_UNBOUND = "SGD's rates carry over widths only without a bound on the gradient's norm; give --grad-clip None"
"""arXiv:2203.03466, table 8, gives rates for gradients as they are; AdamW and Muon normalise theirs."""


def hidden(name: str, param: Tensor) -> bool:
    """Whether a parameter is a matrix inside a block."""
    return name.startswith("blocks.") and param.ndim >= 2


def decays(name: str, param: Tensor, optim: OptimConfig) -> bool:
    """Whether weight decay acts on a parameter: matrices inside blocks, or everything with decay_all."""
    return optim.decay_all or hidden(name, param)


class Flat:
    """Parameters of a model moved into one buffer for each group, and their gradients into another.

    The model's parameters become views, so that clipping and AdamW are a handful of calls whatever the number of
    layers: on two layers of width 16 a step spends a third of its time there otherwise.
    """

    def __init__(self, params: Sequence[nn.Parameter]) -> None:
        with torch.no_grad():
            self.values = nn.Parameter(torch.cat([param.detach().flatten() for param in params]))
        self.grads = torch.zeros_like(self.values)
        self.values.grad = self.grads
        start = 0
        for param in params:
            part = slice(start, start + param.numel())
            param.data = self.values.data[part].view_as(param)
            param.grad = self.grads[part].view_as(param)
            start = part.stop


def build(
    model: nn.Module, optim: OptimConfig, *, shape: ModelConfig, fused: bool = False
) -> tuple[Optimizer, list[Flat]]:
    """Move the model's parameters into flat groups and return the optimizer over them, set to the peak rate."""
    flats, settings = list[Flat](), list[dict[str, Any]]()
    for named, group in groups(model, optim, shape):
        flats.append(Flat([param for _, param in named]))
        settings.append({**group, "params": [flats[-1].values]})
    return Optimizer(settings, lr=optim.peak_lr(shape.rate_width), fused=fused), flats


def groups(
    model: nn.Module, optim: OptimConfig, shape: ModelConfig
) -> Iterator[tuple[list[tuple[str, nn.Parameter]], dict[str, Any]]]:
    """Yield the parameters of each group, and what they share: rule, decay, multipliers of the parametrization.

    Whoever sets the rate of a group multiplies it by the group's `lr_multiplier`.
    """
    inside, outside = OPTIMIZERS[optim.optimizer]
    members: dict[tuple[bool, bool, Multipliers], list[tuple[str, nn.Parameter]]] = {}
    for name, param in model.named_parameters():
        rest = not hidden(name, param) and inside is not outside
        scale = multipliers(name, param, shape, optim.optimizer)._replace(init=1.0)  # of the past by now
        members.setdefault((not decays(name, param, optim), rest, scale), []).append((name, param))
    peak = optim.peak_lr(shape.rate_width)
    for (undecayed, rest, scale), named in sorted(members.items(), key=lambda item: item[0][:2]):
        yield (
            named,
            {
                "update": outside if rest else inside,
                "matrices": () if inside is outside or rest else _matrices(model, named),
                "lr": peak * scale.lr,
                "lr_multiplier": scale.lr,
                "weight_decay": 0.0 if undecayed else optim.weight_decay * scale.weight_decay,
                "betas": (optim.beta1, optim.beta2),
                "momentum": optim.momentum,
                "eps": optim.eps * scale.eps,
            },
        )


def _matrices(model: nn.Module, named: Sequence[tuple[str, nn.Parameter]]) -> tuple[tuple[int, int, int], ...]:
    """Return start, rows and columns of each matrix of a flat buffer; queries, keys and values are three."""
    out, start = [], 0
    for name, param in named:
        rows, cols = param.shape
        heights = [rows]
        if name.endswith("attn.qkv.weight"):
            owner: Any = model.get_submodule(name.removesuffix(".qkv.weight"))
            heights = [owner.heads * owner.head_size, *2 * [owner.kv_heads * owner.head_size]]
        for height in heights:
            out.append((start, height, cols))
            start += height * cols
    return tuple(out)


Rule = Callable[..., None]
OPTIMIZERS: Mapping[str, tuple[Rule, Rule]] = {
    "adamw": (adamw_group, adamw_group),
    "muon": (muon_group, adamw_group),
    "sgd": (sgd_group, sgd_group),
}
"""The rule for the matrices inside blocks, and the one for everything else."""
