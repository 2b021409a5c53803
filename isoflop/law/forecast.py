"""The loss of runs that do not exist yet, with an interval that held on public series beyond their fitted range.

Measured by `benchmarks/forecast.py` on 16 series of 5 public sources: runs up to C_max/10 (C_max/30) fitted, the rest
forecast. In brackets approach 3 with a bootstrap. What was tried, and how far to trust the choice: docs/log.md.

    =====================================  ===============  ===============
    .                                      C_max/10         C_max/30
    =====================================  ===============  ===============
    median error, mean over sources        1.09 % (2.28 %)  1.19 % (2.45 %)
    inside 90 % interval, mean of series   0.942 (0.374)    0.852 (0.458)
    inside 90 % interval, of all runs      0.915 (0.262)    0.856 (0.367)
    interval score in ln L                 0.108 (0.611)    0.169 (0.644)
    =====================================  ===============  ===============
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from isoflop.law.fit import LEAST_SCALE, check, order, pose
from isoflop.law.frontier import levels
from isoflop.law.laws import LAWS, Value
from isoflop.law.solve import Prior, Problem, expand, residuals, solve, starts
from isoflop.record import Floats, Records

HUBER = 1.345
"""Threshold in units of the scale: 95 % of the efficiency of least squares under normal noise (Huber 1981)."""
SCALE_STARTS = 4
"""Starts of the plain fit that gives the scale: 8 move a forecast by 6e-4 of its loss at most, on 87 tables."""
PENALISED_STARTS = 2
"""Starts of a fit under priors; on the same 87 tables 1, 2, 4 and 8 find the same optimum."""
NORMAL_90 = 1.645
"""Half the width of a normal's central 90 %, in standard deviations."""
KAPPA = 0.006
"""Growth of the error in ln L by unit of ln C beyond the runs, as far as the inner back-tests do not say otherwise."""
KAPPA_SPREAD = 0.3
"""Standard deviation of ln κ before them; it and KAPPA are chosen as docs/log.md tells."""
CUTS = 8
"""Most inner back-tests."""
FEWEST_INNER = 8
"""Fewest runs, and FEWEST_SIZES the fewest different N and D, that an inner back-test fits."""
FEWEST_SIZES = 3
FITTED = 4
"""Parameters that a fit under these priors spends of its runs: five of the law, less what the priors hold."""
ALIKE = 0.5
"""Runs tell the noise of a target by how near their ln(D/N) is: the standard deviation of the weight."""
ELSEWHERE = 1e-4
"""Part of its weight that a run keeps far from the target, so that a target far from all runs has their mean noise."""


LAW = "coupled"
"""L = E + (A/N^α + B/D^β)^k: between the plain law (k = 1) and that of arXiv:2001.08361 (E = 0)."""


class Member(NamedTuple):
    """One of the fits that are averaged."""

    power: float
    """Runs weigh ∝ C^power: from all runs nearly alike to the dearest above all."""
    coupling: float
    """Standard deviation of ln k before the runs are seen; its mean is 0, the plain law."""


PLAIN = 0.01
"""A coupling that holds k at 1: the plain law."""
MEMBERS = (Member(0.3, 0.5), Member(1.0, 0.5), Member(1.5, 0.5), Member(0.3, PLAIN), Member(1.0, PLAIN))
"""How much they differ tells whether the runs lie in one regime of scaling, and what hangs on the form of the law."""
EXPONENT = (0.35, 0.1)
"""αk and βk before the runs are seen, normal: mean and standard deviation. Near it lie arXiv:2203.15556 (0.34, 0.28),
arXiv:2404.10102 (0.35, 0.37) and arXiv:2305.16264 (0.35, 0.35)."""
FLOOR = (0.6, 0.25)
"""E over the runs' least loss, lognormal: median and standard deviation of the logarithm."""


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
    """Standard deviation of the fits among each other, in ln L."""
    sampling: Floats
    """Standard deviation of a fit by the noise of its runs and the width of its priors, in ln L."""
    reach: Floats
    """C over the largest C of the runs: above 1 is extrapolation."""
    depth: Floats
    """C over the smallest C of the runs: below 1 too, where the runs tell nothing and no back-test went."""
    noise: Floats
    """Residual rms in ln L of the runs nearest the target: weighted by C, and by how alike D/N is."""
    kappa: float
    """Growth of the error in ln L by unit of ln C beyond the runs."""
    backtests: int
    """Inner back-tests that kappa rests on; 0: too few budgets, so kappa is what public series showed."""

    def basis(self) -> str:
        """Say in a sentence where the interval comes from."""
        tests = "1 back-test on the runs" if self.backtests == 1 else f"{self.backtests} back-tests on the runs"
        grows = tests if self.backtests else "public series, as the runs have too few budgets"
        return (
            f"mean of {len(MEMBERS)} fits that differ in form and in how runs weigh; interval from their spread, the "
            f"noise of the runs, and growth beyond them as seen in {grows}"
        )


