"""Learning-rate multipliers as pure functions of the step: the fraction of the peak rate that step `step` uses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

from isoflop.config import OptimConfig, ScheduleKind


class Place(NamedTuple):
    """Where a step past the warm-up stands in its run."""

    step: int
    """From 0."""
    warmup: int
    """Steps of warm-up."""
    steps: int
    """Of the whole run."""

    @property
    def progress(self) -> float:
        """Part of the run after the warm-up that is done, from 0 to 1."""
        return (self.step - self.warmup) / max(1, self.steps - self.warmup)


def warmup_length(optim: OptimConfig, steps: int) -> int:
    """Steps of linear warm-up: the longer of the two that the config asks for, never more than a quarter of the run."""
    return min(max(optim.warmup_steps, round(optim.warmup_fraction * steps)), steps // 4)


def cosine(place: Place, optim: OptimConfig) -> float:
    """½(1 + cos π·progress), from 1 down to final_lr_fraction (arXiv:1608.03983)."""
    return optim.final_lr_fraction + (1 - optim.final_lr_fraction) * (1 + math.cos(math.pi * place.progress)) / 2


def linear(place: Place, optim: OptimConfig) -> float:
    """A straight line from 1 down to final_lr_fraction."""
    return 1 - (1 - optim.final_lr_fraction) * place.progress


def constant(place: Place, optim: OptimConfig) -> float:
    """1 throughout."""
    return 1.0


def wsd(place: Place, optim: OptimConfig) -> float:
    """1 − √x over the last decay_fraction of the run, 1 before (warmup–stable–decay, arXiv:2405.18392)."""
    start = 1 - optim.decay_fraction
    if place.progress <= start:
        return 1.0
    return 1 - (1 - optim.final_lr_fraction) * math.sqrt((place.progress - start) / optim.decay_fraction)


def power(place: Place, optim: OptimConfig) -> float:
    """(step / warm-up)^-power, which knows no end, until the decay of `wsd` (arXiv:2408.13359, eq. 8)."""
    last = min(place.step, stable_steps(optim, place.steps) - 1)
    reached: float = max(1.0, last / max(1, place.warmup)) ** -optim.power
    return reached * wsd(place, optim)


def stable_steps(optim: OptimConfig, steps: int) -> int:
    """Steps of a run before its decay: what branches of other lengths share with it.

    Schedules cosine and linear decay from the warm-up on.
    """
    warmup = warmup_length(optim, steps)
    if optim.schedule not in BRANCHES:
        return warmup
    if optim.schedule == "constant":
        return steps
    start = 1 - optim.decay_fraction
    stable = int(warmup + start * (steps - warmup))
    # the product's rounding must not move the step: ask as the schedule does
    while stable < steps and Place(stable, warmup, steps).progress <= start:
        stable += 1
    return stable


def multiplier(step: int, *, steps: int, optim: OptimConfig) -> float:
    """Rate of step `step` of 0 … steps − 1 over the peak rate: linear warm-up, then the schedule.

    The warm-up starts at 1/warmup, not 0, so that no step is spent on a zero rate; the last step still moves a little.
    """
    warmup = warmup_length(optim, steps)
    if step < warmup:
        return (step + 1) / warmup
    return SCHEDULES[optim.schedule](Place(step, warmup, steps), optim)


SCHEDULES: Mapping[str, Callable[[Place, OptimConfig], float]] = {
    "cosine": cosine,
    "linear": linear,
    "constant": constant,
    "wsd": wsd,
    "power": power,
}
"""From the end of the warm-up on."""
BRANCHES: Mapping[ScheduleKind, ScheduleKind] = {"constant": "wsd", "wsd": "wsd", "power": "power"}
"""Schedules whose rate before the decay does not know the length of the run, and how a branch goes on from each."""
