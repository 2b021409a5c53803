"""Kill a study's driver and its workers at random moments, and compare what is left with an undisturbed study.

python benchmarks/kill.py --runs 40 --kills 50 --out /tmp/kill

Whoever interrupts it repeats the command: the runs and the count of the kills lie in the folder.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from isoflop.config import DataConfig, OptimConfig, TrainConfig
from isoflop.data.build import Recipe, build
from isoflop.data.corpus import Corpus
from isoflop.files import read_json, write_json
from isoflop.lm.journal import read_journal, trained_twice
from isoflop.presets import preset
from isoflop.record import Record
from isoflop.study import drive
from isoflop.study.failures import forgive
from isoflop.study.study import Study

TIMED = {"seconds", "tokens_per_second", "peak_memory_bytes"}
"""What a record measures of the machine, not of the run."""
COUNTS = "kills.json"
"""In the killed study's folder: what was done to it so far."""
ORPHAN = 5.0
"""Seconds after which no worker of a killed driver may be left."""


def main() -> None:
    """Train a study twice, once in peace and once under fire, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--kills", type=int, default=50, help="kills of the driver, and as many of workers")
    parser.add_argument("--tokens", type=int, default=200_000, help="of the shortest run; more leaves more to kill")
    parser.add_argument("--apart", type=float, nargs=2, default=(0.3, 5.0), help="least and most seconds between kills")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    texts = tuple(str(path) for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:40])
    if not (args.out / "tokens").exists():
        build(Recipe(corpus=Corpus(sources=texts)), args.out / "tokens", workers=1)
    study = Study(
        design="grid",
        widths=tuple(range(8, 8 + 4 * (args.runs // 4), 4)),
        lengths=tuple(args.tokens * (1 + k / 10) for k in range(4)),
        model=preset("small", context_length=16),
        data=DataConfig(data=str(args.out / "tokens"), val_tokens=1024),
        optim=OptimConfig(warmup_steps=10),
        train=TrainConfig(batch_size=4),
    )
    for name in ("undisturbed", "killed"):
        drive.settle(study, args.out / name)
    undisturbed = drive.plan(study, args.out / "undisturbed")
    began = time.monotonic()
    drive.drive(undisturbed, on_event=lambda event: None)
    print(f"undisturbed: {sum(run.record is not None for run in undisturbed)} runs in {time.monotonic() - began:.0f} s")
    disturbed = drive.plan(study, args.out / "killed")
    counts = disturb(args.out / "killed", disturbed, kills=args.kills, apart=args.apart, seed=args.seed)
    report(undisturbed, disturbed, counts)


def disturb(
    folder: Path, planned: list[drive.Planned], *, kills: int, apart: tuple[float, float], seed: int
) -> dict[str, int]:
    """Run the study while killing, and start it again until it is done; count what was done to it."""
    kept = folder / COUNTS
    counts = {"driver": 0, "worker": 0, "starts": 0, "orphans": 0} | (read_json(kept) if kept.exists() else {})
    chance = random.Random(seed + counts["starts"])
    left: list[tuple[float, list[psutil.Process]]] = []
    while not all(run.record for run in planned):
        driver = subprocess.Popen(
            [sys.executable, "-m", "isoflop", "study", "run", str(folder), "--json"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        counts["starts"] += 1
        while driver.poll() is None:
            time.sleep(chance.uniform(*apart))
            counts["orphans"] += _orphans(left)
            what = chance.choice([name for name in ("driver", "worker") if counts[name] < kills] or [""])
            if driver.poll() is not None or not what:
                continue
            workers = psutil.Process(driver.pid).children()
            victim = psutil.Process(driver.pid) if what == "driver" else chance.choice(workers) if workers else None
            if victim is not None:
                victim.send_signal(signal.SIGKILL)
                counts[what] += 1
                left += [(time.monotonic() + ORPHAN, workers)] if what == "driver" else []
            write_json(kept, counts)
        driver.wait()
        # kills are this script's doing, and the same kill twice would quarantine a sound run
        for run in planned:
            forgive(run.folder)
    time.sleep(ORPHAN)
    counts["orphans"] += _orphans(left)
    write_json(kept, counts)
    return counts


def _orphans(left: list[tuple[float, list[psutil.Process]]]) -> int:
    """Count workers that outlive their killed driver by `ORPHAN` seconds, and forget those that were counted."""
    due = [workers for until, workers in left if until <= time.monotonic()]
    left[:] = [(until, workers) for until, workers in left if until > time.monotonic()]
    return sum(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for part in due for process in part)


def report(undisturbed: list[drive.Planned], disturbed: list[drive.Planned], counts: dict[str, int]) -> None:
    """Print how many runs are complete, trained twice, or different from the undisturbed ones."""
    theirs = {run.folder.name: _result(run.record) for run in undisturbed if run.record}
    mine = {run.folder.name: _result(run.record) for run in disturbed if run.record}
    twice = [said for run in disturbed if (said := trained_twice(run.folder))]
    sittings = [sum("began" in line for line in read_journal(run.folder)) for run in disturbed]
    equal = sum(mine[name] == theirs[name] for name in mine)
    logs = sum(_losses(a.folder) == _losses(b.folder) for a, b in zip(undisturbed, disturbed, strict=True))
    print(f"kill -9: {counts['driver']} of the driver, {counts['worker']} of workers; {counts['starts']} starts")
    print(
        f"runs cut short by kills {sum(n > 1 for n in sittings)}, together {sum(sittings) - len(sittings)} times, "
        f"one of them {max(sittings) - 1} times"
    )
    print(f"complete {len(mine)} of {len(disturbed)}, records equal bit for bit {equal}, logs {logs}")
    print(f"trained twice {len(twice)}, orphans after {ORPHAN:g} s {counts['orphans']}")
    for said in twice:
        print(f"  {said}")


def _losses(folder: Path) -> list[dict[str, Any]]:
    """A log's lines, without the seconds."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def _result(record: Record) -> dict[str, Any]:
    plain = asdict(record)
    plain["config"] = {**plain["config"], "data": None}
    plain["measured"] = {name: value for name, value in plain["measured"].items() if name not in TIMED}
    return plain


if __name__ == "__main__":
    main()