def forecast(records: Records, *, N: Value, D: Value, C: Value | None = None) -> Forecast:
    """Forecast the losses of runs of N parameters on D tokens for C FLOPs (None: 6ND).

    Point: mean in ln L of the fits of LAW by penalised likelihood, one for each of MEMBERS. Interval:
    ±1.645·√(noise² + sampling² + spread² + (κ·ln(C/C_max))²) in ln L.

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
    fitted = _fit(runs, among)
    own = fitted.at(runs.N, runs.D)
    error = own.mean - np.log(runs.L)
    kappa = _kappa(fitted, own, error, level, cuts)
    mean, spread, sampling = (part[0] for part in fitted.at(N, D))
    noise = fitted.noise(error, np.log(D / N))[0]
    reach = C / runs.C.max()
    growth = kappa * np.maximum(0.0, np.log(reach))
    half = NORMAL_90 * np.sqrt(noise**2 + sampling**2 + spread**2 + growth**2)
    return Forecast(
        N=N,
        D=D,
        C=C,
        mean=np.exp(mean),
        low=np.exp(mean - half),
        high=np.exp(mean + half),
        spread=spread,
        sampling=sampling,
        reach=reach,
        depth=C / runs.C.min(),
        noise=noise,
        kappa=kappa,
        backtests=len(cuts),
    )


class _At(NamedTuple):
    """What the fits to each subset of the runs say at some points, in ln L."""

    mean: Float64[np.ndarray, "subsets points"]
    spread: Float64[np.ndarray, "subsets points"]
    sampling: Float64[np.ndarray, "subsets points"]


@dataclass(frozen=True)
class _Fitted:
    """The law fitted to every subset of the runs with every weighting."""

    runs: Records
    among: Bool[np.ndarray, "subsets runs"]
    scale: Mapping[str, float]
    theta: Float64[np.ndarray, "fits params"]
    covariance: Float64[np.ndarray, "fits params params"]

    def at(self, N: Floats, D: Floats) -> _At:
        """Return mean, spread and errors at some points."""
        at = {"N": N / self.scale["N"], "D": D / self.scale["D"]}
        value, slope = _linear(at, self.theta)
        variance = np.einsum("bpt,bpq,bqt->bt", slope, self.covariance, slope)
        ln_loss, variance = (part.reshape(len(MEMBERS), -1, len(N)) for part in (np.log(value), variance))
        mean = ln_loss.mean(0) + np.log(self.scale["L"])
        return _At(mean, ln_loss.std(0), np.sqrt(variance.mean(0)))

    def noise(self, error: Float64[np.ndarray, "subsets runs"], ln_ratio: Floats) -> Float64[np.ndarray, "subsets _"]:
        """Return the rms error of each subset's own runs, the dear ones and those of like D/N before all."""
        away = np.subtract.outer(ln_ratio, np.log(self.runs.D / self.runs.N)) / ALIKE
        near = np.exp(-0.5 * away**2) + ELSEWHERE
        dear = self.among * self.runs.C / np.where(self.among, self.runs.C, 0.0).max(1, keepdims=True)
        count = self.among.sum(1, keepdims=True)
        square = (dear * error**2) @ near.T / (dear @ near.T)
        return np.asarray(np.sqrt(square * count / np.maximum(count - FITTED, 1)))


