"""What a run of a study costs beside its training: many runs of a few steps, on warm workers.

python benchmarks/launch.py --runs 200 --steps 10 --out /tmp/launch
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sysconfig
import time
from dataclasses import replace
from pathlib import Path

from isoflop.config import DataConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.data.build import Recipe, build
from isoflop.data.corpus import Corpus
from isoflop.data.tokens import open_tokens
from isoflop.presets import preset
from isoflop.study import drive
from isoflop.study.launch import EXECUTORS
from isoflop.study.launch.event import Event


def main() -> None:
    """Train the runs, and print what each cost of a worker's time beyond its steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--val_tokens", type=int, default=16_384)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--executor", choices=tuple(EXECUTORS), default="local")
    parser.add_argument("--out", type=Path, required=True, help="folder that does not exist yet")
    args = parser.parse_args()
    args.out.mkdir(parents=True)
    texts = tuple(str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40])
    build(Recipe(corpus=Corpus(sources=texts)), args.out / "tokens", workers=1)
    base = RunConfig(
        model=preset("small", context_length=64, d_model=32),
        data=DataConfig(data=str(args.out / "tokens"), val_tokens=args.val_tokens),
        optim=OptimConfig(),
        train=TrainConfig(steps=args.steps, batch_size=8),
        data_sha256=open_tokens(args.out / "tokens").fingerprint,
    )
    configs = [replace(base, train=replace(base.train, seed=seed)) for seed in range(args.runs)]
    planned = [drive.Planned(args.out / "runs" / config.id, config, 0.0) for config in configs]
    first: list[float] = []

    def hear(event: Event) -> None:
        first.append(time.monotonic())

    began = time.monotonic()
    lost = drive.drive(planned, executor=args.executor, workers=args.workers, on_event=hear)
    ended = time.monotonic()
    records = [run.record for run in planned]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    steps = sum(record.measured["seconds"] for record in records if record)
    complete = sum(record is not None and record.status == "complete" for record in records)
    told = {
        "runs": args.runs,
        "complete": complete,
        "lost": len(lost),
        "wall_seconds": ended - began,
        "seconds_to_first_run": first[0] - began,
        "training_seconds_per_run": steps / args.runs,
        "seconds_per_run_beyond_training": (args.workers * (ended - first[0]) - steps) / args.runs,
        # all of a run and its share of the workers' start: what a busy machine does not change
        "cpu_seconds_per_run": (used.ru_utime + used.ru_stime) / args.runs,
        "load": os.getloadavg()[0],
    }
    print(json.dumps({name: round(value, 4) for name, value in told.items()}))


if __name__ == "__main__":
    main()
