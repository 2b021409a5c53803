"""A branch: a run that takes its first steps over from a trunk's checkpoint and decays to a length of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from isoflop.config import OptimConfig, RunConfig, Trunk
from isoflop.flops import train_steps
from isoflop.lm.schedule import BRANCHES, stable_steps, warmup_length


def parse_place(text: str) -> tuple[Path, int | None]:
    """Read DIR@STEP as folder and step, and DIR as the folder alone.

    Raises:
        ValueError: what follows the @ is no step.
    """
    folder, at, step = text.rpartition("@")
    if not at or Path(text).exists():
        return Path(text), None
    if not step.isdecimal():
        raise ValueError(
            f"{text!r} names no checkpoint; write the run's folder, @ and the step, such as runs/d48-l2@400"
        )
    return Path(folder), int(step)


def branch(
    config: RunConfig,
    step: int,
    *,
    tokens: int,
    train_tokens: int,
    folder: str,
    decay_fraction: float | None = None,
) -> RunConfig:
    """Return the run that leaves a trunk after `step` steps and has decayed when `tokens` tokens are trained.

    It is the warmup–stable–decay run of that length, whose first steps are there already (arXiv:2405.18392).

    Args:
        config: The trunk's.
        step: Steps taken over.
        tokens: Length of the whole, the trunk's part included.
        train_tokens: Training tokens of the data.
        folder: The trunk's folder, from the branch's.
        decay_fraction: Part of the whole in which the rate falls; None: all that is left.

    Raises:
        ValueError: the trunk's rate had begun to fall by then, or nothing is left to decay in.
    """
    optim = config.optim
    if optim.schedule not in BRANCHES:
        raise ValueError(
            f"schedule={optim.schedule} falls from the warm-up on, so that no branch can leave it; train a trunk with "
            f"--schedule {' or '.join(BRANCHES)}"
        )
    trunk_steps = train_steps(config.model, config.train, train_tokens=train_tokens)
    warmup, stable = warmup_length(optim, trunk_steps), stable_steps(optim, trunk_steps)
    if not warmup < step <= stable:
        raise ValueError(
            f"a branch cannot leave {config.id} at step {step}: its warm-up ends at step {warmup} and its rate falls "
            f"from step {stable} on; choose a step between"
        )
    train = replace(config.train, epochs=None, flops=None, steps=None, tokens=tokens, keep_steps=())
    steps = train_steps(config.model, train, train_tokens=train_tokens)
    if steps <= step:
        raise ValueError(
            f"{tokens:,} tokens are {steps} steps, and step {step} is past them; give more to --decay-to, or an "
            "earlier step"
        )
    if decay_fraction is None:
        # half a step before the first that decays, so that rounding cannot move it
        decay_fraction = (steps - step + 0.5) / (steps - warmup)
    decayed = replace(
        optim,
        schedule=BRANCHES[optim.schedule],
        warmup_steps=warmup,
        warmup_fraction=0.0,
        decay_fraction=decay_fraction,
    )
    _same_start(config, decayed, steps, step, warmup)
    return replace(config, optim=decayed, train=train, trunk=Trunk(run=config.id, step=step, folder=folder))


def _same_start(config: RunConfig, decayed: OptimConfig, steps: int, step: int, warmup: int) -> None:
    """Make sure that a run of the branch's length would have done the trunk's steps as the trunk did."""
    if warmup_length(decayed, steps) != warmup:
        raise ValueError(
            f"the warm-up of {config.id}, {warmup} steps, is more than a quarter of a branch of {steps}; give at least "
            f"{4 * warmup * config.train.batch_size * config.model.context_length:,} tokens to --decay-to"
        )
    if stable_steps(decayed, steps) < step:
        raise ValueError(
            f"decay_fraction={decayed.decay_fraction:g} of {steps} steps begins at step "
            f"{stable_steps(decayed, steps)}, before step {step} of the trunk; give an earlier step"
        )
