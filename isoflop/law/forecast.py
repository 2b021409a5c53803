"""The loss of runs that do not exist yet, with an interval that held on public series beyond their fitted range.

Measured on the 16 series of 5 public sources: runs up to C_max/10 fitted, the rest forecast, 91 % of them inside the
nominal 90 % interval (mean over series; C_max/30: 87 %), where a bootstrap of approach 3 covers 37 % (44 %).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from isoflop.law.fit import STARTS, check, order, pose
from isoflop.law.frontier import levels
from isoflop.law.laws import LAWS, Value
from isoflop.law.solve import Prior, Problem, residuals, solve, starts
from isoflop.record import Floats, Records

HUBER = 1.345
"""Threshold in units of the scale: 95 % of the efficiency of least squares under normal noise (Huber 1981)."""
LEAST_SCALE = 5e-4
"""Smallest scale of residuals in ln L; two seeds of one run differ by more."""
NORMAL_90 = 1.645
"""Half the width of a normal's central 90 %, in standard deviations."""
KAPPA = 0.004
"""Growth of the error in ln L by unit of ln C beyond the runs, as far as the inner back-tests do not say otherwise."""
CUTS = 8
"""Most inner back-tests."""
FEWEST_INNER = 8
"""Fewest runs, and FEWEST_SIZES the fewest different N and D, that an inner back-test fits."""
FEWEST_SIZES = 3


class Member(NamedTuple):
    """One of the laws that a forecast averages; runs weigh ∝ C^power."""

    law: str
    power: float


MEMBERS = (Member("coupled", 1.0), Member("coupled", 0.3), Member("chinchilla", 1.0), Member("symmetric", 0.3))


@dataclass(frozen=True)
class Forecast:
    """Expected losses of targets, nats per token, and their 90 % intervals."""

    N: Floats
    D: Floats
    C: Floats
    mean: Floats
    low: Floats
    high: Floats
    spread: Floats
    """Standard deviation of the laws, in ln L."""
    reach: Floats
    """C over the largest C of the runs: above 1 is extrapolation."""
    noise: float
    """Residual rms of the runs in ln L, weighted by C."""
    kappa: float
    """Growth of the error in ln L by unit of ln C beyond the runs."""
    backtests: int
    """Inner back-tests that kappa rests on; 0: too few budgets, so kappa is what public series showed."""

    def basis(self) -> str:
        """Say in a sentence where the interval comes from."""
        grows = (
            f"{self.backtests} inner back-tests" if self.backtests else "public series (too few budgets to back-test)"
        )
        return f"four laws averaged; interval from their spread, the residuals, and growth with ln C from {grows}"


def forecast(records: Records, *, N: Value, D: Value, C: Value | None = None) -> Forecast:
    """Forecast the losses of runs of N parameters on D tokens for C FLOPs (None: 6ND).

    Point: mean in ln L of four laws fitted by penalised likelihood. Interval:
    ±1.645·√(noise² + (κ·ln(C/C_max))² + spread²) in ln L.

    Raises:
        ValueError: the runs cannot be fitted, or a target is no positive number.
    """
    N, D = np.broadcast_arrays(np.atleast_1d(np.asarray(N, dtype=np.float64)), np.asarray(D, dtype=np.float64))
    C = np.broadcast_to(6 * N * D if C is None else np.asarray(C, dtype=np.float64), N.shape)
    for name, values in (("params", N), ("tokens", D), ("flops", C)):
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"{name}={values.min():g} of a forecast must be a positive number")
    check(records, LAWS["chinchilla"])
    runs = records.take(order(records))
    level = levels(runs.C)
    cuts = _cuts(runs, level)
    among = np.vstack([np.ones((1, len(runs)), dtype=bool), level <= cuts[:, None]])
    fitted = _fit_members(runs, among)
    noise = fitted.noise()
    kappa = _kappa(fitted, noise, level, cuts)
    ln_loss = fitted.ln_loss(N, D)[:, 0]
    mean, spread = ln_loss.mean(0), ln_loss.std(0)
    reach = C / runs.C.max()
    growth = kappa * np.maximum(0.0, np.log(reach))
    half = NORMAL_90 * np.sqrt(noise[0] ** 2 + growth**2 + spread**2)
    return Forecast(
        N=N,
        D=D,
        C=C,
        mean=np.exp(mean),
        low=np.exp(mean - half),
        high=np.exp(mean + half),
        spread=spread,
        reach=reach,
        noise=float(noise[0]),
        kappa=kappa,
        backtests=len(cuts),
    )


