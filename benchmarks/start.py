"""What a run costs before its first step, and beside its training.

python benchmarks/start.py --rounds 9 --out /tmp/start
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from isoflop.data.build import Recipe, build
from isoflop.data.corpus import Corpus

# shapes of ENGINEERING.md's table of speeds: vocabulary, context, width, layers, batch
SHAPES = {"S0": (1024, 128, 64, 4, 16), "S1": (4096, 256, 128, 4, 16), "S2": (8192, 256, 256, 6, 8)}
RAW_TOKENS = 100_000
IMPORT = "import os, signal, torch; os.kill(os.getpid(), signal.SIGKILL)"


class Cost(NamedTuple):
    """What a process took."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds, of all its threads."""


def main() -> None:
    """Print the three parts: to the first step, beside the training, from the model's construction to a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=SHAPES, help="used by the script itself")
    args = parser.parse_args()
    if args.shape:
        print(json.dumps(first_step(args.out, args.shape)))
        return
    build(Recipe(corpus=Corpus(sources=("stdlib",), max_bytes=5_000_000)), args.out / "tokens")
    # as in an installed package: everything is compiled to bytecode, by a run that is not timed
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str((args.out / "bytecode").absolute())
    ended(run_command(args.out, "--steps", "1"))
    first_steps(args.out, args.rounds)
    beside(args.out, args.rounds)
    for name in SHAPES:
        command = [sys.executable, __file__, "--out", str(args.out), "--shape", name]
        seconds = [float(json.loads(subprocess.check_output(command))) for _ in range(args.rounds)]
        print(f"{name}: {statistics.median(seconds):.3f} s from before the model is made to the end of its first step")


def run_command(out: Path, *flags: str) -> list[str]:
    """Return the command that trains a run of the preset `small` in a folder of its own."""
    where = ["--data", str(out / "tokens"), "--out", str(out / "runs")]
    return [sys.executable, "-m", "isoflop", "train", "--preset", "small", *where, *flags]


def first_steps(out: Path, rounds: int) -> None:
    """Alternate `import torch` and a run until its log has a line; both are killed there, so that no exit is timed."""
    imports, runs = list[Cost](), list[Cost]()
    for _ in range(rounds):
        imports.append(ended([sys.executable, "-c", IMPORT]))
        shutil.rmtree(out / "runs", ignore_errors=True)
        runs.append(stepped(run_command(out, "--steps", "1000", "--log_every", "1"), out / "runs"))
    for name in Cost._fields:
        torch, run = (statistics.median(getattr(cost, name) for cost in costs) for costs in (imports, runs))
        ratios = [getattr(r, name) / getattr(t, name) for r, t in zip(runs, imports, strict=True)]
        print(
            f"{name}: import torch {torch:.2f} s, isoflop train to its first step {run:.2f} s; ratio "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), load {os.getloadavg()[0]:.1f}"
        )


def ended(command: Sequence[str]) -> Cost:
    """Run a command to its end."""
    began = time.perf_counter()
    return reaped(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL), began)


def stepped(command: Sequence[str], runs: Path) -> Cost:
    """Run a command until a log below `runs` has a line, and kill it there."""
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not any(log.stat().st_size for log in runs.glob("*/log.jsonl")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    return reaped(process, began)


def reaped(process: subprocess.Popen[bytes], began: float) -> Cost:
    """Wait for a process and return what it took."""
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"{process.args} ended with code {process.returncode}")
    return Cost(wall, used.ru_utime + used.ru_stime)


def beside(out: Path, rounds: int) -> None:
    """Time whole runs of ten steps, with all evaluations, figures and the record, less the seconds of their steps."""
    extra = list[Cost]()
    for number in range(rounds):
        shutil.rmtree(out / "runs", ignore_errors=True)
        cost = ended(run_command(out, "--steps", "10", "--seed", str(number)))
        (record,) = (out / "runs").glob("*/record.json")
        steps = json.loads(record.read_text())["measured"]["seconds"]
        torch = ended([sys.executable, "-c", IMPORT])
        extra.append(Cost(cost.wall - steps - torch.wall, cost.cpu - torch.cpu))
    wall, cpu = (statistics.median(values) for values in zip(*extra, strict=True))
    print(
        f"a run of ten steps takes {wall:.2f} s beside its steps and the import of torch, {cpu:.2f} CPU s with its "
        f"steps (evaluations of 262,144 tokens and nine of a sixteenth, figures, record), load {os.getloadavg()[0]:.1f}"
    )


def first_step(out: Path, shape: str) -> float:
    """Return the seconds from before a run is opened, its model not yet made, to the end of its first step."""
    from isoflop.cli.train import place
    from isoflop.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig, write_run
    from isoflop.data.tokens import open_configured

    place(None)
    vocab, context, width, layers, batch = SHAPES[shape]
    raw = out / f"{shape}.bin"
    np.random.default_rng(0).integers(0, vocab, RAW_TOKENS, dtype=np.int32).tofile(raw)
    model = ModelConfig(
        vocab_size=vocab, context_length=context, d_model=width, num_layers=layers, num_heads=width // 64
    )
    data = DataConfig(data=str(raw))
    config = RunConfig(
        model=model,
        data=data,
        optim=OptimConfig(),
        train=TrainConfig(steps=1000, batch_size=batch, precision="bf16"),  # so many that none is followed by more
        data_sha256=open_configured(data, vocab_size=vocab).fingerprint,
    )
    shutil.rmtree(out / shape, ignore_errors=True)
    from isoflop.lm.train import train  # after the threads were placed

    asked = list[float]()

    def after_a_step() -> bool:
        asked.append(time.perf_counter())
        return len(asked) > 1

    folder = write_run(config, out / shape)
    began = time.perf_counter()
    train(folder, should_stop=after_a_step)
    return asked[1] - began


if __name__ == "__main__":
    main()
