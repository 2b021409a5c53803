"""Peak memory of runs beside what `isoflop train --dry-run` predicted, each in a process of its own.

python benchmarks/memory.py --out /tmp/memory
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

# flags of each run; S2 is a shape of ENGINEERING.md's table of speeds, demo the widest run of the demo's study
RUNS = {
    "demo": "--preset small --d-model 72 --batch-size 8",
    "S2": "--context-length 256 --d-model 256 --num-layers 6 --num-heads 4 --batch-size 8",
    "70M": "--preset 70M --batch-size 16",
    "300M": "--preset 300M --batch-size 16 --grad-accum 4",
}
VOCAB = {"demo": 256, "S2": 8192, "70M": 50_257, "300M": 50_257}
RAW_TOKENS = 200_000


def main() -> None:
    """Print a table, a line a run, as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--precisions", nargs="+", choices=("fp32", "bf16"), default=["fp32", "bf16"])
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("run   precision  parameters  predicted  measured  error")
    for name in args.runs:
        for precision in args.precisions:
            command = flags(args.out, name, precision, args.steps)
            told = json.loads(peak([*command, "--dry-run"])[0])
            shutil.rmtree(args.out / "runs", ignore_errors=True)
            _, measured = peak(command)
            predicted = told["memory_bytes"]
            print(
                f"{name:<6}{precision:<11}{told['params']['total'] / 1e6:8.2f} M  {predicted / 1e9:6.2f} GB "
                f"{measured / 1e9:6.2f} GB  {predicted / measured - 1:+.1%}",
                flush=True,
            )


def flags(out: Path, name: str, precision: str, steps: int) -> list[str]:
    """Return the command of a run on ids drawn at random, whose values cost no memory."""
    raw, vocab = out / f"{VOCAB[name]}.bin", VOCAB[name]
    if not raw.exists():
        np.random.default_rng(0).integers(0, vocab, RAW_TOKENS, dtype=np.int32).tofile(raw)
    length = ["--steps", str(steps), "--val_tokens", "2048", "--precision", precision]
    data = ["--data", str(raw), "--vocab-size", str(vocab), "--out", str(out / "runs"), "--json"]
    return [sys.executable, "-m", "isoflop", "train", *RUNS[name].split(), *data, *length]


def peak(command: Sequence[str]) -> tuple[bytes, int]:
    """Run a command; return what it printed, and the most memory that it held at a time, bytes."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with code {process.returncode}")
    return said, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)  # bytes there: getrusage(2)


if __name__ == "__main__":
    main()
