"""Parameters, gradients and moments as the ranks hold them: all of them on each, or a part on each (FSDP2).

A checkpoint is the same whoever wrote it: whole parameters by name, and the moments of each group of the optimizer as
one flat buffer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from isoflop.config import ModelConfig, OptimConfig
from isoflop.lm.model import Transformer
from isoflop.lm.optim import Optimizer, build, groups
from isoflop.lm.ranks import Ranks

Named = Mapping[str, Tensor]


class Whole:
    """Every rank has everything; gradients are summed over the ranks, one flat buffer a group."""

    sharded = False

    def __init__(self, model: Transformer, optim: OptimConfig, shape: ModelConfig, ranks: Ranks, *, fused: bool):
        self.model, self.ranks = model, ranks
        self.optimizer, flats = build(model, optim, shape=shape, fused=fused)
        self.grads = [flat.grads for flat in flats]

    @property
    def parts(self) -> int:
        """Gradients that are summed to a step's."""
        return self.ranks.world

    def zero(self) -> None:
        """Forget the gradients."""
        for grads in self.grads:
            grads.zero_()

    def reduced(self) -> list[Tensor]:
        """Sum the gradients over the ranks, and return them."""
        for grads in self.grads:
            self.ranks.sum_into(grads)
        return self.grads

    def own_square(self) -> float:
        """Squared length of what this rank holds of the gradient, before the sum."""
        return math.fsum(torch.linalg.vector_norm(grads).item() ** 2 for grads in self.grads)

    def joint_norm(self, norm: Tensor) -> Tensor:
        """Length of the whole gradient, from the length of what this rank holds after the sum."""
        return norm

    def settle(self) -> None:
        """After an evaluation: nothing to put away."""

    def tensors(self) -> tuple[Named, Named]:
        """Parameters by name, and moments by group and kind."""
        moments = {
            f"{index}.{name}": value
            for index, group in enumerate(self.optimizer.param_groups)
            for name, value in self.optimizer.state[group["params"][0]].items()
            if isinstance(value, Tensor)
        }
        return dict(self.model.named_parameters()), moments

    @torch.no_grad()
    def restore(self, model: Named, moments: Named, *, step: int) -> None:
        """Take over what `tensors` returned after so many steps."""
        for name, weight in self.model.named_parameters():
            weight.copy_(model[name])
        for name, tensor in moments.items():
            index, _, kind = name.partition(".")
            (param,) = self.optimizer.param_groups[int(index)]["params"]
            self.optimizer.state[param]["step"] = step
            self.optimizer.state[param][kind] = tensor.to(param.device)


