"""Does bf16 bias the final loss? Pairs of runs that differ in precision alone, seed by seed.

python benchmarks/precision.py --data TOKENS [--out runs] [--seeds 10] [--steps 800] [--d_model 48]

TOKENS is a token folder of bytes (`isoflop data stdlib --out TOKENS`). Runs that are done are not run again.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
from pathlib import Path

import torch

from isoflop.config import DataConfig, OptimConfig, RunConfig, TrainConfig, write_run
from isoflop.data.tokens import open_tokens
from isoflop.lm.train import train
from isoflop.presets import preset


def final_loss(args: argparse.Namespace, out: Path, fingerprint: str, seed: int, precision: str) -> float:
    """Validation loss of one run, nats per token."""
    config = RunConfig(
        model=preset("small", d_model=args.d_model),
        data=DataConfig(data=str(args.data), val_tokens=args.val_tokens),
        optim=OptimConfig(),
        train=TrainConfig(steps=args.steps, batch_size=8, precision=precision, seed=seed, eval_every=args.steps),
        data_sha256=fingerprint,
    )
    record = train(write_run(config, out))
    if record is None or record.loss is None:
        raise RuntimeError(f"seed {seed} in {precision} did not reach its end; look into {out}")
    return record.loss


def main() -> None:
    """Train the pairs, print each, then the mean differences with their standard errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="token folder of bytes")
    parser.add_argument("--out", type=Path, help="where the runs are kept; a temporary folder if not given")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--d_model", type=int, default=48)
    parser.add_argument("--val_tokens", type=int, default=262_144)
    parser.add_argument("--precisions", nargs="+", default=["bf16"], help="each is compared with fp32")
    args = parser.parse_args()
    torch.set_num_threads(1)
    fingerprint = open_tokens(args.data).fingerprint
    differences: dict[str, list[float]] = {precision: [] for precision in args.precisions}
    exact = []
    print(f"load {os.getloadavg()[0]:.1f}, small at width {args.d_model}, {args.steps} steps of 8 x 64 bytes")
    with tempfile.TemporaryDirectory() as temporary:
        out = args.out or Path(temporary)
        for seed in range(args.seeds):
            exact.append(final_loss(args, out, fingerprint, seed, "fp32"))
            for precision, found in differences.items():
                found.append(final_loss(args, out, fingerprint, seed, precision) - exact[-1])
            said = ", ".join(f"{precision} {found[-1]:+.5f}" for precision, found in differences.items())
            print(f"seed {seed}: fp32 {exact[-1]:.5f}, {said}", flush=True)
    print(f"fp32 mean {statistics.mean(exact):.5f}, spread of the seeds {statistics.stdev(exact):.5f} nats per byte")
    for precision, found in differences.items():
        error = statistics.stdev(found) / math.sqrt(len(found))
        print(f"{precision} - fp32: mean {statistics.mean(found):+.5f}, standard error {error:.5f} nats per byte")


if __name__ == "__main__":
    main()
