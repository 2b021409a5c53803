"""The processes that train one run together, one a device: who this one is, and what they tell each other.

torchrun starts them and names each by RANK, WORLD_SIZE and LOCAL_RANK. A process that nobody named is alone, and then
nothing here costs anything.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process among those that train a run. What one asks, all must ask, in the same order."""

    rank: int = 0
    world: int = 1
    """Processes in all."""
    local: int = 0
    """Number among those of this machine, and so of its GPU."""

    @property
    def first(self) -> bool:
        """Whether this is the process that writes log, checkpoints and record."""
        return self.rank == 0

    def gather(self, *values: float) -> list[tuple[float, ...]]:
        """Return the values of every rank, in fp64."""
        return [tuple(row.tolist()) for row in self.tensors(torch.tensor(values, dtype=torch.float64))]

    def any(self, mine: bool) -> bool:
        """Whether one of them says so."""
        return mine if self.world == 1 else any(said for (said,) in self.gather(float(mine)))

    def tensors(self, mine: Tensor) -> list[Tensor]:
        """Return the tensor of every rank; all have one shape, on the CPU."""
        if self.world == 1:
            return [mine]
        every = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(every, mine)
        return every

    def sum_into(self, tensor: Tensor) -> None:
        """Put the sum over the ranks into the tensor, the same bits on all of them."""
        if self.world > 1:
            dist.all_reduce(tensor)

    def told(self, word: str | None) -> str | None:
        """Return what the first rank says."""
        if self.world == 1:
            return word
        said = [word]
        dist.broadcast_object_list(said)
        return said[0]

    def agreed(self, do: Callable[[], T]) -> T:
        """Do something that may go wrong on one rank alone; if it does, it goes wrong on all.

        Raises:
            ValueError: what went wrong on another rank.
        """
        if self.world == 1:
            return do()
        failure: Exception | None = None
        try:
            done = do()
        except (ValueError, OSError) as error:
            failure = error
        said: list[str | None] = [None] * self.world
        dist.all_gather_object(said, failure and str(failure))
        if failure is not None:
            raise failure
        for rank, sentence in enumerate(said):
            if sentence is not None:
                raise ValueError(f"{sentence} (rank {rank})" if rank else sentence)
        return done


def named(environment: Mapping[str, str] = os.environ) -> Ranks:
    """Return who this process is, as torchrun names it.

    Raises:
        ValueError: the environment names the number of processes, but not this one.
    """
    world = environment.get("WORLD_SIZE", "1")
    if world == "1":
        return Ranks()
    try:
        return Ranks(int(environment["RANK"]), int(world), int(environment["LOCAL_RANK"]))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"WORLD_SIZE={world} says that several processes train together, but not which of them this is ({error}); "
            "start them by torchrun, or unset it"
        ) from None


@contextmanager
def joined() -> Iterator[Ranks]:
    """Meet the other ranks for as long as the block lasts; alone, or met already, just say who this is.

    Small things travel by gloo, and tensors of a GPU by NCCL. After an error the ranks no longer agree on what comes
    next: the process is to end, which ends the others.

    Raises:
        ChildProcessError: another rank has ended.
    """
    ranks = named()
    if ranks.world == 1 or dist.is_initialized():
        yield ranks
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield ranks
    except RuntimeError as error:
        if not is_echo(error):
            raise
        raise ChildProcessError("another process of this run has ended, and with it this one") from error
    dist.destroy_process_group()


def is_echo(error: Exception) -> bool:
    """Whether an error says no more than that another rank is gone."""
    return isinstance(error, (ChildProcessError, dist.DistError)) or "gloo" in str(error)