@dataclass(frozen=True)
class _Fitted:
    """The members, each fitted to every subset of the runs."""

    runs: Records
    among: Bool[np.ndarray, "subsets runs"]
    scale: Mapping[str, float]
    theta: tuple[Float64[np.ndarray, "subsets _"], ...]
    """By member."""

    def ln_loss(self, N: Floats, D: Floats) -> Float64[np.ndarray, "members subsets targets"]:
        """Return ln L of each member fitted to each subset."""
        at = {"N": N / self.scale["N"], "D": D / self.scale["D"]}
        curves = []
        for member, theta in zip(MEMBERS, self.theta, strict=True):
            law = LAWS[member.law]
            parameters = {name: np.exp(theta[:, [i]]) for i, name in enumerate(law.parameters)}
            curves.append(np.log(law(**at, **parameters)) + np.log(self.scale["L"]))
        return np.stack(curves)

    def noise(self) -> Float64[np.ndarray, "subsets"]:
        """Return the residual rms of each subset's own runs in ln L, weighted by C as the forecasts lie at its end."""
        residual = self.ln_loss(self.runs.N, self.runs.D).mean(0) - np.log(self.runs.L)
        weights = self.among * self.runs.C
        return np.asarray(np.sqrt((weights * residual**2).sum(1) / weights.sum(1)))


def _fit_members(runs: Records, among: Bool[np.ndarray, "subsets runs"]) -> _Fitted:
    problem, scale = pose(runs, LAWS["chinchilla"])
    problem = replace(problem, weights=among.astype(np.float64), delta=np.repeat(problem.delta, len(among)))
    sigma = _robust_scale(problem)
    return _Fitted(runs, among, scale, tuple(_penalised(problem, member, runs.C, sigma) for member in MEMBERS))


def _robust_scale(problem: Problem) -> Float64[np.ndarray, "subsets"]:
    """1.4826·MAD of the residuals of the plain fit of each subset."""
    start = np.repeat(starts(problem.law, STARTS)[:, None], len(problem.weights), axis=1)
    residual = residuals(problem, solve(problem, start).theta)
    own = np.where(problem.weights > 0, residual, np.nan)
    away = np.abs(own - np.nanmedian(own, axis=1, keepdims=True))
    return np.asarray(np.maximum(1.4826 * np.nanmedian(away, axis=1), LEAST_SCALE))


def _penalised(
    problem: Problem, member: Member, C: Floats, sigma: Float64[np.ndarray, "subsets"]
) -> Float64[np.ndarray, "subsets params"]:
    """Fit one law to each subset, with weak priors on its exponents, its floor and its coupling."""
    law = LAWS[member.law]
    among = problem.weights > 0
    weights = among * (C / C.max()) ** member.power
    weights *= among.sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    lowest = np.where(among, problem.ln_loss, np.inf).min(1)
    flat = np.zeros(len(lowest))
    outer = ("k",) if "k" in law.parameters else ()
    exponents = [name for name in ("alpha", "beta") if name in law.parameters]
    priors = [Prior((name, *outer), flat + 0.35, 0.15) for name in exponents]
    priors.append(Prior(("E",), lowest + np.log(0.6), 0.35, log=True))
    priors += [Prior((name,), flat, 0.5, log=True) for name in outer]
    posed = replace(problem, law=law, weights=weights / sigma[:, None] ** 2, delta=HUBER * sigma, priors=tuple(priors))
    return solve(posed, np.repeat(starts(law, STARTS // 2)[:, None], len(sigma), axis=1)).theta


def _cuts(runs: Records, level: Int64[np.ndarray, "runs"]) -> Int64[np.ndarray, "cuts"]:
    """Return the levels, evenly spread in ln C, up to which the runs suffice for a fit and beyond which others lie."""
    usable, ends = [], []
    for cut in range(int(level.max())):
        inner = level <= cut
        sizes = min(len(np.unique(np.round(np.log(column[inner]), 2))) for column in (runs.N, runs.D))
        if inner.sum() >= FEWEST_INNER and sizes >= FEWEST_SIZES:
            usable.append(cut)
            ends.append(np.log(runs.C[inner].max()))
    if len(usable) > CUTS:
        wanted = np.linspace(ends[0], ends[-1], CUTS)
        nearest = np.abs(np.subtract.outer(wanted, ends)).argmin(1)
        usable = sorted({usable[i] for i in nearest})
    return np.array(usable, dtype=np.int64)


def _kappa(
    fitted: _Fitted,
    noise: Float64[np.ndarray, "subsets"],
    level: Int64[np.ndarray, "runs"],
    cuts: Int64[np.ndarray, "cuts"],
) -> float:
    """Find κ by its posterior mode: the rms error of a cut's next runs is normal with the forecast's own variance."""
    runs = fitted.runs
    ln_loss = fitted.ln_loss(runs.N, runs.D)
    ln_kappa = np.log(KAPPA) + np.linspace(-5, 5, 401)
    cost = 0.5 * (ln_kappa - np.log(KAPPA)) ** 2
    for subset, cut in enumerate(cuts, start=1):
        following = level == cut + 1
        error = ((ln_loss[:, subset, following].mean(0) - np.log(runs.L[following])) ** 2).mean()
        away = np.log(runs.C[following].mean() / runs.C[level <= cut].max())
        known = noise[subset] ** 2 + ln_loss[:, subset, following].var(0).mean()
        variance = known + (np.exp(ln_kappa) * away) ** 2
        cost = cost + 0.5 * (np.log(variance) + error / variance)
    return float(np.exp(ln_kappa[cost.argmin()]))
