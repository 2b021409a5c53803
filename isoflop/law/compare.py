"""Two recipes side by side: how many times A's compute reaches B's loss, at every budget, and how sure that is.

Each recipe's best losses follow a frontier L = L∞ + a·x^-α in what is counted: FLOPs, tokens or hours. The multiplier
at x is x_A/x, where A's frontier has at x_A the loss that B's has at x. For equal L∞ and α it is
((L_A − L∞)/(L_B − L∞))^(1/α) at every budget.

Measured (benchmarks/compare.py, 120 simulated pairs of recipes a case): the nominal 90 % interval holds 86 % in the
mean with 5 budgets, 90 % with 8, and 99 % where the noise of pairs correlates by 0.9, which is believed only in part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float64

from isoflop.counts import number_of
from isoflop.law.frontier import SAME_BUDGET, levels
from isoflop.law.points import Per, Points, points
from isoflop.law.power import FLATTEST, Curves, common_floor, lines_at, pick
from isoflop.law.uncertainty import Interval, check_draws, generator, interval
from isoflop.record import Floats, Records, of_a_run

Floor = Literal["common", "free"] | float
"""L∞: one for both recipes, each its own, or known."""
PAIRS = 6
"""Fewest pairs of runs from which a correlation of their noise is believed; of five, chance alone makes 0.8."""
MOST_MISFIT = 0.9
"""Largest correlation of neighbouring errors that is reckoned with."""
FOLLOWING = 0.3
"""A correlation from which it is said."""
AHEAD = 10.0
"""Extrapolation, in times the largest common budget."""
MANY = 1000
"""More runs than this are as good as none."""


class Row(NamedTuple):
    """The multiplier at one x of recipe B."""

    x: float
    multiplier: float
    low: float | None
    """90 % interval; None where there are no more points than parameters."""
    high: float | None
    trained: bool
    """Both recipes have runs of this budget; else extrapolated."""


@dataclass(frozen=True)
class Comparison:
    """What two recipes' runs say of each other."""

    sources: tuple[str, str]
    per: Per
    floor: Floor
    points: tuple[Points, Points]
    curves: tuple[Curves, Curves]
    """Of the runs as they are."""
    replicates: tuple[Curves, Curves]
    rows: tuple[Row, ...]
    """At the common budgets, then extrapolated."""
    noise: float | None
    """Standard deviation of ln L about the frontiers."""
    misfit: float
    """Correlation of neighbouring budgets' errors: above 0 the frontiers bend otherwise than the losses do."""
    correlation: float
    """Of the noise of runs paired by budget and seed."""
    pairs: int
    verdict: str

    def multiplier(self, x: Floats) -> Interval:
        """How many times x recipe A needs for B's loss at x, with a 90 % interval."""
        value, many = (np.atleast_2d(_ratio(*curves, x)) for curves in (self.curves, self.replicates))
        if not len(many):
            return Interval(value[0], None, None)
        # neighbouring replicates may lie one on either side of infinity, where no percentile between them exists
        low, high = np.percentile(many, (5, 95), axis=0, method="inverted_cdf")
        return Interval(value[0], low, high)

    @property
    def on_bounds(self) -> list[str]:
        """Say which numbers of the frontiers ended where the search does."""
        told = list[str]()
        for name, curve, side in zip("AB", self.curves, self.points, strict=True):
            floor, alpha = float(curve.floor[0]), float(curve.alpha[0])
            if not isinstance(self.floor, float):
                if floor <= 1e-9 * side.loss.min():
                    told.append(f"L∞ of {name} ended on its bound, 0 nats per token: its losses tell no floor")
                elif floor >= side.loss.min() * (1 - 2e-6):
                    told.append(f"L∞ of {name} ended on its bound, its own lowest loss, {floor:.4f} nats per token")
            if alpha <= FLATTEST:
                told.append(
                    f"α of {name} ended on its bound, {FLATTEST:g}: its losses do not fall with what is counted"
                )
        return told

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite multiplier is null."""
        return {
            "sources": list(self.sources),
            "per": self.per,
            "floor": self.floor,
            "floors": [interval(float(one.floor[0]), many.floor)._asdict() for one, many in self._sides()],
            "alphas": [interval(float(one.alpha[0]), many.alpha)._asdict() for one, many in self._sides()],
            "rows": [{name: _plain(value) for name, value in row._asdict().items()} for row in self.rows],
            "noise": self.noise,
            "misfit": self.misfit,
            "correlation": self.correlation,
            "pairs": self.pairs,
            "on_bounds": self.on_bounds,
            "verdict": self.verdict,
        }

    def _sides(self) -> list[tuple[Curves, Curves]]:
        return list(zip(self.curves, self.replicates, strict=True))


def _plain(value: float | bool | None) -> float | bool | None:
    return None if value is None or not np.isfinite(value) else value


def compare(
    a: Records,
    b: Records,
    *,
    per: Per = "flop",
    floor: Floor = "common",
    at: float | None = None,
    replicates: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Say how many times A's compute (or tokens, or hours) reaches B's loss.

    The interval is that of frontiers fitted again to losses with new noise: normal, as large as the scatter about both
    frontiers (with its own uncertainty: Student's t), and correlated within pairs of one budget and seed as the runs'.

    Args:
        a: Runs of recipe A.
        b: Runs of recipe B.
        per: What is counted.
        floor: L∞ of the frontiers.
        at: Where to extrapolate to, in what is counted; None: ten times the largest common budget.
        replicates: Draws of noise; 0: no interval.
        seed: Seed of the draws.

    Raises:
        ValueError: there are too few budgets or draws, none in common, or what is counted was not measured.
    """
    _check_wish(per, at, replicates)
    both = points(a, per), points(b, per)
    common = _common(*both)
    _check((a, b), both, common, floor)
    ln_loss = tuple(np.log(part.loss)[None] for part in both)
    curves = _fit(both, ln_loss, floor)
    spare = len(both[0].x) + len(both[1].x) - {"common": 5, "free": 6}.get(str(floor), 4)
    errors = [part[0] - np.log(curve.loss(side.x)[0]) for part, curve, side in zip(ln_loss, curves, both, strict=True)]
    noise = float(np.sqrt(sum((error**2).sum() for error in errors) / spare)) if spare > 0 else None
    correlation = _correlation(errors, common)
    misfit = _misfit(both, errors)
    # n errors that follow each other tell as much as n·(1 − ρ)/(1 + ρ) that do not
    spread = (noise or 0.0) * float(np.sqrt((1 + misfit) / (1 - misfit)))
    count = replicates if noise is not None else 0
    drawn = _draw(curves, both, common, spread, correlation, spare, count, generator(seed))
    many = _fit(both, drawn, floor) if count else (_none(), _none())
    result = Comparison(
        sources=(a.source, b.source),
        per=per,
        floor=floor,
        points=both,
        curves=curves,
        replicates=many,
        rows=(),
        noise=noise,
        misfit=misfit,
        correlation=correlation,
        pairs=len(common),
        verdict="",
    )
    return _judged(result, common, at)


