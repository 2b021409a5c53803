"""May heads stay fixed while scaling? Two IsoFLOP sweeps, and how far the exponent of N* lies apart between them."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from jaxtyping import Float64

from isoflop.record import Floats, Record, Records
from isoflop.study.questions.answer import Answer, Cited, answered, differ_only_in, field_of, heads_of

NEGLIGIBLE = 0.05
"""A fifth of what the exponents of arXiv:2001.08361 and arXiv:2203.15556, 0.73 and 0.50, are apart."""
FEWEST_BUDGETS = 3
"""Fewest minima that a line can be drawn through and be contradicted by."""
FEWEST_SIZES = 4
"""A parabola through three sizes fits them all and leaves no residual to draw from."""
REPLICATES = 2000

Sweep = dict[tuple[float, int], Record]
"""Runs by budget and width."""


def heads_fixed(records: Records) -> Answer:
    """Say how far a moves between a fixed number of heads and a fixed head size, with a 90 % interval.

    Both sweeps are resampled together: a pair of runs of one budget and width keeps the residuals that it has.

    Raises:
        ValueError: there are no two such sweeps of the same budgets and widths.
    """
    differ_only_in(records, {"model": {"d_model", "num_heads"}, "train": {"flops"}})
    count, size, sweeps = _arms(records)
    common = sorted(sweeps[0].keys() & sweeps[1].keys())
    budgets = [C for C, sizes in Counter(C for C, _ in common).items() if sizes >= FEWEST_SIZES]
    if len(budgets) < FEWEST_BUDGETS:
        raise ValueError(
            f"only {len(budgets)} budgets of {records.source} have {FEWEST_SIZES} widths both with {count} heads and "
            f"with heads of {size}, and a line of minima needs {FEWEST_BUDGETS}; add runs"
        )
    cells = [[key for key in common if key[0] == C] for C in sorted(budgets)]
    arms = [_Arm(sweep, cells, records.convention) for sweep in sweeps]
    drawn = np.random.default_rng(0).integers(len(arms[0].residual), size=(REPLICATES, len(arms[0].residual)))
    moved = arms[0].slope(drawn) - arms[1].slope(drawn)
    value = float(arms[0].a - arms[1].a)
    low, high = np.percentile(moved, (5, 95))
    numbers = {
        "num_heads": count,
        "head_size": size,
        "budgets": sorted(budgets),
        "arms": [arm.told(drawn) for arm in arms],
        "difference": {"value": value, "low": float(low), "high": float(high)},
        "same_runs": sum(sweeps[0][key].id == sweeps[1][key].id for key in common),
    }
    decided, verdict = _verdict(numbers)
    return answered(
        records,
        question="heads-fixed",
        decided=decided,
        verdict=verdict,
        measured=tuple(_table(numbers)),
        numbers=numbers,
        literature=LITERATURE,
    )


def _arms(records: Records) -> tuple[int, int, tuple[Sweep, Sweep]]:
    """Find the number of heads, and the head size, that most runs share, and the runs that have each."""
    runs = [run for run in records.runs if run.budget is not None]
    if not runs:
        raise ValueError(f"{records.source} has no budgets; the question needs IsoFLOP sweeps")
    count = Counter(map(heads_of, runs)).most_common(1)[0][0]
    others = Counter(_size(run) for run in runs if heads_of(run) != count).most_common(1)
    if not others:
        raise ValueError(f"all runs of {records.source} have {count} heads; add a sweep in which heads keep their size")
    size = others[0][0]
    at = [(float(run.budget or 0), int(field_of(run, "model", "d_model"))) for run in runs]
    fixed = {key: run for key, run in zip(at, runs, strict=True) if heads_of(run) == count}
    kept = {key: run for key, run in zip(at, runs, strict=True) if _size(run) == size}
    return count, size, (fixed, kept)


def _size(run: Record) -> int:
    return int(field_of(run, "model", "d_model")) // heads_of(run)


class _Arm:
    """One sweep: its parabolas, their minima, and the line through them."""

    def __init__(self, sweep: Sweep, cells: list[list[tuple[float, int]]], convention: str) -> None:
        self.ln_n = [np.log([sweep[key].params[convention] for key in cell]) for cell in cells]
        self.loss = [np.array([sweep[key].loss for key in cell], dtype=np.float64) for cell in cells]
        ln_c = np.log([cell[0][0] for cell in cells])
        self.line = np.linalg.pinv(np.vander(ln_c - ln_c.mean(), 2, increasing=True))[1]
        self.fitted, rest = [], []
        for x, y in zip(self.ln_n, self.loss, strict=True):
            design = np.vander(x - x.mean(), 3, increasing=True)
            self.fitted.append(design @ np.linalg.lstsq(design, y, rcond=None)[0])
            rest.append(y - self.fitted[-1])
        spare = sum(len(x) - 3 for x in self.ln_n)
        everything = np.concatenate(rest)
        self.residual = everything * np.sqrt(len(everything) / spare)
        self.minima = np.array([float(self._bottom(x, y[None])[0]) for x, y in zip(self.ln_n, self.loss, strict=True)])
        self.a = float(self.line @ self.minima)

    def slope(self, drawn: Any) -> Float64[np.ndarray, "replicates"]:
        """Return a of every replicate, whose residuals stand at the drawn positions."""
        noise, at, minima = self.residual[drawn], 0, []
        for x, fitted in zip(self.ln_n, self.fitted, strict=True):
            minima.append(self._bottom(x, fitted + noise[:, at : at + len(x)]))
            at += len(x)
        return np.asarray(np.stack(minima, axis=1) @ self.line)

    @staticmethod
    def _bottom(x: Floats, loss: Float64[np.ndarray, "replicates sizes"]) -> Float64[np.ndarray, "replicates"]:
        """ln N of each parabola's bottom, or of the end of the sampled sizes that it falls towards."""
        solver = np.linalg.pinv(np.vander(x - x.mean(), 3, increasing=True))
        _, slope, bend = solver @ loss.T
        opens = bend > 0
        vertex = np.where(opens, -slope / np.where(opens, 2 * bend, 1.0), np.where(slope > 0, -np.inf, np.inf))
        return np.asarray(np.clip(vertex + x.mean(), x.min(), x.max()))

    def told(self, drawn: Any) -> dict[str, Any]:
        """Plain values."""
        low, high = np.percentile(self.slope(drawn), (5, 95))
        inside = [x.min() < n < x.max() for x, n in zip(self.ln_n, self.minima, strict=True)]
        return {
            "a": self.a,
            "low": float(low),
            "high": float(high),
            "minima": np.exp(self.minima).tolist(),
            "inside": [bool(item) for item in inside],
            "N": [np.exp(x).tolist() for x in self.ln_n],
            "loss": [y.tolist() for y in self.loss],
        }


