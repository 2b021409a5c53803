"""The laws, each a formula with the ranges its fits start from; published constants by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Value = float | NDArray[Any]
"""A number or an array; formulas broadcast, and take complex arrays too (derivatives by a complex step)."""
Values = Mapping[str, Value]
Slopes = tuple[Value, dict[str, Value]]
"""L, and ∂L/∂ln θ by parameter."""


class Terms(NamedTuple):
    """The falling part of a law, A·N^-α + B·D^-β, whose balance under C = 6ND is the optimum."""

    A: Value
    alpha: Value
    B: Value
    beta: Value


@dataclass(frozen=True)
class Law:
    """A formula for the loss, and what a fit must know about it; every parameter is positive."""

    name: str
    source: str
    formula: Callable[..., Value]
    variables: tuple[str, ...]
    """Letters of `isoflop.record.SYMBOLS`."""
    ranges: Mapping[str, tuple[float, float]]
    """Where fits start, by parameter, for N and D over their geometric means and L over its minimum."""
    units: Callable[[Values, Values], Values]
    """From the scales of N, D and L and the scaled parameters: the unit of each parameter that has one."""
    terms: Callable[[Values], Terms]
    """What must be balanced at the compute optimum."""
    slopes: Callable[..., Slopes] | None = None
    """L and its derivatives in one pass, where speed matters; None: by complex steps."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names, in the order of the formula."""
        return tuple(self.ranges)

    def __call__(self, **values: Value) -> Value:
        """Evaluate L, nats per token, at variables and parameters given by name."""
        return self.formula(**values)

    def linearise(self, variables: Values, parameters: Values) -> Slopes:
        """Return L, and ∂L/∂ln θ for every parameter θ."""
        if self.slopes is not None:
            return self.slopes(**variables, **parameters)
        step = 1e-30  # a complex step has no cancellation, so it may be as small as one likes
        slopes: dict[str, Value] = {}
        for name, value in parameters.items():
            moved: Any = self.formula(**variables, **{**parameters, name: value * np.exp(1j * step)})
            slopes[name] = moved.imag / step
        return self.formula(**variables, **parameters), slopes


def law(
    *,
    source: str,
    units: Callable[[Values, Values], Values],
    terms: Callable[[Values], Terms],
    slopes: Callable[..., Slopes] | None = None,
    **ranges: tuple[float, float],
) -> Callable[[Callable[..., Value]], Law]:
    """Make a law of a formula: variables stand before the star, parameters after it, each with its starting range."""

    def make(formula: Callable[..., Value]) -> Law:
        kinds = {name: parameter.kind for name, parameter in inspect.signature(formula).parameters.items()}
        assert set(ranges) == {name for name, kind in kinds.items() if kind is inspect.Parameter.KEYWORD_ONLY}
        return Law(
            name=formula.__name__,
            source=source,
            formula=formula,
            variables=tuple(name for name in kinds if name not in ranges),
            ranges={name: ranges[name] for name in kinds if name in ranges},
            units=units,
            terms=terms,
            slopes=slopes,
        )

    return make


def _slopes(
    N: Value, D: Value, *, E: Value, A: Value, B: Value, alpha: Value, beta: Value, k: Value | None = None
) -> Slopes:
    ln_n, ln_d = np.log(N), np.log(D)
    n, d = A * np.exp(-alpha * ln_n), B * np.exp(-beta * ln_d)
    if k is None:
        return E + n + d, {"E": E, "A": n, "B": d, "alpha": -alpha * ln_n * n, "beta": -beta * ln_d * d}
    ln_s = np.log(n + d)
    outer = k * np.exp((k - 1) * ln_s)
    n, d, power = n * outer, d * outer, np.exp(k * ln_s)
    slopes = {"A": n, "B": d, "alpha": -alpha * ln_n * n, "beta": -beta * ln_d * d, "k": k * ln_s * power}
    return E + power, {"E": E, **slopes}


def _symmetric_slopes(N: Value, D: Value, *, E: Value, A: Value, B: Value, alpha: Value) -> Slopes:
    value, slopes = _slopes(N, D, E=E, A=A, B=B, alpha=alpha, beta=alpha)
    return value, {"E": E, "A": slopes["A"], "B": slopes["B"], "alpha": slopes["alpha"] + slopes["beta"]}


@law(
    source="arXiv:2001.08361, equation 1.5",
    units=lambda s, p: {
        "Nc": s["N"] * s["L"] ** (1 / p["alpha"]),
        "Dc": s["D"] * s["L"] ** (1 / p["beta"]),
    },
    terms=lambda p: Terms(p["Nc"] ** (p["alpha"] / p["beta"]), p["alpha"] / p["beta"], p["Dc"], 1.0),
    Nc=(0.01, 10),
    Dc=(0.01, 10),
    alpha=(0.05, 0.5),
    beta=(0.05, 0.5),
)
def kaplan(N: Value, D: Value, *, Nc: Value, Dc: Value, alpha: Value, beta: Value) -> Value:
    """L = ((Nc/N)^(α/β) + Dc/D)^β, nats per token."""
    return ((Nc / N) ** (alpha / beta) + Dc / D) ** beta


