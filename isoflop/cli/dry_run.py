"""`isoflop train --dry-run`."""

from __future__ import annotations

import json as json_module
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.config import RunConfig

if TYPE_CHECKING:
    from isoflop.flops import ParamCounts
    from isoflop.lm.train import Rehearsal

TRIAL_SECONDS = 5.0
"""Length of the trial."""
HELD = 16
"""Bytes a parameter at the least: fp32 weight, gradient, and two moments."""
AMPLE = 8e9
"""Bytes of peak memory, a small machine's, above which the flags that save some are named."""
EVALUATIONS = 1 + 9 / 16
"""Of the validation tokens: all once, and nine times one in sixteen on the way (`isoflop.lm.train`)."""
CHECKPOINTS = 5
"""In a run shorter than two epochs (`isoflop.config.TrainConfig.checkpoint_every`)."""


def show(config: RunConfig, *, out: str | None, json: bool) -> None:
    """Say what a run is and what it will take here, from a short trial; write nothing."""
    import psutil

    from isoflop.flops import compute, count_params, train_steps
    from isoflop.lm.run import open_data
    from isoflop.lm.train import rehearse

    tokens = open_data(config)
    train_tokens = tokens.train_tokens
    steps = train_steps(config.model, config.train, train_tokens=train_tokens)
    per_step = config.train.batch_size * config.model.context_length
    params, free = count_params(config.model), psutil.virtual_memory().available
    fits = HELD * params.total < free
    tried = rehearse(config, seconds=TRIAL_SECONDS) if fits else None
    told: dict[str, Any] = {
        "id": config.id,
        "params": asdict(params),
        "steps": steps,
        "tokens": steps * per_step,
        "epochs": steps * per_step / train_tokens,
        "flops": steps * per_step * compute(config.model),
        "own_steps": steps - config.first_step,
        "tokens_per_second": tried and per_step / tried.step_seconds,
        "training_seconds": tried and (steps - config.first_step) * tried.step_seconds,
        "seconds": tried and _seconds(config, steps, tried, min(config.data.val_tokens, len(tokens.val))),
        "memory_bytes": tried and tried.memory_bytes,
    }
    if json:
        print(json_module.dumps(told))
        return
    print(f"{config.id}: {_counts(params)}")
    print(
        f"N {compute(config.model) / 6:.4g} (compute count) · D {told['tokens']:.4g} tokens, {told['epochs']:.3g} "
        f"epochs · C {told['flops']:.4g} FLOPs · {_steps(told, per_step)}"
    )
    if tried is None:
        print(f"needs more than {HELD * params.total / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: not tried")
    else:
        print(
            f"about {_time(told['seconds'])} here: {_time(told['training_seconds'])} of training at "
            f"{told['tokens_per_second']:,.0f} tokens a second, the rest evaluation and checkpoints · peak memory "
            f"{tried.memory_bytes / 1e9:.2f} GB{'' if config.train.devices == 1 else ', on one device'}"
        )
        if tried.memory_bytes > AMPLE and (flags := _savers(config)):
            print(f"less memory: {' or '.join(flags)}")
    where = "" if out is None else f"; without --dry-run this trains {Path(out) / config.id}"
    print(f"nothing was written{where}")


def _savers(config: RunConfig) -> list[str]:
    """Flags not yet given that hold fewer activations at a time."""
    train = config.train
    parts = [n for n in range(train.grad_accum + 1, 4 * train.grad_accum + 1) if train.batch_size % n == 0]
    flags = [f"--grad-accum {parts[-1]}"] if parts else []
    return flags if train.recompute else [*flags, "--recompute"]


def _counts(params: ParamCounts) -> str:
    kinds = {name: count for name, count in asdict(params).items() if name != "total" and count}
    if sum(kinds.values()) != params.total:
        kinds.pop("head")  # the embedding's numbers once more
    return f"{params.total:,} parameters ({', '.join(f'{name} {count:,}' for name, count in kinds.items())})"


def _steps(told: dict[str, Any], per_step: int) -> str:
    own = "" if told["own_steps"] == told["steps"] else f", {told['own_steps']:,} of them here"
    return f"{told['steps']:,} steps of {per_step:,} tokens{own}"


def _seconds(config: RunConfig, steps: int, tried: Rehearsal, val_tokens: int) -> float:
    own = steps - config.first_step
    evaluations = EVALUATIONS if (config.train.eval_every or 1) < steps else 1
    saves = own / config.train.checkpoint_every if config.train.checkpoint_every else CHECKPOINTS
    evaluated = val_tokens * evaluations * tried.evaluation_seconds
    return own * tried.step_seconds + evaluated + saves * tried.save_seconds


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