def _verdict(numbers: dict[str, Any]) -> tuple[bool, str]:
    moved, (fixed, kept) = numbers["difference"], numbers["arms"]
    both = (
        f"N* grows as C^a with a = {fixed['a']:.3f} (90 % interval {fixed['low']:.3f} to {fixed['high']:.3f}) with "
        f"{numbers['num_heads']} heads and {kept['a']:.3f} ({kept['low']:.3f} to {kept['high']:.3f}) with heads of "
        f"{numbers['head_size']}: a difference of {moved['value']:+.3f} ({moved['low']:+.3f} to {moved['high']:+.3f})"
    )
    outside = sum(not item for arm in (fixed, kept) for item in arm["inside"])
    if outside:
        return False, f"Not decided: {outside} minima lie at the edge of the sampled widths ({both}); add widths there."
    if moved["low"] > 0 or moved["high"] < 0:
        return (
            True,
            f"No, not if the exponent matters: {both}.",
        )
    most = max(-moved["low"], moved["high"])
    if most <= NEGLIGIBLE:
        return True, f"Yes, at these sizes: {both}, at most {most:.3f}."
    return False, (
        f"Not decided, but bounded: {both}. Fixed heads move a by at most {most:.3f} at these sizes; that "
        f"neither shows a move nor rules out one of {NEGLIGIBLE:g}. Add budgets."
    )


def _table(numbers: dict[str, Any]) -> list[str]:
    names = (f"{numbers['num_heads']} heads", f"heads of {numbers['head_size']}")
    lines = [f"{'FLOPs':>9} " + " ".join(f"{f'N*, {name}':>18} {'best loss':>10}" for name in names)]
    for i, C in enumerate(numbers["budgets"]):
        parts = [f"{arm['minima'][i]:18.4g} {min(arm['loss'][i]):10.4f}" for arm in numbers["arms"]]
        lines.append(f"{C:9.3g} " + " ".join(parts))
    if numbers["same_runs"]:
        lines.append(
            f"{numbers['same_runs']} runs have {numbers['num_heads']} heads of {numbers['head_size']} and count in both"
        )
    return lines


LITERATURE = (
    Cited(
        "arXiv:2002.07028",
        "the usual tie between number and size of heads limits small heads; a head size of its own lets smaller widths "
        "reach the same and scale better",
    ),
    Cited("arXiv:2001.08361", "section 3: shape matters very weakly within reasonable limits; exponents ignore it"),
)
