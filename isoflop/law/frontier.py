"""The compute-optimal size and tokens of a budget, by approaches 2 and 3 of arXiv:2203.15556."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from isoflop.counts import number_of
from isoflop.law.fit import SAME, Fit, check
from isoflop.law.laws import LAWS, Terms, Value
from isoflop.law.uncertainty import Interval, generator, groups, interval
from isoflop.record import Floats, Records

SAME_BUDGET = 1.2
"""Runs without a named budget share one when their FLOPs lie within this factor, 10 % to either side."""
ROUNDED = 1.01
"""Named budgets within this factor are one, written down with other digits."""
EDGE = 0.05
"""A minimum within this part of the sampled range of ln N from its end is at the edge."""
UNSURE = 0.1
"""A minimum that noise moves to the edge more often than this is not determined."""
FEWEST_BUDGETS = 3
"""Fewest minima that a line can be drawn through and be contradicted by."""
SHOWN = 2
"""Budgets without a minimum that a refusal names."""
ABOUT = 1.05
"""C = 6ND holds if the runs' median lies within this factor of it."""


class Line(NamedTuple):
    """ln of a quantity against ln C: its level at the frontier's centre, and its slope; numbers, or replicates."""

    level: Value
    slope: Value

    def at(self, away: Value) -> Value:
        """Return the quantity at ln C − ln center."""
        level, power = np.asarray(self.level), np.multiply.outer(self.slope, away)
        return np.asarray(np.exp(level.reshape(level.shape + (1,) * np.ndim(away)) + power))


@dataclass(frozen=True)
class Minimum:
    """The bottom of one budget's parabola L = loss + bend·ln(N/params)²."""

    budget: float
    """FLOPs, geometric mean of the runs."""
    params: float
    """N*."""
    tokens: float
    """D*, from the runs' own D at N*."""
    loss: float
    """L*, nats per token."""
    bend: float
    """Nats per token."""
    sampled: tuple[float, float]
    """Smallest and largest N of the runs."""


