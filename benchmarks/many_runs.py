"""Seconds of `isoflop study status` and `isoflop fit` on a study of many finished runs, and its size on the disk.

python benchmarks/many_runs.py --out /tmp/many     10,000 runs, made once and kept there; the commands three times each

Nothing is trained: each run's folder has its configuration, its record and a log as long as a run of a thousand steps
writes, with losses of a known law and a noise of 0.5 %.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import sysconfig
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from isoflop.config import DataConfig, TrainConfig
from isoflop.data.build import Recipe, build
from isoflop.data.corpus import Corpus
from isoflop.files import write_json
from isoflop.flops import compute, params_by_convention
from isoflop.presets import preset
from isoflop.record import Record
from isoflop.study import drive
from isoflop.study.study import Study

BARE = ("--bootstrap", "0", "--json")
"""A fit alone: how long the draws of the intervals take depends on the runs, and a bar shows it."""
STEPS = 1000
"""Lines of a run's log."""


def main() -> None:
    """Make the study where it is not yet, then time the commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3, help="of each command, after a first")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    folder = args.out / "study"
    if not (args.out / "made").exists():
        make(folder, args.out / "tokens", args.runs)
        (args.out / "made").touch()
    held = sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())
    print(f"{len(list((folder / 'runs').iterdir())):,} runs, {held / 1e6:.0f} MB on the disk")
    for words in (("study", "status", str(folder)), ("fit", str(folder), *BARE)):
        walls = [timed(words) for _ in range(args.rounds + 1)]
        said = ", ".join(f"{wall:.2f}" for wall in walls[1:])
        name = " ".join(words).replace(str(folder), "STUDY")
        print(f"isoflop {name}: first {walls[0]:.2f} s, then {statistics.median(walls[1:]):.2f} s ({said})")


def make(folder: Path, tokens: Path, runs: int) -> None:
    """Lay down a grid of `runs` finished runs."""
    texts = tuple(str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40])
    build(Recipe(corpus=Corpus(sources=texts)), tokens, workers=1)
    side = round(runs**0.5)
    study = Study(
        design="grid",
        widths=tuple(range(16, 16 + 4 * side, 4)),
        lengths=tuple(1e6 * 1.03**k for k in range(runs // side)),
        model=preset("small"),
        data=DataConfig(data=str(tokens)),
        train=TrainConfig(batch_size=8),
    )
    drive.settle(study, folder)
    noise = np.random.default_rng(0).normal(0, 0.005, runs)
    for run, chance in zip(drive.plan(study, folder), noise, strict=True):
        run.folder.mkdir(parents=True, exist_ok=True)
        write_json(run.folder / "config.json", run.config.to_dict())
        N, D = compute(run.config.model) / 6, float(run.config.train.tokens or 0)
        loss = float((1.2 + 40 * N**-0.35 + 200 * D**-0.36) * np.exp(chance))
        lines = [
            {"step": step, "tokens": 512 * step, "loss": loss, "lr": 1e-3, "seconds": 0.01} for step in range(STEPS)
        ]
        (run.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        record = Record(
            id=run.config.id,
            params=params_by_convention(run.config.model),
            tokens=D,
            flops=6 * N * D,
            loss=loss,
            unique_tokens=D,
            measured={"seconds": 10.0},
            config=run.config.to_dict(),
        )
        write_json(run.folder / "record.json", asdict(record))


def timed(words: tuple[str, ...]) -> float:
    """Wall seconds of a command in a process of its own."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "isoflop", *words], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