class Sharded:
    """Every rank has its rows of each parameter, gradient and moment; a block is whole only while it computes."""

    sharded = True
    parts = 1
    """The ranks' gradients are averaged while they are made, so none is a rank's own."""

    def __init__(
        self,
        model: Transformer,
        optim: OptimConfig,
        shape: ModelConfig,
        ranks: Ranks,
        *,
        fused: bool,
        device: torch.device,
    ):
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method  # a second: only who shards pays

        self.model, self.ranks = model, ranks
        self.mesh = init_device_mesh(device.type, (ranks.world,))
        found = list(groups(model, optim, shape))
        self.names = [[name for name, _ in named] for named, _ in found]
        for block in model.blocks:
            fully_shard(block, mesh=self.mesh)
        # embedding and read-out stay whole between forward and backward: the loss multiplies by them after `hidden`
        fully_shard(model, mesh=self.mesh, reshard_after_forward=False)
        register_fsdp_forward_method(model, "hidden")
        settings = [
            {**group, "params": [nn.Parameter(self._local(name)) for name in names]}
            for names, (_, group) in zip(self.names, found, strict=True)
        ]
        self.optimizer = Optimizer(settings, lr=settings[0]["lr"], fused=fused)

    def _local(self, name: str) -> Tensor:
        """Rows of a parameter that this rank has."""
        param: Any = self.model.get_parameter(name)
        rows: Tensor = param.to_local().detach()
        return rows

    def _members(self) -> Iterator[tuple[int, str, Any]]:
        """Yield the group, name and leaf of every parameter."""
        for index, (names, group) in enumerate(zip(self.names, self.optimizer.param_groups, strict=True)):
            for name, leaf in zip(names, group["params"], strict=True):
                yield index, name, leaf

    def zero(self) -> None:
        """Forget the gradients."""
        self.model.zero_grad(set_to_none=True)

    def reduced(self) -> list[Tensor]:
        """Show the optimizer this rank's rows of parameters and gradients, which FSDP may have moved; return these."""
        for _, name, leaf in self._members():
            param: Any = self.model.get_parameter(name)
            leaf.data, leaf.grad = self._local(name), param.grad.to_local()
        return [leaf.grad for _, _, leaf in self._members()]

    def own_square(self) -> float:
        """Squared length of this rank's rows of the gradient."""
        return math.fsum(torch.linalg.vector_norm(rows).item() ** 2 for rows in self.reduced())

    def joint_norm(self, norm: Tensor) -> Tensor:
        """Length of the whole gradient, from the length of this rank's rows."""
        total = sum(square for (square,) in self.ranks.gather(norm.item() ** 2))
        return torch.tensor(math.sqrt(total), device=norm.device)

    def settle(self) -> None:
        """Put away what an evaluation left whole, so that parameters are rows again."""
        model: Any = self.model
        model.reshard()

    def tensors(self) -> tuple[Named, Named]:
        """Parameters by name, and moments by group and kind, whole, on the CPU."""
        from torch.distributed.tensor import DTensor, Shard

        params: dict[str, Any] = dict(self.model.named_parameters())
        model = {name: param.full_tensor().detach().cpu() for name, param in params.items()}
        flat: dict[str, list[Tensor]] = {}
        for index, name, leaf in self._members():
            like = params[name]
            for kind, rows in self.optimizer.state[leaf].items():
                if isinstance(rows, Tensor):
                    whole = DTensor.from_local(rows, self.mesh, [Shard(0)], shape=like.shape, stride=like.stride())
                    flat.setdefault(f"{index}.{kind}", []).append(whole.full_tensor().cpu().flatten())
        return model, {key: torch.cat(pieces) for key, pieces in flat.items()}

    @torch.no_grad()
    def restore(self, model: Named, moments: Named, *, step: int) -> None:
        """Take over what `tensors` returned after so many steps, wherever it was written."""
        kinds = {key.partition(".")[2] for key in moments}
        done = dict.fromkeys(range(len(self.names)), 0)
        for index, name, leaf in self._members():
            shape, start = model[name].shape, done[index]
            self._local(name).copy_(self._mine(model[name]))
            done[index] = end = start + math.prod(shape)
            for kind in kinds:
                rows = self._mine(moments[f"{index}.{kind}"][start:end].view(shape))
                self.optimizer.state[leaf] |= {"step": step, kind: rows.clone().to(leaf.device)}

    def _mine(self, whole: Tensor) -> Tensor:
        """Cut this rank's rows out, as FSDP2 does: equal parts, rounded up, so that the last may be short or empty."""
        rows = whole.chunk(self.ranks.world)
        return rows[self.ranks.rank] if self.ranks.rank < len(rows) else whole[:0]


Weights = Whole | Sharded


def hold_weights(
    model: Transformer, optim: OptimConfig, ranks: Ranks, *, fused: bool, device: torch.device, sharding: str
) -> Weights:
    """Spread a model over the ranks; alone, a rank has it all.

    Raises:
        ValueError: the optimizer needs whole matrices, and no rank has them.
    """
    if sharding == "none" or ranks.world == 1:
        return Whole(model.to(device), optim, model.config, ranks, fused=fused)
    if optim.optimizer == "muon":
        raise ValueError("optimizer=muon needs whole matrices, and sharding=fsdp leaves no rank any; choose adamw")
    return Sharded(model, optim, model.config, ranks, fused=fused, device=device)