@dataclass(frozen=True)
class Frontier:
    """N* ∝ C^a and D* ∝ C^b."""

    approach: Literal[2, 3]
    center: float
    """FLOPs, geometric mean of the runs."""
    N: Line
    D: Line
    samples: Mapping[str, Line]
    """Replicates of N and D; of length 0 where the data say nothing of their error."""
    minima: tuple[Minimum, ...] = ()
    """What approach 2 drew its lines through."""
    refused: tuple[str, ...] = ()
    """Budgets without a minimum, each with its reason."""
    note: str | None = None
    """What a reader must know of it."""

    @property
    def a(self) -> Interval:
        """Exponent of N*."""
        return interval(self.N.slope, np.asarray(self.samples["N"].slope))

    @property
    def b(self) -> Interval:
        """Exponent of D*."""
        return interval(self.D.slope, np.asarray(self.samples["D"].slope))

    def params(self, C: Value) -> Interval:
        """Return N* of budgets in FLOPs."""
        return self._at(self.N, self.samples["N"], C)

    def tokens(self, C: Value) -> Interval:
        """Return D* of budgets in FLOPs."""
        return self._at(self.D, self.samples["D"], C)

    def tokens_per_param(self, C: Value) -> Interval:
        """Return D*/N* of budgets in FLOPs."""
        return self._at(_over(self.D, self.N), _over(self.samples["D"], self.samples["N"]), C)

    def _at(self, line: Line, samples: Line, C: Value) -> Interval:
        away = np.log(C) - np.log(self.center)
        return interval(line.at(away), np.asarray(samples.at(away)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for fit.json: exponents with intervals, minima, and what was refused."""
        return {
            "approach": self.approach,
            "a": self.a._asdict(),
            "b": self.b._asdict(),
            "minima": [asdict(minimum) for minimum in self.minima],
            "refused": list(self.refused),
            "note": self.note,
        }


def _over(above: Line, below: Line) -> Line:
    return Line(np.subtract(above.level, below.level), np.subtract(above.slope, below.slope))


def budgets(records: Records) -> dict[float, Int64[np.ndarray, "runs"]]:
    """Group runs by named budget, within 1 %, or, where no run names one, by FLOPs within 10 %, three sizes a group."""
    named = np.array([run.budget or np.nan for run in records.runs])
    if np.isfinite(named).any():
        level = np.where(np.isfinite(named), levels(np.where(np.isfinite(named), named, np.inf), ROUNDED), -1)
        parts = [np.flatnonzero(level == i) for i in range(int(level.max()) + 1)]
        return {float(np.median(named[part])): part for part in parts}
    level = levels(records.C)
    parts = [np.flatnonzero(level == i) for i in range(int(level.max()) + 1)]
    return {float(np.exp(np.log(records.C[part]).mean())): part for part in parts if _sizes(records.N[part]) >= 3}


def levels(C: Floats, factor: float = SAME_BUDGET) -> Int64[np.ndarray, "runs"]:
    """Number the runs' FLOPs from below, those within a factor alike: within 10 % to either side by default."""
    level = np.zeros(len(C), dtype=np.int64)
    first, count = 0.0, -1
    for row in np.argsort(C, kind="stable"):
        if C[row] > factor * first:
            first, count = C[row], count + 1
        level[row] = count
    return level


def _sizes(N: Floats) -> int:
    return 1 + int((np.diff(np.sort(np.log(N))) > SAME).sum())


class Parabola(NamedTuple):
    """One budget's runs: loss and ln D as quadratics in ln N − middle, lowest power first."""

    rows: Int64[np.ndarray, "runs"]
    budget: float
    middle: float
    reach: tuple[float, float]
    solver: Float64[np.ndarray, "three runs"]
    """Takes values of the runs to coefficients."""
    loss: Float64[np.ndarray, "three"]
    ln_tokens: Float64[np.ndarray, "three"]
    misfit: float
    """Sum of squared residuals of the loss."""

    @property
    def spare(self) -> int:
        """Runs beyond the three that a parabola needs."""
        return len(self.rows) - 3


def approach2(records: Records, *, replicates: int = 1000, seed: int = 0) -> Frontier:
    """Draw a parabola of the loss in ln N through each budget's runs, then lines in ln C through their minima.

    For the interval the losses get new noise, normal, with the variance of the residuals about all parabolas: a budget
    has too few sizes for its runs to be drawn again. The runs of a trunk get the same noise.

    Raises:
        ValueError: fewer than three budgets have a minimum inside their sampled sizes.
    """
    check(records, LAWS["chinchilla"])
    trunk = groups(records)
    noise = generator(seed).standard_normal((replicates, int(trunk.max()) + 1))[:, trunk]
    parts = budgets(records)
    sizes = {C: _sizes(records.N[rows]) for C, rows in parts.items()}
    refused = [
        f"budget {C:.3g} has only {number_of(count, 'size')}, a parabola needs 3"
        for C, count in sizes.items()
        if count < 3
    ]
    parabolas = [_parabola(records, rows) for C, rows in parts.items() if sizes[C] >= 3]
    spare = sum(parabola.spare for parabola in parabolas)
    # with three sizes a budget nothing tells the noise: no replicates, so no interval
    noise = noise * np.sqrt(sum(parabola.misfit for parabola in parabolas) / spare) if spare else noise[:0]
    reasons = [_reason(parabola, noise) for parabola in parabolas]
    kept = [parabola for parabola, reason in zip(parabolas, reasons, strict=True) if reason is None]
    refused += [reason for reason in reasons if reason is not None]
    if len(kept) < FEWEST_BUDGETS:
        more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
        said = f" ({'; '.join(refused[:SHOWN])}{more})" if refused else ""
        raise ValueError(
            f"approach 2 needs {FEWEST_BUDGETS} budgets with a minimum inside their sampled sizes, but "
            f"{records.source} has {len(kept)}{said}; add runs, or use approach 3"
        )
    return _through(kept, noise, tuple(refused))


def _parabola(records: Records, rows: Int64[np.ndarray, "runs"]) -> Parabola:
    x = np.log(records.N[rows])
    middle = float(x.mean())
    design = np.vander(x - middle, 3, increasing=True)
    solver = np.linalg.pinv(design)
    loss = solver @ records.L[rows]
    return Parabola(
        rows=rows,
        budget=float(np.exp(np.log(records.C[rows]).mean())),
        middle=middle,
        reach=(float(x.min()) - middle, float(x.max()) - middle),
        solver=solver,
        loss=loss,
        ln_tokens=solver @ np.log(records.D[rows]),
        misfit=float(((records.L[rows] - design @ loss) ** 2).sum()),
    )


def _bottom(
    curve: Float64[np.ndarray, "*replicates three"], reach: tuple[float, float]
) -> tuple[Float64[np.ndarray, "*replicates"], Bool[np.ndarray, "*replicates"]]:
    """Return where a parabola is least within reach, and whether that is well inside."""
    low, high = reach
    slope, bend = curve[..., 1], curve[..., 2]
    opens_up = bend > 0
    vertex = np.where(opens_up, -slope / np.where(opens_up, 2 * bend, 1.0), np.where(slope > 0, low, high))
    margin = EDGE * (high - low)
    return np.asarray(np.clip(vertex, low, high)), np.asarray(
        opens_up & (vertex > low + margin) & (vertex < high - margin)
    )


def _reason(parabola: Parabola, noise: Float64[np.ndarray, "replicates runs"]) -> str | None:
    """Say why a parabola has no minimum to rely on, or None if it has."""
    budget = f"budget {parabola.budget:.3g}"
    smallest, largest = (f"{np.exp(parabola.middle + end):.3g}" for end in parabola.reach)
    if parabola.loss[2] <= 0:
        return f"the parabola of {budget} opens downward between N = {smallest} and {largest}"
    if not _bottom(parabola.loss, parabola.reach)[1]:
        at = np.exp(parabola.middle - parabola.loss[1] / (2 * parabola.loss[2]))
        return f"the minimum of {budget}, at N = {at:.3g}, is not inside the sampled sizes {smallest} to {largest}"
    inside = _bottom(_replicates(parabola, noise), parabola.reach)[1]
    if len(inside) and inside.mean() < 1 - UNSURE:
        return f"noise moves the minimum of {budget} out of the sampled sizes {smallest} to {largest}"
    return None


def _replicates(
    parabola: Parabola, noise: Float64[np.ndarray, "replicates runs"]
) -> Float64[np.ndarray, "replicates three"]:
    return np.asarray(parabola.loss + noise[:, parabola.rows] @ parabola.solver.T)


def _through(
    parabolas: list[Parabola], noise: Float64[np.ndarray, "replicates runs"], refused: tuple[str, ...]
) -> Frontier:
    """Draw the lines through the minima, and those of every replicate."""
    curves = [np.vstack([parabola.loss, _replicates(parabola, noise)]) for parabola in parabolas]
    bottoms = [_bottom(curve, parabola.reach)[0] for curve, parabola in zip(curves, parabolas, strict=True)]
    ln_n = np.column_stack([x + parabola.middle for x, parabola in zip(bottoms, parabolas, strict=True)])
    ln_d = np.column_stack([_value(parabola.ln_tokens, x) for x, parabola in zip(bottoms, parabolas, strict=True)])
    ln_c = np.log([parabola.budget for parabola in parabolas])
    solver = np.linalg.pinv(np.vander(ln_c - ln_c.mean(), 2, increasing=True))
    N, D = ln_n @ solver.T, ln_d @ solver.T
    minima = tuple(
        Minimum(
            budget=parabola.budget,
            params=float(np.exp(n)),
            tokens=float(np.exp(d)),
            loss=float(_value(parabola.loss, x[:1])[0]),
            bend=float(parabola.loss[2]),
            sampled=(
                float(np.exp(parabola.middle + parabola.reach[0])),
                float(np.exp(parabola.middle + parabola.reach[1])),
            ),
        )
        for parabola, x, n, d in zip(parabolas, bottoms, ln_n[0], ln_d[0], strict=True)
    )
    return Frontier(
        approach=2,
        center=float(np.exp(ln_c.mean())),
        N=Line(*map(float, N[0])),
        D=Line(*map(float, D[0])),
        samples={"N": Line(*N[1:].T), "D": Line(*D[1:].T)},
        minima=minima,
        refused=refused,
    )


def _value(curve: Float64[np.ndarray, "three"], x: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    return np.asarray(curve[0] + curve[1] * x + curve[2] * x * x)


def approach3(fit: Fit) -> Frontier:
    """Take the optimum of a fitted law under C = 6ND; its interval is that of the fit's replicates.

    Raises:
        ValueError: the law does not depend on both N and D.
    """
    C, terms = fit.records.C, LAWS[fit.law].balance
    center = float(np.exp(np.log(C).mean()))
    N, D = _lines(terms(fit.values), center)
    many = _lines(terms(fit.samples), center) if fit.samples else (Line(np.empty(0), np.empty(0)),) * 2
    off = float(np.median(C / (6 * fit.records.N * fit.records.D)))
    note = None
    if abs(np.log(off)) > np.log(ABOUT):
        note = f"assumes C = 6ND, but the runs' C is {off:.3g} times that under this count of N"
    return Frontier(approach=3, center=center, N=N, D=D, samples={"N": many[0], "D": many[1]}, note=note)


def _lines(terms: Terms, center: float) -> tuple[Line, Line]:
    a = terms.beta / (terms.alpha + terms.beta)
    # `isoflop.law.laws.optimum` in logarithms: of an extreme replicate N* itself is no double
    ln_g = np.log(terms.alpha) + np.log(terms.A) - np.log(terms.beta) - np.log(terms.B)
    ln_n = ln_g / (terms.alpha + terms.beta) + a * np.log(center / 6)
    return Line(ln_n, a), Line(np.log(center / 6) - ln_n, 1 - a)
