"""The laws, each a formula with the ranges its fits start from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from isoflop.law.published import PUBLISHED as PUBLISHED
from isoflop.law.repetition import effective

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


class Optimum(NamedTuple):
    """The compute-optimal N and D of a budget C = 6ND."""

    N: Value
    D: Value


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
    """From the scales of the variables and L and the scaled parameters: the unit of each parameter that has one."""
    terms: Callable[[Values], Terms] | None = None
    """What must be balanced at the compute optimum under C = 6ND; None: the law does not tell N from D."""
    slopes: Callable[..., Slopes] | None = None
    """L and its derivatives in one pass, where speed matters; None: by complex steps."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names, in the order of the formula."""
        return tuple(self.ranges)

    def __call__(self, **values: Value) -> Value:
        """Evaluate L, nats per token, at variables and parameters given by name."""
        return self.formula(**values)

    @property
    def varied(self) -> tuple[str, ...]:
        """Variables that must differ between runs; one corpus, so one U, suffices where its epochs differ."""
        return tuple(letter for letter in self.variables if letter != "U")

    def loss(self, parameters: Values, *, N: Value, D: Value, C: Value | None = None, U: Value | None = None) -> Value:
        """Evaluate L at N and D, with C = 6ND and fresh tokens (U = D) unless they are given."""
        known = {"N": N, "D": D, "C": 6 * N * D if C is None else C, "U": D if U is None else U, "M": D / N}
        return self.formula(**{letter: known[letter] for letter in self.variables}, **parameters)

    def balance(self, parameters: Values) -> Terms:
        """Return the terms that must be balanced at the compute optimum.

        Raises:
            ValueError: the law has no such optimum.
        """
        if self.terms is None:
            raise ValueError(
                f"law={self.name!r} depends on {self.variables[0]} alone, so it says nothing of how a budget is best "
                f"shared between N and D; fit a law of both, such as chinchilla"
            )
        return self.terms(parameters)

    def optimum(self, parameters: Values, C: Value, *, U: Value | None = None) -> Optimum:
        """Return N* and D* of a budget C = 6ND: by closed form, or by search where only U tokens are unique.

        Raises:
            ValueError: the law has no such optimum.
        """
        fresh = optimum(self.balance(parameters), C)
        if U is None or "U" not in self.variables:
            return fresh
        return _search(lambda N: self.loss(parameters, N=N, D=C / (6 * N), U=U), fresh, C)

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
    terms: Callable[[Values], Terms] | None = None,
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


def optimum(terms: Terms, C: Value) -> Optimum:
    """Return N* = G·(C/6)^(β/(α+β)) and D* = C/(6N*), with G = (αA/βB)^(1/(α+β)) (arXiv:2203.15556, equation 4)."""
    A, alpha, B, beta = terms
    # in logarithms, since A and B of an extreme replicate exceed what their quotient does
    ln_g = (np.log(alpha) + np.log(A) - np.log(beta) - np.log(B)) / (alpha + beta)
    N = np.exp(ln_g + beta / (alpha + beta) * np.log(C / 6))
    return Optimum(N, C / (6 * N))


def _search(loss: Callable[[Value], Value], fresh: Optimum, C: Value) -> Optimum:
    """Find the least loss along C = 6ND within a factor e^6 of the optimum for fresh tokens: a grid, then its cells."""
    ln_n = np.asarray(np.log(fresh.N) + np.zeros_like(loss(fresh.N)))
    away, width = np.linspace(-1, 1, 41), 6.0
    while width > 1e-8:  # in ln N; the loss is flat at its optimum to 1e-16 there
        along = np.stack([np.asarray(loss(np.exp(ln_n + width * step))) for step in away])
        ln_n = ln_n + width * away[along.argmin(0)]
        width *= 0.1
    N = np.exp(ln_n)
    return Optimum(N, C / (6 * N))


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


def _kaplan_slopes(N: Value, D: Value, *, Nc: Value, Dc: Value, alpha: Value, beta: Value) -> Slopes:
    ln_n = np.log(Nc / N)
    n, d = np.exp(alpha / beta * ln_n), Dc / D
    value = (n + d) ** beta
    outer = value / (n + d)
    across = alpha * ln_n * n * outer
    return value, {
        "Nc": alpha * n * outer,
        "Dc": beta * d * outer,
        "alpha": across,
        "beta": beta * np.log(n + d) * value - across,
    }


def _symmetric_slopes(N: Value, D: Value, *, E: Value, A: Value, B: Value, alpha: Value) -> Slopes:
    value, slopes = _slopes(N, D, E=E, A=A, B=B, alpha=alpha, beta=alpha)
    return value, {"E": E, "A": slopes["A"], "B": slopes["B"], "alpha": slopes["alpha"] + slopes["beta"]}


def _units(s: Values, p: Values) -> Values:
    return {"E": s["L"], "A": s["L"] * s["N"] ** p["alpha"], "B": s["L"] * s["D"] ** p["beta"]}


def _terms(p: Values) -> Terms:
    return Terms(p["A"], p["alpha"], p["B"], p["beta"])


