"""Speed of training against others: alternating in one run, median of the rounds.

python benchmarks/train.py                                     everything: hours
python benchmarks/train.py --shapes S1 --peers ours plain      a part of it
python benchmarks/train.py --only ours:bf16:2x1 plain:fp32:2t  these contestants, no others
python benchmarks/train.py --install                           only make the peers' environments

Every contestant trains the same shape on the same tokens with AdamW and clipping by global norm, as one process of two
threads (2t) or as two processes of one thread, each pinned to a core (2x1, tokens/s summed). The CPU share tells how
much of its cores a contestant got: well under 1 means that other work ran beside it, and then tokens per CPU second
compare better than tokens/s.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

from peers import ENVIRONMENTS, PACKAGES, PEERS, SHAPES

HERE = Path(__file__).parent
SETTINGS = ("fp32", "bf16", "fp32-compiled", "bf16-compiled")
LAYOUTS = {"2t": [("2", "-")], "2x1": [("1", "0"), ("1", "1")]}
"""Threads and core of each process."""
DEFAULT = ("plain", "fp32", "2t")
"""What everyone writes, as it comes."""


def python(peer: str) -> Path:
    """The interpreter that a peer runs in, its environment made if it is not there."""
    name = ENVIRONMENTS.get(peer)
    if name is None:
        return Path(sys.executable)
    home = HERE / ".peers" / name
    done = home / ".installed"
    if not done.exists():
        print(f"making {home} ({', '.join(PACKAGES[name])})", file=sys.stderr)
        venv.create(home, with_pip=True)
        pip = [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES[name]], check=True)
        done.touch()
    return home / "bin" / "python"


def measure(peer: str, setting: str, layout: str, shape: str, seconds: float) -> list[dict[str, Any]]:
    """One round of one contestant: what its processes report."""
    script, interpreter = HERE / "train_worker.py", python(peer)
    paths = os.pathsep.join([str(HERE.parent), str(HERE)]) if peer == "ours" else str(HERE)
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "TORCHINDUCTOR_CACHE_DIR": str(HERE / ".peers" / "inductor"),
        "OMP_NUM_THREADS": LAYOUTS[layout][0][0],
    }
    workers = [
        subprocess.Popen(
            [interpreter, script, peer, setting, shape, threads, core, str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for threads, core in LAYOUTS[layout]
    ]
    try:
        for worker in workers:
            said = worker.stdout.readline()
            if said != "ready\n":
                raise RuntimeError(worker.communicate()[1].strip().splitlines()[-1])
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        return [json.loads(worker.communicate()[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def summed(processes: list[dict[str, Any]]) -> dict[str, Any]:
    """The processes of one round as one."""
    total = {
        name: sum(p[name] for p in processes)
        for name in ("tokens_per_second", "tokens_per_cpu_second", "peak_memory_bytes")
    }
    return {
        **total,
        "cpu_share": statistics.mean(p["cpu_share"] for p in processes),
        "first_step_seconds": max(p["first_step_seconds"] for p in processes),
        "peak_flops": {kind: sum(p["peak_flops"][kind] for p in processes) for kind in ("float32", "bfloat16")},
        "params": processes[0]["params"],
        "losses": processes[0]["losses"],
    }


def medians(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Median of each figure over the rounds."""
    names = ("tokens_per_second", "tokens_per_cpu_second", "peak_memory_bytes", "cpu_share", "first_step_seconds")
    return {name: statistics.median(one[name] for one in rounds) for name in names}


def flops_per_token(shape: str) -> int:
    """Training FLOPs of a token by the product's own count."""
    from isoflop.flops import compute
    from isoflop.presets import preset

    s = SHAPES[shape]
    sizes = {"vocab_size": s.vocab, "context_length": s.context, "d_model": s.d_model, "num_layers": s.layers}
    return compute(preset("gpt", num_heads=s.heads, **sizes))


