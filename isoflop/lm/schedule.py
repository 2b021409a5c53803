"""Learning-rate multipliers as pure functions of the step: the fraction of the peak rate that step `step` uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from isoflop.config import OptimConfig


def warmup_length(optim: OptimConfig, steps: int) -> int:
    """Steps of linear warm-up: the longer of the two that the config asks for, never more than a quarter of the run."""
    return min(max(optim.warmup_steps, round(optim.warmup_fraction * steps)), steps // 4)


def cosine(progress: float, optim: OptimConfig) -> float:
    """½(1 + cos π·progress), from 1 down to final_lr_fraction (arXiv:1608.03983)."""
    return optim.final_lr_fraction + (1 - optim.final_lr_fraction) * (1 + math.cos(math.pi * progress)) / 2


def linear(progress: float, optim: OptimConfig) -> float:
    """A straight line from 1 down to final_lr_fraction."""
    return 1 - (1 - optim.final_lr_fraction) * progress


def constant(progress: float, optim: OptimConfig) -> float:
    """1 throughout."""
    return 1.0


def wsd(progress: float, optim: OptimConfig) -> float:
    """1 − √x over the last decay_fraction of the run, 1 before (warmup–stable–decay, arXiv:2405.18392)."""
    start = 1 - optim.decay_fraction
    if progress <= start:
        return 1.0
    return 1 - (1 - optim.final_lr_fraction) * math.sqrt((progress - start) / optim.decay_fraction)


def multiplier(step: int, *, steps: int, optim: OptimConfig) -> float:
    """Rate of step `step` of 0 … steps − 1 over the peak rate: linear warm-up, then the schedule.

    The warm-up starts at 1/warmup, not 0, so that no step is spent on a zero rate; the last step still moves a little.
    """
    warmup = warmup_length(optim, steps)
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[optim.schedule]((step - warmup) / max(1, steps - warmup), optim)


SCHEDULES: Mapping[str, Callable[[float, OptimConfig], float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "wsd": wsd,
}
"""Functions of the progress after the warm-up, from 0 to 1."""
