"""Whether fits reach the best optimum there is, on every series of a folder of tables and on bootstrap replicates.

    python benchmarks/globality.py --data DIR [--laws chinchilla,coupled] [--replicates 200] [--starts 100] [--json]

For each series and law: the fit against the least of many starts, and each replicate's optimum as `isoflop.law` finds
it against the least of as many starts for that replicate. A miss is an objective more than 1e-6 of itself (and 1e-15 a
run) above the least that either found.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from isoflop.law.fit import STARTS, check, order, pose
from isoflop.law.laws import LAWS
from isoflop.law.search import search, search_replicates
from isoflop.law.solve import Problem, Solution, solve, starts
from isoflop.law.uncertainty import draw, groups
from isoflop.record import Floats, Records
from isoflop.sources import read

MISS = 1e-6
CHUNK = 20
"""Replicates solved from all starts at once, to bound memory."""


@dataclass(frozen=True)
class Row:
    """One series and law."""

    series: str
    law: str
    runs: int
    objective: float
    fit_gap: float
    """Of the fit above the least known, in parts of it."""
    fit_ms: float
    replicates: int
    misses: int
    worst: float
    """Largest gap of a replicate."""
    starts_misses: int
    """Replicates for which the many starts themselves did not find the least known."""
    replicate_ms: float
    starts_ms: float


def series_of(folder: Path) -> Iterator[tuple[str, Records]]:
    """Go through the series of every table that has the columns of a run."""
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        if not {"series", "params", "tokens", "loss"} <= rows[0].keys():
            continue
        for name in dict.fromkeys(row["series"] for row in rows):
            records = read(path, series=name)
            yield f"{path.stem}:{name}", records
            if path.stem == "epoch_chinchilla":
                yield f"{path.stem}:240", records.take(np.sort(np.argsort(records.L)[:-5]))


def gap(found: Solution, least: Floats, runs: int) -> Floats:
    """Return how far objectives lie above the least known, in parts of it, rounding apart."""
    return np.asarray(np.maximum(found.objective - least - 1e-15 * runs, 0) / np.maximum(least, 1e-300))


def from_all(problem: Problem, count: int) -> Solution:
    """Minimise each problem from all starts."""
    parts = []
    for first in range(0, len(problem.weights), CHUNK):
        part = problem.take(np.arange(first, min(first + CHUNK, len(problem.weights))))
        parts.append(solve(part, np.repeat(starts(part.law, count)[:, None], len(part.weights), axis=1)))
    return Solution(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def compare(series: str, records: Records, law: str, *, replicates: int, count: int) -> Row:
    """Fit a series and its replicates both ways."""
    check(records, LAWS[law])
    runs = records.take(order(records))
    problem, _ = pose(runs, LAWS[law])
    clock = [time.process_time()]
    found = search(problem, STARTS)
    clock.append(time.process_time())
    many = from_all(problem, count)
    drawn = draw(problem, groups(runs), replicates=replicates, rng=np.random.default_rng(0)).counts
    posed = replace(problem, weights=drawn, delta=np.repeat(problem.delta, replicates))
    clock.append(time.process_time())
    ours = search_replicates(posed, found.theta, STARTS)
    clock.append(time.process_time())
    theirs = from_all(posed, count)
    clock.append(time.process_time())
    least = np.minimum(ours.objective, theirs.objective)
    ours_gap, theirs_gap = gap(ours, least, len(runs)), gap(theirs, least, len(runs))
    fit_ms, _, replicate_ms, starts_ms = 1e3 * np.diff(clock)
    return Row(
        series=series,
        law=law,
        runs=len(runs),
        objective=float(found.objective[0]),
        fit_gap=float(gap(found, np.minimum(found.objective, many.objective), len(runs))[0]),
        fit_ms=float(fit_ms),
        replicates=replicates,
        misses=int((ours_gap > MISS).sum()),
        worst=float(ours_gap.max()),
        starts_misses=int((theirs_gap > MISS).sum()),
        replicate_ms=float(replicate_ms / replicates),
        starts_ms=float(starts_ms / replicates),
    )


def main() -> None:
    """Print a line for each series and law as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--laws", default=",".join(LAWS))
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--only", default="", help="part of a series' name")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if not args.json:
        print(f"{'series':<44} {'law':<16} {'runs':>5} {'fit gap':>8} {'misses':>9} {'worst':>8} {'by starts':>9}  ms")
    for law in args.laws.split(","):
        for series, records in series_of(args.data):
            if args.only not in series:
                continue
            try:
                row = compare(series, records, law, replicates=args.replicates, count=args.starts)
            except ValueError as error:
                print(
                    json.dumps({"series": series, "law": law, "refused": str(error)})
                    if args.json
                    else f"{series:<44} {law:<16} refused: {error}"
                )
                continue
            print(
                json.dumps(asdict(row))
                if args.json
                else f"{series:<44} {law:<16} {row.runs:>5} {row.fit_gap:>8.0e} {row.misses:>4} of {row.replicates} "
                f"{row.worst:>8.0e} {row.starts_misses:>9}  {row.replicate_ms:.2f} against {row.starts_ms:.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