def table(shape: str, results: dict[tuple[str, str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Print a shape's results, fastest first, and return them."""
    every = [one for rounds in results.values() for one in rounds]
    # the best that any process pair reached, so that a busy moment does not flatter its neighbour
    peak = max(one["peak_flops"]["bfloat16"] for one in every)
    default = results.get(DEFAULT)
    rows = []
    for (peer, setting, layout), rounds in results.items():
        row = {"shape": shape, "peer": peer, "setting": setting, "layout": layout, **medians(rounds)}
        row["params"], row["losses"] = rounds[0]["params"], rounds[0]["losses"]
        row["share_of_bf16_peak"] = row["tokens_per_second"] * flops_per_token(shape) / peak
        row["times_default"] = row["tokens_per_second"] / medians(default)["tokens_per_second"] if default else None
        row["rounds"] = rounds
        rows.append(row)
    rows.sort(key=lambda row: -row["tokens_per_second"])
    print(f"\n{shape}: {SHAPES[shape]}; bf16 peak of both cores {peak / 1e9:.0f} GFLOP/s")
    print(
        f"{'peer':9} {'setting':13} {'layout':6} {'tokens/s':>9} {'x default':>9} {'of peak':>7} {'memory':>8} "
        f"{'1st step':>8} {'CPU share':>9} {'per CPU s':>9} {'params':>10}"
    )
    for row in rows:
        times = f"{row['times_default']:9.2f}" if row["times_default"] else f"{'-':>9}"
        print(
            f"{row['peer']:9} {row['setting']:13} {row['layout']:6} {row['tokens_per_second']:9.0f} {times} "
            f"{row['share_of_bf16_peak']:7.0%} {row['peak_memory_bytes'] / 1e6:5.0f} MB "
            f"{row['first_step_seconds']:6.2f} s {row['cpu_share']:9.2f} {row['tokens_per_cpu_second']:9.0f} "
            f"{row['params']:10,}"
        )
    return rows


def contestants(args: argparse.Namespace) -> list[tuple[str, str, str]]:
    """Peer, setting and layout of everyone asked for; ours needs no compiler and has no compiled setting."""
    if args.only:
        return args.only
    return [
        (peer, setting, layout)
        for peer in args.peers
        for setting in args.settings
        for layout in args.layouts
        if not (peer == "ours" and "compiled" in setting)
    ]


def contestant(text: str) -> tuple[str, str, str]:
    """PEER:SETTING:LAYOUT as typed after `--only`."""
    peer, setting, layout = text.split(":")
    if peer not in PEERS or setting not in SETTINGS or layout not in LAYOUTS:
        raise ValueError(text)
    return peer, setting, layout


def main() -> None:
    """Alternate all contestants for some rounds, on each shape."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument("--only", nargs="+", type=contestant, metavar="PEER:SETTING:LAYOUT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="training time of a contestant in a round")
    parser.add_argument("--install", action="store_true", help="make the peers' environments and stop")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures of all rounds there")
    args = parser.parse_args()
    for peer in args.peers if not args.only else {peer for peer, _, _ in args.only}:
        python(peer)
    if args.install:
        return
    rows = []
    for shape in args.shapes:
        results: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
        for number in range(args.rounds):
            for one in contestants(args):
                load, began = os.getloadavg()[0], time.perf_counter()
                try:
                    measured = summed(measure(*one, shape, args.seconds))
                except RuntimeError as error:
                    print(f"{shape} {' '.join(one)}: {error}", file=sys.stderr)
                    continue
                results.setdefault(one, []).append({**measured, "load": load})
                speed, took = measured["tokens_per_second"], time.perf_counter() - began
                said = f"{shape} round {number + 1}: {' '.join(one)} {speed:.0f} tokens/s, load before {load:.1f}"
                print(f"{said}, {took:.0f} s in all", file=sys.stderr)
        if results:
            rows += table(shape, results)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