@law(
    source="arXiv:2001.08361, equation 1.5",
    units=lambda s, p: {
        "Nc": s["N"] * s["L"] ** (1 / p["alpha"]),
        "Dc": s["D"] * s["L"] ** (1 / p["beta"]),
    },
    terms=lambda p: Terms(p["Nc"] ** (p["alpha"] / p["beta"]), p["alpha"] / p["beta"], p["Dc"], 1.0),
    slopes=_kaplan_slopes,
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
    units=_units,
    terms=_terms,
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
    terms=_terms,
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


@law(
    source="arXiv:2305.16264",
    units=_units,
    terms=_terms,
    E=(0.3, 1.0),
    A=(0.1, 1.0),
    B=(0.1, 1.0),
    alpha=(0.1, 0.8),
    beta=(0.1, 0.8),
    R_D=(2.0, 40.0),
    R_N=(2.0, 40.0),
)
def data_constrained(
    N: Value, D: Value, U: Value, *, E: Value, A: Value, B: Value, alpha: Value, beta: Value, R_D: Value, R_N: Value
) -> Value:
    """L = E + A/N'^α + B/D'^β, nats per token, where N' and D' count repeated tokens, and the N beyond them, for less.

    D' = U·(1 + R*_D·(1 − e^(−R/R*_D))) with R = D/U − 1 repetitions of the U unique tokens; N' likewise of
    U_N = min(N, the N whose optimum is U tokens).
    """
    n, d = effective(N, D, U, A=A, alpha=alpha, B=B, beta=beta, R_D=R_D, R_N=R_N)
    return E + A * n**-alpha + B * d**-beta


@law(
    source="arXiv:2403.08540",
    units=lambda s, p: {
        "E": s["L"],
        "a": s["L"] * s["C"] ** p["eta"] * s["M"] ** -p["eta"],
        "b": s["L"] * s["C"] ** p["eta"] * s["M"] ** p["eta"],
    },
    # with C = 6ND, M^η·C^-η = 6^-η·N^-2η and M^-η·C^-η = 6^-η·D^-2η
    terms=lambda p: Terms(p["a"] * 6 ** -p["eta"], 2 * p["eta"], p["b"] * 6 ** -p["eta"], 2 * p["eta"]),
    E=(0.3, 1.0),
    a=(0.05, 1.0),
    b=(0.05, 1.0),
    eta=(0.05, 0.4),
)
def over_training(M: Value, C: Value, *, E: Value, a: Value, b: Value, eta: Value) -> Value:
    """L = E + (a·M^η + b·M^-η)·C^-η, nats per token, with M = D/N tokens per parameter."""
    return E + (a * M**eta + b * M**-eta) * C**-eta


@law(
    source="arXiv:2010.14701",
    units=lambda s, p: {"E": s["L"], "A": s["L"] * s["X"] ** p["alpha"]},
    E=(0.3, 1.0),
    A=(0.1, 1.0),
    alpha=(0.05, 0.8),
)
def power(X: Value, *, E: Value, A: Value, alpha: Value) -> Value:
    """L = E + A/X^α, nats per token."""
    return E + A * X**-alpha


def _softplus(z: Value) -> Value:
    """ln(1 + e^z), without overflow, for complex steps too."""
    above = np.greater(np.real(z), 0)
    return np.where(above, z, 0) + np.log1p(np.exp(np.where(above, -np.asarray(z), z)))


@law(
    source="arXiv:2210.14891 with one break: c0 = α, c1 = β − α, d1 = d, f1 = f",
    units=lambda s, p: {"E": s["L"], "A": s["L"] * s["X"] ** p["alpha"], "d": s["X"]},
    E=(0.3, 1.0),
    A=(0.1, 1.0),
    alpha=(0.05, 0.8),
    beta=(0.05, 0.8),
    d=(0.05, 20.0),
    f=(0.1, 1.0),
)
def broken(X: Value, *, E: Value, A: Value, alpha: Value, beta: Value, d: Value, f: Value) -> Value:
    """L = E + A/X^α·(1 + (X/d)^(1/f))^((α − β)·f), nats per token: exponent α before the break at d, β after it."""
    ln_x = np.log(X)
    return E + A * np.exp(-alpha * ln_x + (alpha - beta) * f * _softplus((ln_x - np.log(d)) / f))


def _in_each_variable(form: Law) -> tuple[Law, ...]:
    """Return a law of X as laws of N, of D and of C."""

    def of(letter: str) -> Law:
        def formula(**values: Value) -> Value:
            return form.formula(values.pop(letter), **values)

        formula.__doc__ = (form.formula.__doc__ or "").replace("X", letter)
        return replace(
            form,
            name=f"{form.name}_{letter}",
            variables=(letter,),
            formula=formula,
            units=lambda scale, parameters: form.units({**scale, "X": scale[letter]}, parameters),
        )

    return tuple(of(letter) for letter in "NDC")


LAWS: Mapping[str, Law] = {
    form.name: form
    for form in (
        kaplan,
        chinchilla,
        symmetric,
        coupled,
        data_constrained,
        over_training,
        *_in_each_variable(power),
        *_in_each_variable(broken),
    )
}
