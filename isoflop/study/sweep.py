"""A learning-rate sweep: every rate at every width and depth, under each parametrization."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

from isoflop.architecture import ParametrizationKind
from isoflop.config import OptimConfig, RunConfig
from isoflop.flops import compute, train_steps
from isoflop.study.drive import Planned


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What is varied, and what all runs share."""

    base: RunConfig
    """What all share but width, depth, peak rate and seed; its seed is the first."""
    parametrizations: tuple[ParametrizationKind, ...]
    widths: tuple[int, ...]
    """d_model; the least is the base model's."""
    depths: tuple[int, ...]
    """num_layers, each at every width; none: the model's own."""
    rates: tuple[float, ...]
    """Peak rates of the base model."""
    seeds: int
    """Runs of each."""

    def __post_init__(self) -> None:
        if len(set(self.widths)) * len(set(self.depths or (0,))) < 2:
            raise ValueError(
                f"widths={self.widths} and depths={self.depths} name one model, to which nothing can be carried over; "
                "give two widths or depths"
            )
        if len(set(self.rates)) < 3:
            raise ValueError(f"rates={self.rates} cannot hold a best one between two others; give three or more")
        if self.seeds < 1:
            raise ValueError(f"seeds={self.seeds} must be at least 1")
        if self.base.optim.lr != OptimConfig.lr:
            raise ValueError(f"lr={self.base.optim.lr:g} is what a sweep varies; leave it out, and give --rates")


def plan(sweep: Sweep, out: Path, *, train_tokens: int) -> list[Planned]:
    """Return the runs of a sweep, longest first, in the folder `out/runs`; makes nothing."""
    base = sweep.base
    depths = sorted(set(sweep.depths)) or [base.model.num_layers]
    widths = sorted(set(sweep.widths))
    least = replace(base.model, d_model=widths[0], num_layers=depths[0])
    planned = []
    for name, width, depth in product(dict.fromkeys(sweep.parametrizations), widths, depths):
        model = replace(least, d_model=width, num_layers=depth).carried_over(name, least)
        tokens = (
            train_steps(model, base.train, train_tokens=train_tokens) * base.train.batch_size * model.context_length
        )
        for rate, seed in product(sorted(set(sweep.rates)), range(sweep.seeds)):
            optim, train = replace(base.optim, lr=rate), replace(base.train, seed=base.train.seed + seed)
            config = replace(base, model=model, optim=optim, train=train)
            planned.append(Planned(out / "runs" / config.id, config, float(tokens * compute(model))))
    return sorted(planned, key=lambda run: -run.flops)
