"""What runs, trained or only planned, tell of a law's parameters and of what follows from them.

Around a fit the logarithms θ of the parameters are nearly normal with covariance Σ, Σ⁻¹ = Σ jjᵀ/σ² + P₀, where
j = ∂ ln L/∂θ at a run. One more run with gradient j lowers the variance of a target with gradient g by
(gᵀΣj)²/(σ² + jᵀΣj).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from isoflop.law.fit import LEAST_SCALE, Fit
from isoflop.law.laws import LAWS, Value, optimum
from isoflop.law.uncertainty import groups
from isoflop.record import Floats

EXPONENT_SD = 0.15
"""Prior standard deviation of an exponent; those of arXiv:2203.15556, 2404.10102 and 2305.16264 lie within 0.1."""
LN_SD: Mapping[str, float] = {"E": 0.35, "k": 0.5, "R_D": 1.0, "R_N": 1.0}
"""Prior standard deviations of the logarithms of other parameters; levels are left free."""
EXPONENTS = ("alpha", "beta", "eta")
FREE = 100.0
"""Standard deviation of a logarithm about which nothing is known."""


class Knowledge:
    """The covariance of θ, and of the errors of trunks, which all their branches share."""

    def __init__(self, fit: Fit, noise: float, shared: float) -> None:
        records = fit.records
        self.law, self.noise, self.shared = LAWS[fit.law], noise, shared
        N, D = (float(np.exp(np.log(column).mean())) for column in (records.N, records.D))
        # in these units C = 6ND and M = D/N hold too, so the law's own terms do
        self.scale = {"N": N, "D": D, "C": N * D, "M": D / N, "U": D, "L": 1.0}
        units = self.law.units(self.scale, fit.values)
        self.values = {name: fit.values[name] / float(units.get(name, 1.0)) for name in self.law.parameters}
        own = [run.group for run in records.runs]
        self.trunks = list(dict.fromkeys(group for group in own if group is not None)) if shared > 0 else []
        precision = np.diag(self._prior())
        j = self.gradients(records.N, records.D, own)
        precision = precision + (j / self.own(own)[:, None] ** 2).T @ j
        self.covariance: Float64[np.ndarray, "theta theta"] = np.linalg.inv(precision)

    def _prior(self) -> Floats:
        sds = [
            EXPONENT_SD / value if name in EXPONENTS else LN_SD.get(name, FREE) for name, value in self.values.items()
        ]
        return np.array([sd**-2 for sd in sds] + [1 / (self.shared * self.noise**2) for _ in self.trunks])

    def own(self, group: Sequence[str | None]) -> Floats:
        """Noise of runs in ln L, without what each shares with its trunk."""
        part = np.array([self.shared if name in self.trunks else 0.0 for name in group])
        return np.asarray(self.noise * np.sqrt(1 - part))

    def gradients(self, N: Floats, D: Floats, group: Sequence[str | None]) -> Float64[np.ndarray, "runs theta"]:
        """∂ ln L/∂θ of runs."""
        known = {"N": N, "D": D, "C": 6 * N * D, "M": D / N, "U": D}
        at = {letter: known[letter] / self.scale[letter] for letter in self.law.variables}
        value, slopes = self.law.linearise(at, {name: np.array([part]) for name, part in self.values.items()})
        rows = [np.broadcast_to(np.asarray(slopes[name] / value), len(N)) for name in self.values]
        return np.column_stack([*rows, *([[float(name == trunk) for name in group] for trunk in self.trunks])])

    def size_gradient(self, C: float) -> Float64[np.ndarray, "theta"]:
        """∂ ln N*/∂θ of a budget, by complex steps."""
        step, slopes = 1e-30, []
        for name in self.values:
            moved: dict[str, Value] = {**self.values, name: np.asarray(self.values[name] * np.exp(1j * step))}
            best: Value = optimum(self.law.balance(moved), C / self.scale["C"]).N
            slopes.append(float(np.imag(np.log(best))) / step)
        return np.array(slopes + [0.0] * len(self.trunks))

    def sd(self, g: Float64[np.ndarray, "theta"]) -> float:
        """Standard deviation of what has this gradient."""
        return float(np.sqrt(g @ self.covariance @ g))

    def gains(
        self,
        goals: Float64[np.ndarray, "goals theta"],
        j: Float64[np.ndarray, "runs theta"],
        noise: Floats,
    ) -> Float64[np.ndarray, "runs goals"]:
        """Return the part of each goal's variance that each run would take away."""
        along = j @ self.covariance
        total = noise**2 + (along * j).sum(1)
        variance = np.einsum("gp,pq,gq->g", goals, self.covariance, goals)
        return np.asarray((along @ goals.T) ** 2 / total[:, None] / variance)

    def add(self, j: Float64[np.ndarray, "theta"], noise: float) -> None:
        """Learn from one run."""
        along = self.covariance @ j
        self.covariance = self.covariance - np.outer(along, along) / (noise**2 + j @ along)


def residual_noise(fit: Fit) -> float:
    """Standard deviation of ln L about the fit, for the parameters that were fitted; never below two seeds' own."""
    residual = residual_of(fit)
    free = max(1, len(residual) - len(fit.parameters))
    return max(LEAST_SCALE, float(np.sqrt((residual**2).sum() / free)))


def trunk_share(fit: Fit) -> float:
    """Return the part of the noise's variance that branches of one trunk share, by one-way analysis of variance."""
    index = groups(fit.records)
    residual = residual_of(fit)
    sizes = np.bincount(index)
    several = sizes > 1
    if not several.any():
        return 0.0
    means = np.bincount(index, residual) / sizes
    inside = ((residual - means[index]) ** 2).sum() / max(1, len(residual) - len(sizes))
    per = (len(residual) - (sizes**2).sum() / len(residual)) / max(1, len(sizes) - 1)
    across = (sizes * (means - residual.mean()) ** 2).sum() / max(1, len(sizes) - 1)
    between = max(0.0, (across - inside) / per) if per > 0 else 0.0
    return float(min(0.95, between / (between + inside))) if between + inside > 0 else 0.0


def residual_of(fit: Fit) -> Floats:
    """ln L of the runs over that of the fit."""
    records = fit.records
    U = records.U if "U" in LAWS[fit.law].variables else None
    at: Value = LAWS[fit.law].loss(fit.values, N=records.N, D=records.D, U=U)
    return np.asarray(np.log(records.L) - np.log(np.asarray(at)))