def _check_wish(per: Per, at: float | None, replicates: int) -> None:
    if at is not None:
        of_a_run(f"at={at:g} {UNITS[per]}", at)
    check_draws("--replicates", replicates)


def _common(a: Points, b: Points) -> list[tuple[int, int]]:
    """Pair the points of both recipes by budget, and by seed where seeds are known; each point once."""
    pairs, taken = list[tuple[int, int]](), set[int]()
    for j, (budget, seed) in enumerate(zip(b.budget, b.seed, strict=True)):
        near = [
            i for i in range(len(a.x)) if i not in taken and abs(np.log(a.budget[i] / budget)) < np.log(SAME_BUDGET)
        ]
        same = [i for i in near if a.seed[i] == seed]
        if same or near:
            pairs.append(((same or near)[0], j))
            taken.add(pairs[-1][0])
    return pairs


def _check(
    records: tuple[Records, Records], both: tuple[Points, Points], common: list[tuple[int, int]], floor: Floor
) -> None:
    needed = 3 if floor == "free" else 2
    for part, side in zip(records, both, strict=True):
        budgets = int(levels(side.budget).max()) + 1
        if budgets < needed:
            raise ValueError(
                f"{part.source} has budgets: {budgets}, where a frontier with a {floor} floor needs {needed}; add "
                f"runs at other budgets"
            )
        if len(set(side.x.tolist())) < needed:
            raise ValueError(
                f"{part.source} has runs at {len(set(side.x.tolist()))} different values of what is counted, where a "
                f"frontier with a {floor} floor needs {needed}; add runs, or count per FLOP"
            )
        if isinstance(floor, float) and not 0 <= floor < side.loss.min():
            raise ValueError(
                f"floor={floor:g} must lie below every loss of {part.source}, whose least is {side.loss.min():.4g}"
            )
    if floor == "common" and len(both[0].x) + len(both[1].x) < 5:
        raise ValueError("two recipes of two budgets each cannot tell a common floor; add budgets, or give --floor")
    if not common:
        raise ValueError(
            f"{records[0].source} and {records[1].source} have no budget in common (within 10 %); add runs"
        )


