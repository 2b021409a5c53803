"""The coordinate check: do activations keep their size as a model grows, while a few steps of training move them?"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from isoflop.architecture import BASES, ParametrizationKind
from isoflop.config import RunConfig, write_run
from isoflop.law.transfer import Axis, Coordinates
from isoflop.lm.model import linear
from isoflop.lm.optim import SGD_UNBOUND, bounded_sgd
from isoflop.lm.run import Run
from isoflop.lm.train import train
from isoflop.record import Floats

LOGITS, LAST = "logits", "last block"
Task = tuple[ParametrizationKind, Axis, tuple[int, ...]]
"""A parametrization, what grows, and the sizes of that."""


def tasks(parametrizations: Sequence[ParametrizationKind], widths: Sequence[int], depths: Sequence[int]) -> list[Task]:
    """Return what a check measures: each parametrization along the axes that it takes care of, the control along all.

    One depth alone is not measured.
    """
    names: list[ParametrizationKind] = list(dict.fromkeys(("standard", *parametrizations)))
    out: list[Task] = [(name, "width", tuple(widths)) for name in names]
    deep: list[ParametrizationKind] = [name for name in names if "base_depth" in BASES[name]]
    return out + [(name, "depth", tuple(depths)) for name in ("standard", *deep) if deep and len(depths) > 1]


def measure(
    base: RunConfig,
    parametrization: ParametrizationKind,
    axis: Axis,
    sizes: Sequence[int],
    *,
    seeds: int = 3,
    on_run: Callable[[], None] = lambda: None,
) -> Coordinates:
    """Train every size for the base's steps on every seed, and note how large its activations are on the way.

    Steps that a run does not reach because it diverges are left out of all.

    Args:
        base: A run of the model that rates are carried over from; a large constant rate shows most.
        parametrization: How they are.
        axis: What grows.
        sizes: d_model or num_layers, the base model's first.
        seeds: Runs of each size.
        on_run: Called after each run.

    Raises:
        ValueError: there are fewer than two sizes, SGD with a bound on the gradient, or a model that overflows before
            it is trained.
    """
    if bounded_sgd(base.optim):
        raise ValueError(f"grad_clip={base.optim.grad_clip:g}: {SGD_UNBOUND}")
    if len(set(sizes)) < 2:
        raise ValueError(
            f"{axis}s={tuple(sizes)} names one size, but a slope needs two; give several, over a factor 16"
        )
    measured = []
    for size in sizes:
        shape = replace(base.model, d_model=size) if axis == "width" else replace(base.model, num_layers=size)
        model, runs = shape.carried_over(parametrization, base.model), []
        for seed in range(seeds):
            runs.append(_activations(replace(base, model=model, train=replace(base.train, seed=seed))))
            on_run()
        measured.append(runs)
    lasted = min(len(run) for runs in measured for run in runs)
    if lasted == 0:
        raise ValueError("activations overflow before the first update; give smaller standard deviations or alpha_in")
    every = tuple(place for place in measured[0][0][0] if place != LAST)
    places = every if axis == "width" else (LAST, LOGITS)
    values = [[[[step[place] for place in places] for step in run[:lasted]] for run in runs] for runs in measured]
    means: Floats = np.exp(np.log(np.array(values)).mean(axis=1))
    return Coordinates(parametrization=parametrization, axis=axis, sizes=tuple(sizes), places=places, activations=means)


def _activations(config: RunConfig) -> list[dict[str, float]]:
    """Train a run in a folder that vanishes; mean |activation| by place in the forward pass of each of its steps."""
    steps: list[dict[str, float]] = []

    def watch(run: Run) -> None:
        model = run.model

        def note(place: str, first: bool, module: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
            if not module.training:
                return
            if first:
                steps.append({})
            steps[-1][place] = steps[-1][LAST] = float(out.detach().abs().mean())

        def note_logits(module: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> None:
            if module.training:
                with torch.no_grad():
                    logits = linear(out * model.factors.logits, model.readout)
                steps[-1][LOGITS] = float(logits.abs().mean())

        for number, block in enumerate(model.blocks):
            block.register_forward_hook(partial(note, f"block {number + 1}", number == 0))
        model.final_norm.register_forward_hook(note_logits)

    with tempfile.TemporaryDirectory(prefix="isoflop-") as scratch:
        train(write_run(config, Path(scratch)), on_start=watch)
    sound = [all(0 < size < math.inf for size in step.values()) for step in steps]
    return steps[: sound.index(False)] if False in sound else steps
