"""Stop runs at random moments in random ways, resume them, and compare them bit for bit with unbroken ones.

python benchmarks/resume.py --schedules 20 --out /tmp/resume
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from isoflop.cli.app import main as isoflop
from isoflop.config import DataConfig, OptimConfig, Precision, RunConfig, TrainConfig, write_run
from isoflop.data.build import Recipe, build
from isoflop.data.corpus import Corpus
from isoflop.data.tokens import open_tokens
from isoflop.lm import train  # so that forked commands need not import it, too
from isoflop.lm.checkpoint import load_required
from isoflop.presets import preset
from isoflop.record import Record

WAYS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGKILL)
TIMED = {"seconds", "tokens_per_second", "peak_memory_bytes"}
"""What a record measures of the machine, not of the run."""
FORK = multiprocessing.get_context("fork")
MODES: dict[str, Precision] = {"fp32": "fp32", "bf16": "bf16", "autocast": "autocast"}


@dataclass
class Outcome:
    """What became of the schedules of one mode."""

    schedules: int = 0
    stops: Counter[str] = field(default_factory=Counter)
    different: list[str] = field(default_factory=list)


def main() -> None:
    """Print, for each precision, how many resumed runs differ from the unbroken one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=20, help="of each precision")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--modes", nargs="+", choices=(*MODES, "compiled"), default=[*MODES, "compiled"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    texts = tuple(str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40])
    build(Recipe(corpus=Corpus(sources=texts)), args.out / "tokens", workers=1)
    chance = random.Random(args.seed)
    print(f"load {os.getloadavg()[0]:.1f}; {args.schedules} schedules of one to three stops for each precision")
    failed = False
    for mode in args.modes:
        began = time.monotonic()
        if mode == "compiled":
            failed |= not compiled(args.out, args.steps)
            continue
        outcome = measure(args.out, MODES[mode], schedules=args.schedules, steps=args.steps, chance=chance)
        ways = ", ".join(f"{count} {name}" for name, count in sorted(outcome.stops.items()))
        seconds = time.monotonic() - began
        equal = outcome.schedules - len(outcome.different)
        print(
            f"{mode}: {equal} of {outcome.schedules} equal bit for bit; stops: {ways}; {seconds:.0f} s",
            flush=True,
        )
        for told in outcome.different:
            print(f"  {told}")
        failed |= bool(outcome.different)
    sys.exit(failed)


def measure(out: Path, precision: Precision, *, schedules: int, steps: int, chance: random.Random) -> Outcome:
    """Train a run in peace, then as often as asked under fire, each in a folder of its own."""
    outcome = Outcome()
    whole = make(out / precision / "whole", out / "tokens", precision, steps)
    for _ in train_until_done(whole, []):
        pass
    for number in range(schedules):
        run = make(out / precision / f"{number}", out / "tokens", precision, steps)
        plan = [(chance.choice(WAYS), chance.uniform(0.02, 0.9)) for _ in range(chance.randint(1, 3))]
        plan.sort(key=lambda stop: stop[1])
        outcome.stops.update(way.name for way in train_until_done(run, plan))
        outcome.schedules += 1
        outcome.different += [f"{run}: {told}" for told in differences(whole, run)]
    return outcome


def compiled(out: Path, steps: int) -> bool:
    """Print how far torch's compiler moves the losses of a run.

    Three more runs are compiled: two in one go, and one that stops half-way and goes on; return whether these agree.
    """
    folders = [
        make(out / "compiled" / name, out / "tokens", "fp32", steps, name != "a") for name in ("a", "b", "c", "d")
    ]
    began = time.monotonic()
    for folder in folders[:3]:
        train.train(folder)
    asked = iter(range(steps))
    train.train(folders[3], should_stop=lambda: next(asked) == steps // 2)
    record = train.train(folders[3])
    if record is None or not record.measured["compiled"]:
        print("compiled: there is no compiler here")
        return False
    eager, once, again, resumed = ([line.get("train_loss", 0.0) for line in log(folder)] for folder in folders)
    moved = max(abs(a - b) for a, b in zip(eager, once, strict=True))
    twice, resumed_alike = not differences(folders[1], folders[2]), not differences(folders[1], folders[3])
    print(
        f"compiled (fp32): losses within {moved:.2g} nats of eager over {steps} steps; the same twice: "
        f"{once == again and twice}; stopped and resumed the same: {once == resumed and resumed_alike}; "
        f"{time.monotonic() - began:.0f} s"
    )
    return twice and resumed_alike


def make(out: Path, tokens: Path, precision: Precision, steps: int, compile_it: bool = False) -> Path:
    """Make a tiny run with everything that a resumed one could lose: dropout, accumulation, noise averages."""
    config = RunConfig(
        model=preset("small", context_length=16, d_model=16, residual_pdrop=0.1, attn_pdrop=0.1),
        data=DataConfig(data=str(tokens), val_tokens=1024),
        optim=OptimConfig(warmup_steps=10),
        train=TrainConfig(
            steps=steps,
            batch_size=4,
            grad_accum=2,
            precision=precision,
            compile=compile_it,
            checkpoint_every=13,
            eval_every=50,
        ),
        data_sha256=open_tokens(tokens).fingerprint,
    )
    return write_run(config, out)


def train_until_done(run: Path, plan: Sequence[tuple[signal.Signals, float]]) -> Iterator[signal.Signals]:
    """Train a run to its end, stopping it when it has come so far as the plan says; yield each stop that hit."""
    left = list(plan)
    while not (run / "record.json").exists():
        process = FORK.Process(target=command, args=(run,))
        process.start()
        assert process.pid is not None
        if left:
            way, part = left.pop(0)
            while process.is_alive() and progress(run) < part:
                time.sleep(0.002)
            if process.is_alive():
                os.kill(process.pid, way)
                yield way
        process.join()
        if process.exitcode not in (0, 130, *(-way for way in WAYS)):
            raise RuntimeError(f"{run} ended with code {process.exitcode}")


def command(run: Path) -> None:
    """Be `isoflop train RUN`, in a process that need not import torch first."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        code = isoflop(["train", str(run), "--json", "--threads", "1"])
    sys.exit(code)


def progress(run: Path) -> float:
    """Part of the run that its log has seen."""
    path = run / "log.jsonl"
    lines = path.read_bytes().splitlines() if path.exists() else []
    steps = json.loads((run / "config.json").read_text())["train"]["steps"]
    for line in reversed(lines):
        try:
            return float(json.loads(line)["step"]) / steps
        except ValueError:
            continue  # half a line: the run is writing it
    return 0.0


def differences(whole: Path, run: Path) -> list[str]:
    """Name what of a resumed run is not, bit for bit, as in the unbroken one."""
    out = []
    if log(run) != log(whole):
        out.append("losses in the log")
    if result(run) != result(whole):
        out.append("record")
    mine, theirs = load_required(run), load_required(whole)
    for file, tensors in theirs.tensors.items():
        names = [name for name, tensor in tensors.items() if not torch.equal(tensor, mine.tensors[file][name])]
        out += [f"{file}: {', '.join(names)}"] if names or set(tensors) != set(mine.tensors[file]) else []
    return out


def log(run: Path) -> list[dict[str, Any]]:
    """Return the log without its clock."""
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def result(run: Path) -> dict[str, Any]:
    """Return the record without what it measured of the machine."""
    plain = asdict(Record.read(run / "record.json"))
    plain["measured"] = {name: value for name, value in plain["measured"].items() if name not in TIMED}
    return plain


if __name__ == "__main__":
    main()
