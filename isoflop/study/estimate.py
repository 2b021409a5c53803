"""What a study will cost on this machine, from runs of a second each, before anything is trained."""

from __future__ import annotations

import heapq
import json
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from isoflop.config import RunConfig, write_run
from isoflop.flops import compute, train_steps
from isoflop.record import Record
from isoflop.study.drive import Planned
from isoflop.study.launch import EXECUTORS
from isoflop.study.launch.event import Event
from isoflop.study.study import Study

SHAPES = 8
"""Shapes measured at most; the others lie between them and are interpolated in ln N."""
TRIAL_FLOPS = 2e10
"""FLOPs of a trial: about a second of one core, of whose 1e11 to 2e11 a second small models use a fifth to a third."""
TRIAL_STEPS = (8, 400)
"""Fewest and most steps of a trial."""
MOST_REPEATS = 4.0
"""Up to four epochs are nearly as good as fresh tokens (arXiv:2305.16264)."""
FAR = 8.0
"""Runs farther than this factor from the optimum say little of where it lies (SCIENCE: planning)."""
INTERIM = 9 / 16
"""Nine evaluations along the way use a sixteenth of the validation tokens each (`isoflop.lm.train`)."""
TRIAL_VAL_TOKENS = 4096
"""Validation tokens of a trial; the real evaluation is reckoned as FORWARD of a step for each of its tokens."""
FORWARD = 1 / 3
"""The forward pass is a third of a step's FLOPs."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """What one worker needs for a shape while the other workers are busy."""

    params: float
    """N, compute count."""
    step: float
    """Seconds of an optimizer step."""
    rest: float
    """Seconds of a run beside its steps and evaluations: start, checkpoint, record."""
    memory: float
    """Resident memory of the worker, bytes."""


@dataclass(frozen=True, kw_only=True)
class Priced:
    """A run of a study before it is trained."""

    planned: Planned
    params: float
    """N, compute count."""
    tokens: float
    """D."""
    steps: int
    epochs: float
    """Passes over the training tokens."""
    memory: float | None
    """Resident memory of its worker, bytes; None: not measured."""
    seconds: float | None
    """On one worker while the others are busy; None: not measured."""
    warnings: tuple[str, ...]


def price(planned: Sequence[Planned], speeds: Sequence[Speed], study: Study, *, train_tokens: int) -> list[Priced]:
    """Say of every run what it is, what it will take, and what is doubtful about it."""
    out = []
    for run in planned:
        config = run.config
        steps = train_steps(config.model, config.train, train_tokens=train_tokens)
        tokens = steps * config.train.batch_size * config.model.context_length
        epochs = tokens / (config.data.train_tokens or train_tokens)
        params = compute(config.model) / 6
        speed = _between(speeds, params)
        out.append(
            Priced(
                planned=run,
                params=params,
                tokens=tokens,
                steps=steps,
                epochs=epochs,
                memory=None if speed is None else speed.memory,
                seconds=None if speed is None else _seconds(config, speed, steps - config.first_step),
                warnings=tuple(_warnings(run, study, params=params, steps=steps, tokens=tokens, epochs=epochs)),
            )
        )
    return out


def _seconds(config: RunConfig, speed: Speed, steps: int) -> float:
    per_step = config.train.batch_size * config.model.context_length
    interim = config.train.eval_every is None or config.train.eval_every < steps
    validation = config.data.val_tokens * (1 + INTERIM * interim) / per_step
    return speed.step * (steps + FORWARD * validation) + speed.rest


def _warnings(run: Planned, study: Study, *, params: float, steps: int, tokens: float, epochs: float) -> list[str]:
    out = []
    if epochs > MOST_REPEATS:
        out.append(f"repeats the data {epochs:.1f} times; beyond {MOST_REPEATS:.0f} a token is worth less each time")
    if steps < 4 * run.config.optim.warmup_steps:
        out.append(
            f"{steps} steps leave less than {run.config.optim.warmup_steps} for the warm-up; use smaller batches"
        )
    away = math.sqrt(params / tokens * study.tokens_per_param)  # of √(C / 6r) at C = 6ND
    if not 1 / FAR <= away <= FAR:
        out.append(f"N is {away:.2g} times the guessed optimum of its budget, and beyond ×/÷ {FAR:.0f} it says little")
    return out


def _between(speeds: Sequence[Speed], params: float) -> Speed | None:
    """Interpolate in ln N; beyond the measured shapes a step costs in proportion to N."""
    if not speeds:
        return None
    known = sorted(speeds, key=lambda speed: speed.params)
    if not known[0].params < params < known[-1].params:
        nearest = known[0] if params <= known[0].params else known[-1]
        scale = params / nearest.params
        return replace(nearest, params=params, step=nearest.step * scale, rest=nearest.rest * max(1.0, scale))
    above = next(i for i, speed in enumerate(known) if speed.params >= params)
    low, high = known[above - 1], known[above]
    part = math.log(params / low.params) / math.log(high.params / low.params)

    def at(name: str) -> float:
        ends = math.log(getattr(low, name)), math.log(getattr(high, name))
        return math.exp(ends[0] + part * (ends[1] - ends[0]))

    return Speed(params=params, step=at("step"), rest=at("rest"), memory=at("memory"))


def measure(planned: Sequence[Planned], *, workers: int | None, limit: float) -> list[Speed]:
    """Train runs of a second for up to `SHAPES` shapes, as many at once as the study will, and time them.

    Args:
        planned: The runs that will be trained.
        workers: Processes; None: one a core.
        limit: Seconds after which the measurement stops with the shapes that it has.
    """
    with tempfile.TemporaryDirectory(prefix="isoflop-") as scratch:
        folders = [write_run(_trial(config), Path(scratch)) for config in _shapes(planned)]
        began, started, ended = time.monotonic(), dict[Path, float](), dict[Path, float]()

        def watch(event: Event) -> None:
            nonlocal began
            now = time.monotonic()
            if not started:
                began = now  # the workers have imported torch
            if event.kind == "started":
                started[event.run] = now
            elif event.kind == "done":
                ended[event.run] = now
            if now - began > limit:
                raise KeyboardInterrupt

        try:
            EXECUTORS["local"](folders, workers=workers, patience=limit, on_event=watch)
        except KeyboardInterrupt:
            if time.monotonic() - began <= limit:
                raise  # somebody else's
        return [_speed(folder, ended[folder] - started[folder]) for folder in folders if folder in ended]


def _shapes(planned: Sequence[Planned]) -> list[RunConfig]:
    """One run of each shape, evenly chosen, the smallest first: a worker's memory then only grows."""
    every = {run.config.model: run.config for run in planned}
    shapes = sorted(every.values(), key=lambda config: compute(config.model))
    if len(shapes) <= SHAPES:
        return shapes
    return [shapes[round(i * (len(shapes) - 1) / (SHAPES - 1))] for i in range(SHAPES)]