def _fit(both: tuple[Points, Points], ln_loss: tuple[Floats, ...], floor: Floor) -> tuple[Curves, Curves]:
    """Fit both frontiers to every replicate of the losses: L∞ by search, the rest by weighted least squares of ln L."""
    losses = [np.exp(part) for part in ln_loss]
    x = [np.log(side.x) for side in both]
    if isinstance(floor, float):
        known = np.full((len(losses[0]), 1), floor)
        return pick(lines_at(x[0], losses[0], known)), pick(lines_at(x[1], losses[1], known))
    if floor == "free":
        return common_floor([x[0]], [losses[0]])[0], common_floor([x[1]], [losses[1]])[0]
    first, second = common_floor(x, losses)
    return first, second


def _correlation(errors: list[Floats], common: list[tuple[int, int]]) -> float:
    """Return the lower 95 % limit of the correlation (Fisher's z), for one too high would make intervals too narrow."""
    if len(common) < PAIRS:
        return 0.0
    first, second = (errors[k][[pair[k] for pair in common]] for k in (0, 1))
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    if size <= 1e-12:
        return 0.0
    found = float(np.clip((first * second).sum() / size, -0.999, 0.999))
    return max(0.0, float(np.tanh(np.arctanh(found) - 1.645 / np.sqrt(len(common) - PAIRS + 1))))


def _misfit(both: tuple[Points, Points], errors: list[Floats]) -> float:
    """Correlate the errors of neighbouring budgets, both recipes together; at least 0, for a fit makes it negative."""
    products, squares = 0.0, 0.0
    for side, error in zip(both, errors, strict=True):
        level = levels(side.budget)
        mean = np.bincount(level, error) / np.bincount(level)
        products += float((mean[1:] * mean[:-1]).sum()) * len(mean) / max(1, len(mean) - 1)
        squares += float((mean**2).sum())
    return float(np.clip(products / squares, 0.0, MOST_MISFIT)) if squares > 1e-20 else 0.0


