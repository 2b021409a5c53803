"""Which runs to train next: those that tell most, for their FLOPs, of the losses ahead and of the optimal size.

A target on the loss alone puts every run on the optimal ray and never learns the allocation; one on ln N* alone runs to
the extremes; one far ahead alone forgets the way there: the loss at the target, the loss halfway to it, and ln N* of
the target count alike (`isoflop.law.information` has the arithmetic).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from isoflop.law.fit import Fit
from isoflop.law.information import Knowledge, residual_noise, trunk_share
from isoflop.law.laws import LAWS
from isoflop.record import Floats, Records, of_a_run

SPAN = 8.0
"""Candidates lie within this factor of the optimal size; beyond it the law itself is in doubt."""
SIZES = 17
"""Candidate sizes at a budget."""
STEP = 2.0
"""Candidate budgets lie this factor apart."""
REPEATS = 3
"""Most runs at one point, so that not all trust is put in one place."""
POWER = 0.8
"""Gain is ranked by gain over FLOPs to this power: 1 spends everything on tiny runs, 0 on huge ones. With no run below
the smallest trained, 0.5 left 1.16 times as much uncertainty of ln N* as 0.8 on the surface of `benchmarks/next.py`."""
OVERHEAD = 1 / 300
"""What a run costs beside its own FLOPs, over the allowance, unless it is said: so that few suffice."""
FAR = 0.2
"""Part of the allowance for the one far run that could contradict the law."""
FAR_OUT = 3.0
"""Factor beyond the largest run so far below which the farthest one proposed is told to be near."""
AHEAD = 10.0
"""The forecast to be improved lies this factor beyond the largest budget, unless said otherwise."""
DECAY = 0.2
"""Part of a branch in which its learning rate falls (arXiv:2405.18392)."""
ABOUT = 1.01
"""Factor within which a candidate still counts as lying in the range of the runs."""


class Candidate(NamedTuple):
    """A run that could be trained."""

    params: float
    tokens: float
    flops: float
    """To be spent: less than 6ND where a trunk has been trained already."""
    group: str | None
    """Trunk that it branches from."""


@dataclass(frozen=True)
class Run:
    """A run to train, and why."""

    params: float
    tokens: float
    flops: float
    group: str | None
    loss: float
    """Expected by the fit, nats per token."""
    why: str


@dataclass(frozen=True)
class Advice:
    """Runs in the order of their worth, and what they should do for what is known."""

    runs: tuple[Run, ...]
    target: float
    """FLOPs of the forecast that they serve."""
    noise: float
    """Standard deviation of ln L of one run."""
    loss_sd: tuple[float, float]
    """Standard deviation of ln L at the target's optimum, before and after."""
    size_sd: tuple[float, float]
    """Standard deviation of ln N* of the target, before and after."""
    far_sd: float
    """Standard deviation of ln L of the first run, before it is trained: the law's and its own."""
    spent: float
    """FLOPs of all the runs."""
    allowance: float
    notes: tuple[str, ...]


FAR_WHY, NEAR_WHY = "could contradict the law", "tests the law among its runs"
"""What the first run is for, beyond the largest run so far and below it."""
LEAST_NOISE, MOST_NOISE = 1e-6, 1.0
"""Below lies what a loss in single precision resolves; above, two equal runs would differ by a factor of e."""


class Limits(NamedTuple):
    """What the choice of runs must keep to."""

    allowance: float
    """FLOPs of all."""
    overhead: float
    """FLOPs that each costs beside its own."""
    smallest: float
    """FLOPs of the smallest."""
    most: float
    """Runs."""


class Goals(NamedTuple):
    """What is to be known better."""

    gradients: Float64[np.ndarray, "goals theta"]
    """Of ln L at the target's optimum, of ln L halfway there, and of ln N* of the target."""
    names: tuple[str, ...] = ("loss ahead", "loss on the way", "optimal size")


