"""One global fit of L = E + A/N^α + B/D^β, and 4000 bootstrap replicates, beside other ways to fit.

    python benchmarks/fit.py --data TABLE.csv [--drop 5] [--python python3.12] [--json]

All in one run on one core: objective (sum of Huber's loss of ln L at δ = 1e-3) and CPU seconds. `--drop` leaves out the
runs of highest loss, five in the usual fit of epoch_chinchilla.csv (arXiv:2404.10102). The others run in an environment
of their own, which this script makes with the Python of `--python` (this one; `simple-scaling-laws` asks for 3.12) in
benchmarks/.peers/fit-VERSION and fills with scipy and the packages.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from isoflop.law.fit import DELTA, fit
from isoflop.law.laws import LAWS
from isoflop.law.uncertainty import bootstrap
from isoflop.record import Records
from isoflop.sources import read

HERE = Path(__file__).parent
REPEATS = 20
REPLICATES = 4000
OTHERS = {
    "curve_fit": "scipy curve_fit, one start",
    "grid": "4500 starts of L-BFGS (arXiv:2203.15556, D.3)",
    "chinchilla": "PyPI chinchilla, 243 starts",
    "simple_scaling_laws": "PyPI simple-scaling-laws, separable-power",
    "simple_scaling_laws_replicates": f"PyPI simple-scaling-laws, {REPLICATES} replicates",
}
PACKAGES = {
    "curve_fit": "scipy",
    "grid": "scipy",
    "chinchilla": "chinchilla",
    "simple_scaling_laws": "simple-scaling-laws",
    "simple_scaling_laws_replicates": "simple-scaling-laws",
}


@dataclass(frozen=True)
class Row:
    """One way to fit."""

    method: str
    objective: float | None
    seconds: float | None
    """CPU."""
    remark: str


def huber(records: Records, values: dict[str, float]) -> float:
    """Return the literature's objective of these constants."""
    size = np.abs(np.log(LAWS["chinchilla"](N=records.N, D=records.D, **values) / records.L))
    return float(np.where(size <= DELTA, size**2 / 2, DELTA * (size - DELTA / 2)).sum())


def ours(records: Records) -> list[Row]:
    """Fit once and 4000 times."""
    found = fit(records)
    clock = [time.process_time()]
    for _ in range(REPEATS):
        found = fit(records)
        clock.append(time.process_time())
    drawn = bootstrap(found, replicates=REPLICATES)
    seconds = time.process_time() - clock[-1]
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    errors = ", ".join(f"{name} {samples.std():.4g}" for name, samples in drawn.samples.items())
    return [
        Row("isoflop", huber(records, found.values), float(np.median(np.diff(clock))), f"median of {REPEATS} fits"),
        Row(
            f"isoflop, {REPLICATES} replicates",
            None,
            seconds,
            f"3 starts each, peak {megabytes:.0f} MB; standard errors: {errors}",
        ),
    ]


def environment(python: str) -> Path:
    """Return the Python of the others' environment, which is made with `python` where there is none of its version."""
    said = subprocess.run([python, "-V"], capture_output=True, text=True, check=True)
    folder = HERE / ".peers" / f"fit-{said.stdout.split()[1]}"
    if not folder.exists():
        print(f"making {folder} with `{python} -m venv`", file=sys.stderr)
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
    return folder / "bin" / "python"


def install(python: Path, package: str) -> str | None:
    """Install a package for the others; return why it cannot be."""
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
    done = subprocess.run(pip, capture_output=True, text=True)
    said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return None if done.returncode == 0 else f"skipped, not installed: {said[0] if said else done.stderr.strip()}"


def theirs(python: Path, method: str, records: Records, folder: Path) -> Row:
    """Fit by another means, in its own process."""
    if (refused := install(python, PACKAGES[method])) is not None:
        return Row(OTHERS[method], None, None, refused)
    runs = folder / "runs.json"
    runs.write_text(json.dumps({letter: getattr(records, letter).tolist() for letter in "NDL"}))
    command = [str(python), "-W", "ignore", str(HERE / "fit_peers.py"), method, str(runs), str(REPLICATES)]
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env={**alone, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        return Row(OTHERS[method], None, None, f"failed: {done.stderr.strip().splitlines()[-1]}")
    said = json.loads(done.stdout.splitlines()[-1])
    return Row(OTHERS[method], huber(records, said["values"]), said["seconds"], said["remark"])


def table(rows: list[Row]) -> str:
    """Set the rows beside the first."""
    lines = [f"{'method':<46} {'objective':>13} {'CPU s':>9} {'ratio':>7}  remark"]
    for row in rows:
        objective = "" if row.objective is None else f"{row.objective:.7e}"
        seconds, ratio = (
            ("", "") if row.seconds is None else (f"{row.seconds:.3f}", f"{row.seconds / rows[0].seconds:.0f}")
        )
        lines.append(f"{row.method:<46} {objective:>13} {seconds:>9} {ratio:>7}  {row.remark}")
    return "\n".join(lines)


def main() -> None:
    """Measure all and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--drop", type=int, default=0)
    parser.add_argument("--python", default=sys.executable, help="what the others' environment is made with")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    records = read(args.data)
    records = records.take(np.sort(np.argsort(records.L)[: len(records) - args.drop]))
    rows = ours(records)
    python = environment(args.python)
    with tempfile.TemporaryDirectory() as folder:
        rows += [theirs(python, method, records, Path(folder)) for method in OTHERS]
    print(json.dumps([asdict(row) for row in rows]) if args.json else table(rows))


if __name__ == "__main__":
    main()