def _fit(runs: Records, among: Bool[np.ndarray, "subsets runs"]) -> _Fitted:
    """Fit the law to each subset with each weighting, with priors on its exponents, its floor and its coupling."""
    plain, scale = pose(runs, LAWS["chinchilla"])
    plain = replace(plain, weights=among.astype(np.float64), delta=np.repeat(plain.delta, len(among)))
    sigma = np.tile(_robust_scale(plain), len(MEMBERS))
    weights = np.concatenate([among * (runs.C / runs.C.max()) ** member.power for member in MEMBERS])
    weights *= (weights > 0).sum(1, keepdims=True) / weights.sum(1, keepdims=True)
    lowest = np.where(weights > 0, plain.ln_loss, np.inf).min(1)
    flat = np.zeros(len(lowest))
    coupling = np.repeat([member.coupling for member in MEMBERS], len(among))
    priors = [Prior((name, "k"), flat + EXPONENT[0], flat + EXPONENT[1]) for name in ("alpha", "beta")]
    priors.append(Prior(("E",), lowest + np.log(FLOOR[0]), flat + FLOOR[1], log=True))
    priors.append(Prior(("k",), flat, coupling, log=True))
    weights /= sigma[:, None] ** 2
    problem = replace(plain, law=LAWS[LAW], weights=weights, delta=HUBER * sigma, priors=tuple(priors))
    theta = solve(problem, np.repeat(starts(problem.law, PENALISED_STARTS)[:, None], len(sigma), axis=1)).theta
    return _Fitted(runs, among, scale, theta, _covariance(problem, theta, sigma))


def _robust_scale(problem: Problem) -> Float64[np.ndarray, "subsets"]:
    """1.4826·MAD of the residuals of the plain fit of each subset, widened by what its five parameters took."""
    start = np.repeat(starts(problem.law, SCALE_STARTS)[:, None], len(problem.weights), axis=1)
    residual = residuals(problem, solve(problem, start).theta)
    own = np.where(problem.weights > 0, residual, np.nan)
    away = np.abs(own - np.nanmedian(own, axis=1, keepdims=True))
    count, spent = (problem.weights > 0).sum(1), len(problem.law.parameters)
    scale = np.maximum(1.4826 * np.nanmedian(away, axis=1), LEAST_SCALE)
    return np.asarray(scale * np.sqrt(count / np.maximum(count - spent, 1)))


def _covariance(
    problem: Problem, theta: Float64[np.ndarray, "batch params"], sigma: Float64[np.ndarray, "batch"]
) -> Float64[np.ndarray, "batch params params"]:
    """Return H⁻¹·(σ²·Σ w²·jjᵀ + P)·H⁻¹: the posterior's, but for weights that are no inverse variances (P: priors)."""
    near = expand(problem, theta)
    hessian = near.inner + near.outer
    prior = near.inner - expand(replace(problem, priors=()), theta).inner
    slope = _linear(problem.variables, theta)[1]
    seen = (slope * (problem.weights * sigma[:, None])[:, None] ** 2) @ slope.transpose(0, 2, 1)
    top = np.einsum("bii->bi", hessian).max(1)[:, None, None]
    inverse = np.linalg.inv(hessian + 1e-10 * top * np.eye(hessian.shape[1]))
    return np.asarray(inverse @ (seen + prior) @ inverse)


def _linear(
    at: Mapping[str, Floats], theta: Float64[np.ndarray, "batch params"]
) -> tuple[Float64[np.ndarray, "batch points"], Float64[np.ndarray, "batch params points"]]:
    """Return L, and ∂ ln L/∂θ."""
    law = LAWS[LAW]
    value, slopes = law.linearise(at, {name: np.exp(theta[:, [i]]) for i, name in enumerate(law.parameters)})
    shape = np.shape(value)
    return np.asarray(value), np.stack(
        [np.broadcast_to(slopes[name] / value, shape) for name in law.parameters], axis=1
    )


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
    own: _At,
    error: Float64[np.ndarray, "subsets runs"],
    level: Int64[np.ndarray, "runs"],
    cuts: Int64[np.ndarray, "cuts"],
) -> float:
    """Find κ by its posterior mode: the errors of a cut's next runs are normal with the forecast's own variance."""
    C = fitted.runs.C
    noise = fitted.noise(error, np.log(fitted.runs.D / fitted.runs.N))
    known = noise**2 + own.sampling**2 + own.spread**2
    ln_kappa = np.log(KAPPA) + KAPPA_SPREAD * np.linspace(-6, 6, 401)
    cost = 0.5 * ((ln_kappa - np.log(KAPPA)) / KAPPA_SPREAD) ** 2
    for subset, cut in enumerate(cuts, start=1):
        following = level == cut + 1
        away = np.log(C[following] / C[level <= cut].max())
        variance = known[subset, following] + np.multiply.outer(np.exp(ln_kappa), away) ** 2
        # runs of one budget err together, so all of them count as one
        cost = cost + 0.5 * (np.log(variance) + error[subset, following] ** 2 / variance).mean(1)
    return float(np.exp(ln_kappa[cost.argmin()]))