def advise(
    fit: Fit,
    allowance: float,
    *,
    target: float | None = None,
    overhead: float | None = None,
    noise: float | None = None,
    smallest: float | None = None,
    most: int | None = None,
) -> Advice:
    """Choose the runs to train next, greedily by the gain in all goals over FLOPs^POWER.

    Small runs are cheap and tell much, but far below what was trained models may not have left the plateau where they
    have learnt no more than pairs of tokens, and no law holds: docs/log.md has what it cost to go there unasked. So
    candidates are no smaller, shorter, or worse than the runs of the fit, and up to their budgets no more lopsided,
    unless `smallest` takes the law on trust.

    Args:
        fit: A law of N and D fitted to what was trained so far.
        allowance: FLOPs to spend.
        target: FLOPs of the forecast to be improved; None: ten times the largest budget, the new runs' included.
        overhead: FLOPs that any run costs beside its own (start, evaluation); None: OVERHEAD of the allowance.
        noise: Standard deviation of ln L of one run; None: from the residuals.
        smallest: Fewest FLOPs of a run; None: those of the smallest run trained.
        most: Most runs; None: as many as the allowance pays for.

    Raises:
        ValueError: a number is not positive, the allowance is too small, or the law knows no optimal size.
    """
    given = {"flops": allowance, "target": target, "overhead": overhead, "smallest": smallest, "most": most}
    _check_wish(fit, given, noise)
    limits = _limits(fit, allowance, overhead, smallest, most)
    scatter = residual_noise(fit) if noise is None else noise
    known = Knowledge(fit, scatter, shared := trunk_share(fit))
    goal = target or AHEAD * max(float(fit.records.C.max()), FAR * allowance)
    goals = _goals(fit, known, goal)
    before = [known.sd(g) for g in goals.gradients]
    far = _best(fit, FAR * allowance)
    far_sd = float(np.hypot(known.sd(known.gradients(far.params[None], far.tokens[None], [None])[0]), scatter))
    runs = _choose(fit, known, goals, limits)
    after = [known.sd(g) for g in goals.gradients]
    return Advice(
        runs=tuple(runs),
        target=goal,
        noise=scatter,
        loss_sd=(before[0], after[0]),
        size_sd=(before[2], after[2]),
        far_sd=far_sd,
        spent=sum(run.flops for run in runs),
        allowance=allowance,
        notes=_notes(runs, fit.records, shared, limits),
    )


def _check_wish(fit: Fit, given: Mapping[str, float | None], noise: float | None) -> None:
    for name, value in given.items():
        if value is not None:
            of_a_run(f"{name}={value:g}", value)
    if noise is not None and not LEAST_NOISE <= noise <= MOST_NOISE:
        raise ValueError(
            f"noise={noise:g} is the standard deviation of ln loss between equal runs; give a number from "
            f"{LEAST_NOISE:g} to {MOST_NOISE:g}, such as 0.005"
        )
    target = given["target"]
    if target is not None and target < fit.records.C.min():
        raise ValueError(
            f"target={target:.3g} lies below all runs of {fit.records.source}, whose least took "
            f"{fit.records.C.min():.3g} FLOPs; give a larger one"
        )


def _limits(fit: Fit, allowance: float, overhead: float | None, smallest: float | None, most: int | None) -> Limits:
    least, all_so_far = float(fit.records.C.min()), float(fit.records.C.sum())
    if allowance > MOST_TIMES * all_so_far:
        raise ValueError(
            f"flops={allowance:.3g} is {allowance / all_so_far:.2g} times what all runs of {fit.records.source} took, "
            f"and so far away their law says little; give {MOST_TIMES * all_so_far:.2g} or less, and ask again after"
        )
    low = least if smallest is None else smallest
    if FAR * allowance * (1 + 1e-9) < low:
        said = f"the smallest of {fit.records.source}, {least:.3g}" if smallest is None else f"--smallest {low:.3g}"
        raise ValueError(
            f"flops={allowance:.3g} is too little: the first run takes {FAR:.0%} of it, less than {said}; give "
            f"{_rounded_up(low / FAR)} or more{'' if smallest is None else ', or a lower --smallest'}"
        )
    return Limits(allowance, allowance * OVERHEAD if overhead is None else overhead, low, most or np.inf)


