"""What the gradient noise scale takes of a step, in CPU time within it, and how far its running average scatters.

python benchmarks/noise.py --data T
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from isoflop.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.data.tokens import open_configured
from isoflop.lm import noise, train
from isoflop.lm.run import Run, open_run
from isoflop.presets import preset

SHAPES: dict[str, tuple[ModelConfig, int]] = {
    "small, batch 32×64": (preset("small"), 32),
    "demo's widest, d72 L2, batch 8×64": (preset("small", d_model=72), 8),
    "d128 L4, batch 16×256": (ModelConfig(d_model=128, num_layers=4, context_length=256), 16),
    "d256 L6, batch 8×256": (ModelConfig(d_model=256, num_layers=6, context_length=256), 8),
}


def main() -> None:
    """Print the share of a step for each shape, and the scatter for the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--grad-accum", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"load {os.getloadavg()[0]:.1f}, one thread, bf16, grad_accum={args.grad_accum}")
    for name, (model, batch) in SHAPES.items():
        run = open_run(Path("nowhere"), config(args.data, model, batch, args.grad_accum))
        shares = [share(run, step) for step in range(args.rounds)]
        print(f"{name}: {statistics.median(shares):.2%} of a step (median of {args.rounds} steps)")
    scatter(open_run(Path("nowhere"), config(args.data, *SHAPES["small, batch 32×64"], args.grad_accum)))


def config(data: str, model: ModelConfig, batch: int, parts: int) -> RunConfig:
    """Return a run of this shape on these tokens."""
    source = DataConfig(data=data)
    tokens = open_configured(source, vocab_size=model.vocab_size)
    length = TrainConfig(steps=400, batch_size=batch, grad_accum=parts, precision="bf16")
    return RunConfig(model=model, data=source, optim=OptimConfig(), train=length, data_sha256=tokens.fingerprint)


def share(run: Run, step: int) -> float:
    """CPU seconds that a step spends on the noise scale, over those of the rest of the step."""
    began = time.process_time()
    train._step(run, step, *train._batch(run, step))
    whole = time.process_time() - began
    began = time.process_time()
    first = run.weights.own_square()
    train._measure_noise(replace_state(run), first, first)
    spent = time.process_time() - began
    return spent / (whole - spent)


def replace_state(run: Run) -> Run:
    """Return the run with averages of its own, so that timing does not move those of the run."""
    return replace(run, state=replace(run.state))


def scatter(run: Run) -> None:
    """Print how often single steps and running averages give no number, and the average's scatter."""
    single, averaged = list[float | None](), list[float | None]()
    for step in range(run.steps):
        before = run.state.grad_signal, run.state.grad_noise
        train._step(run, step, *train._batch(run, step))
        after = run.state.grad_signal, run.state.grad_noise
        single.append(noise.scale(*(b + (a - b) * noise.HORIZON for a, b in zip(after, before, strict=True))))
        averaged.append(noise.scale(*after))
    for name, values in (("single steps", single), (f"averages over {noise.HORIZON} steps", averaged)):
        known = [value for value in values[100:] if value is not None]
        spread = statistics.quantiles(known, n=10) if len(known) > 1 else [float("nan")]
        print(
            f"{name}: no number {1 - len(known) / len(values[100:]):.0%}; 10 to 90 % of the rest "
            f"{spread[0]:,.0f} to {spread[-1]:,.0f} tokens"
        )


if __name__ == "__main__":
    main()