def _draw(
    curves: tuple[Curves, Curves],
    both: tuple[Points, Points],
    common: list[tuple[int, int]],
    noise: float,
    correlation: float,
    spare: int,
    count: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Draw ln losses of both recipes: the frontiers' and new noise, whose size is itself drawn."""
    first, second = (rng.standard_normal((count, len(side.x))) for side in both)
    for i, j in common:
        second[:, j] = correlation * first[:, i] + np.sqrt(1 - correlation**2) * second[:, j]
    size = noise * np.sqrt(max(spare, 1) / rng.chisquare(max(spare, 1), size=(count, 1)))
    means = [np.log(curve.loss(side.x)) for curve, side in zip(curves, both, strict=True)]
    return means[0] + size * first, means[1] + size * second


def _none() -> Curves:
    return Curves(np.empty(0), np.empty(0), np.empty(0))


def _ratio(a: Curves, b: Curves, x: Floats) -> Float64[np.ndarray, "replicates x"]:
    return a.needed(b.loss(x)) / x


def _judged(result: Comparison, common: list[tuple[int, int]], at: float | None) -> Comparison:
    """Add the rows and the verdict."""
    trained = np.unique(result.points[1].x[[j for _, j in common]])
    ahead = AHEAD * float(trained.max()) if at is None else at
    x = np.append(trained, ahead)
    value, low, high = result.multiplier(x)
    rows = tuple(
        Row(
            float(x[i]),
            float(np.asarray(value)[i]),
            None if low is None else float(np.asarray(low)[i]),
            None if high is None else float(np.asarray(high)[i]),
            i < len(trained),
        )
        for i in range(len(x))
    )
    if _same(*result.points):
        return Comparison(**{**vars(result), "rows": rows, "verdict": SAME_RUNS})
    runs, asked = len(result.points[0].x) + len(result.points[1].x), result.noise is None or low is not None
    told = _verdict(rows, runs, UNITS[result.per], asked=asked)
    if result.misfit > FOLLOWING:
        told += f"; the losses bend otherwise than L∞ + a·x^-α (neighbouring errors correlate by {result.misfit:.2f}), "
        told += "which widens the intervals: leave out the smallest budgets if they are off the law"
    return Comparison(**{**vars(result), "rows": rows, "verdict": told})


SAME_RUNS = "not decided: A and B are the same runs; give the runs of another recipe"
"""What is said where a recipe is set beside itself."""


def _same(a: Points, b: Points) -> bool:
    return len(a.x) == len(b.x) and all(
        bool((np.sort(p) == np.sort(q)).all()) for p, q in ((a.x, b.x), (a.loss, b.loss))
    )


def _verdict(rows: tuple[Row, ...], runs: int, unit: str, *, asked: bool) -> str:
    """Say in words what the rows say."""
    first, last = rows[0], rows[-1]
    span = f"from {first.x:.3g} to {last.x:.3g} {unit}"
    if any(row.low is None for row in rows):
        why = "no more points than parameters, so no interval" if asked else "without draws there is no interval"
        word = "better" if last.multiplier > 1 else "worse"
        return f"not decided: {why} (the curves alone say B is {word} at {last.x:.3g} {unit})"
    up = [row for row in rows if row.low is not None and row.low > 1]
    down = [row for row in rows if row.high is not None and row.high < 1]
    if len(up) == len(rows) or len(down) == len(rows):
        size = f"{last.multiplier:.3g} ({last.low:.3g} to {last.high:.3g})"
        if up:
            return f"B is better {span}; at the last A needs {size} times the {unit} for B's loss"
        return f"B is worse {span}; at the last {size} of the {unit} suffice A for B's loss"
    if up and down:
        where = _crossing(rows)
        before, after = ("better", "worse") if up[0].x < down[0].x else ("worse", "better")
        return f"B crosses A at about {where:.2g} {unit}: {before} below, {after} above"
    if up or down:
        word, decided = ("better", up) if up else ("worse", down)
        part = f"B is {word} from {decided[0].x:.3g} to {decided[-1].x:.3g} {unit}; not decided elsewhere"
        return part + (f" ({_more(last, runs, unit)})" if last not in decided else "")
    return f"not decided by these runs; {_more(last, runs, unit)}"


def _crossing(rows: tuple[Row, ...]) -> float:
    """Return where the multiplier is 1, between two rows, by interpolation in logarithms."""
    x = np.log([row.x for row in rows])
    y = np.log(np.clip([row.multiplier for row in rows], 1e-300, 1e300))
    turns = np.flatnonzero(np.diff(np.sign(y)) != 0)
    if not turns.size:  # intervals may leave 1 where the curves themselves do not
        return float(np.exp(x.mean()))
    turn = int(turns[0])
    return float(np.exp(x[turn] - y[turn] * (x[turn + 1] - x[turn]) / (y[turn + 1] - y[turn])))


def _more(row: Row, runs: int, unit: str) -> str:
    """Say how many more points would decide a row, if its multiplier stayed and its interval shrank as 1/√n."""
    assert row.low is not None and row.high is not None
    effect = abs(np.log(row.multiplier)) if 0 < row.multiplier < np.inf else np.inf
    below, above = max(row.low, 1e-300), min(row.high, 1e300)
    reach = np.log(row.multiplier / below) if row.multiplier > 1 else np.log(above / row.multiplier)
    more = runs * ((reach / effect) ** 2 - 1) if effect > 0 else np.inf
    if not more < MANY:
        return f"more than {MANY} further points like these would be needed at {row.x:.3g} {unit}"
    points = number_of(max(1, int(np.ceil(more))), "further point")
    return f"about {points} like these would decide at {row.x:.3g} {unit}"


UNITS: Mapping[Per, str] = {"flop": "FLOPs", "token": "tokens", "hour": "hours"}