@law(
    source="arXiv:2203.15556, approach 3",
    units=lambda s, p: {"E": s["L"], "A": s["L"] * s["N"] ** p["alpha"], "B": s["L"] * s["D"] ** p["beta"]},
    terms=lambda p: Terms(p["A"], p["alpha"], p["B"], p["beta"]),
    slopes=_slopes,
    E=(0.3, 1.0),
    A=(0.1, 1.0),
    B=(0.1, 1.0),
    alpha=(0.1, 0.8),
    beta=(0.1, 0.8),
)
def chinchilla(N: Value, D: Value, *, E: Value, A: Value, B: Value, alpha: Value, beta: Value) -> Value:
    """L = E + A/N^α + B/D^β, nats per token."""
    return E + A * N**-alpha + B * D**-beta


@law(
    source="arXiv:2203.15556, approach 3, with one exponent",
    units=lambda s, p: {"E": s["L"], "A": s["L"] * s["N"] ** p["alpha"], "B": s["L"] * s["D"] ** p["alpha"]},
    terms=lambda p: Terms(p["A"], p["alpha"], p["B"], p["alpha"]),
    slopes=_symmetric_slopes,
    E=(0.3, 1.0),
    A=(0.1, 1.0),
    B=(0.1, 1.0),
    alpha=(0.1, 0.8),
)
def symmetric(N: Value, D: Value, *, E: Value, A: Value, B: Value, alpha: Value) -> Value:
    """L = E + A/N^α + B/D^α, nats per token: N* and D* grow alike."""
    return E + A * N**-alpha + B * D**-alpha


@law(
    source="between arXiv:2001.08361 (E = 0) and arXiv:2203.15556 (k = 1)",
    units=lambda s, p: {
        "E": s["L"],
        "A": s["L"] ** (1 / p["k"]) * s["N"] ** p["alpha"],
        "B": s["L"] ** (1 / p["k"]) * s["D"] ** p["beta"],
    },
    terms=lambda p: Terms(p["A"], p["alpha"], p["B"], p["beta"]),
    slopes=_slopes,
    E=(0.3, 1.0),
    A=(0.1, 1.0),
    B=(0.1, 1.0),
    alpha=(0.1, 0.8),
    beta=(0.1, 0.8),
    k=(0.5, 2.0),
)
def coupled(N: Value, D: Value, *, E: Value, A: Value, B: Value, alpha: Value, beta: Value, k: Value) -> Value:
    """L = E + (A/N^α + B/D^β)^k, nats per token."""
    return E + (A * N**-alpha + B * D**-beta) ** k


class Optimum(NamedTuple):
    """The compute-optimal N and D of a budget C = 6ND."""

    N: Value
    D: Value


def optimum(terms: Terms, C: Value) -> Optimum:
    """Return N* = G·(C/6)^(β/(α+β)) and D* = C/(6N*), with G = (αA/βB)^(1/(α+β)) (arXiv:2203.15556, equation 4)."""
    A, alpha, B, beta = terms
    # in logarithms, since A and B of an extreme replicate exceed what their quotient does
    ln_g = (np.log(alpha) + np.log(A) - np.log(beta) - np.log(B)) / (alpha + beta)
    N = np.exp(ln_g + beta / (alpha + beta) * np.log(C / 6))
    return Optimum(N, C / (6 * N))


class Published(NamedTuple):
    """A law with the constants that a paper gives."""

    law: str
    parameters: Mapping[str, float]
    source: str
    convention: str
    """How the paper counts N."""


LAWS: Mapping[str, Law] = {form.name: form for form in (kaplan, chinchilla, symmetric, coupled)}

PUBLISHED: Mapping[str, Published] = {
    "kaplan2020": Published(
        law="kaplan",
        parameters={"Nc": 6.4e13, "Dc": 1.8e13, "alpha": 0.076, "beta": 0.103},
        source="arXiv:2001.08361, table 2",
        convention="body",
    ),
    "hoffmann2022": Published(
        law="chinchilla",
        parameters={"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28},
        source="arXiv:2203.15556, equation 10, exponents rounded to two digits",
        convention="total",
    ),
    "hoffmann2022_tex": Published(
        law="chinchilla",
        parameters={"E": 1.69, "A": 406.4, "B": 410.7, "alpha": 0.3392, "beta": 0.2849},
        source="arXiv:2203.15556, exponents of the TeX source",
        convention="total",
    ),
    "besiroglu2024": Published(
        law="chinchilla",
        parameters={"E": 1.8172, "A": 482.01, "B": 2085.43, "alpha": 0.3478, "beta": 0.3658},
        source="arXiv:2404.10102",
        convention="total",
    ),
}