def _trial(config: RunConfig) -> RunConfig:
    per_step = compute(config.model) * config.model.context_length * config.train.batch_size
    fewest, most = TRIAL_STEPS
    steps = min(most, max(fewest, round(TRIAL_FLOPS / per_step)))
    train = replace(config.train, flops=None, tokens=None, epochs=None, steps=steps, keep_steps=())
    # no evaluation or checkpoint on the way, and lines of the log in which to find the steady speed
    train = replace(train, eval_every=steps + 1, checkpoint_every=steps + 1, log_every=max(1, steps // 8))
    return replace(config, train=train, trunk=None, data=replace(config.data, val_tokens=TRIAL_VAL_TOKENS))


def _speed(folder: Path, wall: float) -> Speed:
    record = Record.read(folder / "record.json")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    marks = [(line["step"], line["seconds"]) for line in lines if "train_loss" in line]
    steady = marks[len(marks) // 4 :]  # the first steps fill caches
    step = (steady[-1][1] - steady[0][1]) / (steady[-1][0] - steady[0][0])
    evaluation = FORWARD * step * record.measured["val_tokens"] / (record.tokens / record.measured["steps"])
    return Speed(
        params=record.params["compute"],
        step=step,
        rest=max(wall - record.measured["seconds"] - evaluation, 1e-3),
        memory=record.measured["peak_memory_bytes"],
    )


def wall_seconds(priced: Sequence[Priced], *, workers: int) -> float | None:
    """Seconds until the last run ends, the longest handed out first; None where a run was not measured."""
    slots = [0.0] * max(1, min(workers, len(priced)))
    for run in sorted(priced, key=lambda run: -run.planned.flops):
        if run.seconds is None:
            return None
        heapq.heappush(slots, heapq.heappop(slots) + run.seconds)
    return max(slots)


def to_row(run: Priced) -> Mapping[str, object]:
    """Plain values of a run, for JSON."""
    return {
        "id": run.planned.config.id,
        "d_model": run.planned.config.model.d_model,
        "num_layers": run.planned.config.model.num_layers,
        "params": run.params,
        "tokens": run.tokens,
        "flops": run.planned.flops,
        "steps": run.steps,
        "tokens_per_param": run.tokens / run.params,
        "epochs": run.epochs,
        "memory_bytes": run.memory,
        "seconds": run.seconds,
        "warnings": list(run.warnings),
    }