def _rounded_up(value: float) -> str:
    """Write a number in three digits that is no less than it."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return f"{math.ceil(value / unit * (1 - 1e-9)) * unit:.3g}"


MOST_TIMES = 1e4
"""Largest allowance over the FLOPs of all runs so far: four decades, farther than any public study fits over."""


class _Point(NamedTuple):
    params: Floats
    tokens: Floats


def _best(fit: Fit, C: float) -> _Point:
    N, D = LAWS[fit.law].optimum(fit.values, C)
    return _Point(np.asarray(N, dtype=np.float64), np.asarray(D, dtype=np.float64))


def _goals(fit: Fit, known: Knowledge, target: float) -> Goals:
    halfway = float(np.sqrt(target * max(float(fit.records.C.max()), target / AHEAD**4)))
    at = [_best(fit, C) for C in (target, halfway)]
    N, D = (np.array([float(getattr(point, name)) for point in at]) for name in ("params", "tokens"))
    return Goals(np.vstack([known.gradients(N, D, [None, None]), known.size_gradient(target)]))


def _choose(fit: Fit, known: Knowledge, goals: Goals, limits: Limits) -> list[Run]:
    """Take the far run first, then whatever gains most, until nothing fits."""
    far = _best(fit, FAR * limits.allowance)
    beyond = FAR * limits.allowance > fit.records.C.max()
    first = Candidate(float(far.params), float(far.tokens), FAR * limits.allowance, None)
    runs, left = [_take(fit, known, first, FAR_WHY if beyond else NEAR_WHY)], limits.allowance - first.flops
    grid, used = _grid(fit, limits), dict[tuple[float, float], int]()
    trunks = _trunks(fit.records)
    while True:
        options = [c for c in (*grid, *_branches(trunks, grid)) if c.flops <= left and used.get(c[:2], 0) < REPEATS]
        if not options or len(runs) >= limits.most:
            return runs
        N, D, cost = (np.array(column) for column in list(zip(*options, strict=True))[:3])
        names = [option.group for option in options]
        gains = known.gains(goals.gradients, known.gradients(N, D, names), known.own(names))
        chosen = int(np.argmax(gains.sum(1) / (cost + limits.overhead) ** POWER))
        best = options[chosen]
        runs.append(_take(fit, known, best, goals.names[int(gains[chosen].argmax())]))
        left -= best.flops
        used[best[:2]] = used.get(best[:2], 0) + 1
        if best.group is not None:
            trunks[best.group] = best.params, max(trunks[best.group][1], (1 - DECAY) * best.tokens)


def _take(fit: Fit, known: Knowledge, chosen: Candidate, why: str) -> Run:
    N, D = np.array([chosen.params]), np.array([chosen.tokens])
    known.add(known.gradients(N, D, [chosen.group])[0], float(known.own([chosen.group])[0]))
    loss = float(np.asarray(LAWS[fit.law].loss(fit.values, N=chosen.params, D=chosen.tokens)))
    return Run(*chosen, loss=loss, why=why)


def _grid(fit: Fit, limits: Limits) -> list[Candidate]:
    """Budgets from the smallest to half the allowance, sizes around the optimum of each, as far as the runs vouch."""
    low, high = limits.smallest, max(limits.smallest, limits.allowance / 2)
    out = []
    for C in np.geomspace(low, high, max(2, round(np.log(high / low) / np.log(STEP)) + 1)):
        N = float(_best(fit, float(C)).params) * np.geomspace(1 / SPAN, SPAN, SIZES)
        out += [Candidate(float(n), float(C / (6 * n)), float(C), None) for n in N]
    return [one for one in out if _vouched(fit, one, limits)]


def _vouched(fit: Fit, one: Candidate, limits: Limits) -> bool:
    """Whether the runs reach down to a candidate: see `advise`; a wish for smaller ones is taken at its word."""
    runs = fit.records
    if limits.smallest < runs.C.min() / ABOUT:
        return True
    loss = float(np.asarray(LAWS[fit.law].loss(fit.values, N=one.params, D=one.tokens)))
    small = one.params * ABOUT < runs.N.min() or one.tokens * ABOUT < runs.D.min() or loss > ABOUT * runs.L.max()
    ratio = one.tokens / one.params
    lopsided = not runs.M.min() / ABOUT <= ratio <= runs.M.max() * ABOUT
    return not (small or (lopsided and one.flops <= runs.C.max()))


def _trunks(records: Records) -> dict[str, tuple[float, float]]:
    """Return by group its size and the tokens of its trunk before any decay; groups of one size and several lengths."""
    out: dict[str, tuple[float, float]] = {}
    for group in dict.fromkeys(run.group for run in records.runs if run.group is not None):
        rows = [i for i, run in enumerate(records.runs) if run.group == group]
        if len(rows) > 1 and np.ptp(np.log(records.N[rows])) < 0.01:
            out[group] = float(records.N[rows[0]]), (1 - DECAY) * float(records.D[rows].max())
    return out


def _branches(trunks: Mapping[str, tuple[float, float]], grid: list[Candidate]) -> list[Candidate]:
    """Return branches of each trunk at the grid's budgets; only what it lacks, and the decay, is trained."""
    budgets = sorted({6 * c.params * c.tokens for c in grid})
    out = []
    for group, (N, length) in trunks.items():
        for C in budgets:
            D = C / (6 * N)
            stable = max(0.0, (1 - DECAY) * D - length)
            out.append(Candidate(N, D, 6 * N * (stable + DECAY * D), group))
    return out


def trunk_cost(lengths: Floats, decay: float) -> float:
    """FLOPs of one trunk with a decay branch for each length, over those of separate runs (arXiv:2405.18392).

    [C_max + f·Σ_{i<max} C_i]/ΣC_i, lengths in tokens or FLOPs.
    """
    rest = float(np.sum(lengths) - np.max(lengths))
    return float((np.max(lengths) + decay * rest) / np.sum(lengths))


def _notes(runs: list[Run], records: Records, shared: float, limits: Limits) -> tuple[str, ...]:
    notes = []
    farthest = max(6 * run.params * run.tokens for run in runs) / float(records.C.max())
    if farthest < FAR_OUT:
        notes.append(
            f"the farthest of these runs takes {farthest:.2g} times the FLOPs of the largest run so far; a larger "
            "allowance would test the law farther out"
        )
    if limits.smallest < records.C.min() / ABOUT:
        notes.append(
            f"runs down to {limits.smallest:.3g} FLOPs are allowed, but none below {records.C.min():.3g} was trained: "
            f"their worth rests on the law holding there; --smallest {records.C.min():.3g} allows none"
        )
    if shared > 0:
        notes.append(f"branches of one trunk share {shared:.0%} of the noise's variance")
    return tuple(notes)
