"""A law fitted to runs: what is refused, what is found, and how it is written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

from isoflop.fields import of_their_types
from isoflop.files import read_json
from isoflop.law.laws import LAWS, Law, Optimum, Value
from isoflop.law.search import search
from isoflop.law.solve import FAR, Problem, bounds, covariance, residuals
from isoflop.record import SYMBOLS, Floats, Record, Records

DELTA = 1e-3
"""Huber's threshold in ln L of approach 3 (arXiv:2203.15556, appendix D.3)."""
STARTS = 8
"""Starts of one fit, more where they disagree (`isoflop.law.search.search`)."""
LEAST_SCALE = 5e-4
"""Smallest robust scale of residuals in ln L; two seeds of one run differ by more."""
LEVELS = 3
"""Fewest different N, and D, for a law with a floor: below, the floor and an exponent trade places freely."""
WIDE = 10.0
"""A parameter lies in a flat valley if its 90 % interval, at the centre of the data, spans more than this factor."""
SAME = 0.01
"""Sizes nearer than this in the logarithm are one size: counts recovered as flops/(6·tokens) differ by rounding."""

Status = Literal["identified", "on bound", "flat valley"]


@dataclass(frozen=True)
class Parameter:
    """A fitted number, with its 90 % interval where runs were resampled."""

    value: float
    low: float | None
    high: float | None
    status: Status
    error: float | None = None
    """Standard error by the sandwich, which takes the law for right; None where it has no finite one."""


@dataclass(frozen=True)
class Fit:
    """A law with the constants that suit some runs best."""

    law: str
    """Key of LAWS."""
    parameters: Mapping[str, Parameter]
    objective: float
    """What was minimised, at its least: the sum over runs of `by`."""
    records: Records
    """The runs used; what was left out and how N is counted stand there."""
    by: str = "huber"
    """Key of OBJECTIVES."""
    weights: tuple[float, ...] | None = None
    """Of the runs, where they do not count alike."""
    samples: Mapping[str, Floats] = field(default_factory=dict)
    """Replicates of the parameters, empty where runs were not resampled (`isoflop.law.uncertainty.bootstrap`)."""

    @property
    def values(self) -> dict[str, float]:
        """The parameters alone."""
        return {name: parameter.value for name, parameter in self.parameters.items()}

    def loss(self, N: Value, D: Value, *, C: Value | None = None, U: Value | None = None) -> Value:
        """L of the fitted curve, nats per token; forecasts, with intervals, come from `isoflop.law.forecast`."""
        return LAWS[self.law].loss(self.values, N=N, D=D, C=C, U=U)

    def optimum(self, C: Value, *, U: Value | None = None) -> Optimum:
        """N* and D* of a budget C = 6ND, where U tokens are unique or else all."""
        return LAWS[self.law].optimum(self.values, C, U=U)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for fit.json: all that a prediction needs."""
        return {
            "law": self.law,
            "parameters": {name: asdict(parameter) for name, parameter in self.parameters.items()},
            "objective": self.objective,
            "by": self.by,
            "weights": None if self.weights is None else list(self.weights),
            "params_convention": self.records.convention,
            "source": self.records.source,
            "left_out": list(self.records.left_out),
            "runs": [{name: getattr(run, name) for name in KEPT} for run in self.records.runs],
            "samples": {name: values.tolist() for name, values in self.samples.items()},
        }

    @classmethod
    def read(cls, path: Path) -> Fit:
        """Read a fit.json.

        Raises:
            ValueError: the file is no fit.
        """
        value = read_json(path)
        try:
            records = Records(
                runs=tuple(Record(**run) for run in value["runs"]),
                source=value["source"],
                convention=value["params_convention"],
                left_out=tuple(value["left_out"]),
            )
            parameters = {name: Parameter(**parts) for name, parts in value["parameters"].items()}
            law = LAWS[value["law"]]
            if tuple(parameters) != law.parameters:
                raise KeyError(f"parameters {', '.join(parameters)}, not those of {law.name}")
            for item in (records, *records.runs, *parameters.values()):
                of_their_types(item)
            if not all(0 < parameter.value < np.inf for parameter in parameters.values()):
                raise TypeError("a parameter that is no positive number")
            if not all(records.convention in run.params for run in records.runs):
                raise KeyError(records.convention)
            check(records, law)
            if value["by"] not in OBJECTIVES:
                raise KeyError(value["by"])
            if value["weights"] is not None:
                _checked(np.array(value["weights"], dtype=np.float64), records)
            samples = {name: np.array(column, dtype=np.float64) for name, column in value["samples"].items()}
            if samples and (
                set(samples) != set(law.parameters) or len({column.shape for column in samples.values()}) > 1
            ):
                raise KeyError(f"samples of {', '.join(samples)}")
            if not all((column > 0).all() and (column < np.inf).all() for column in samples.values()):
                raise TypeError("a sample that is no positive number")
            return cls(
                law=law.name,
                parameters=parameters,
                objective=value["objective"],
                records=records,
                by=value["by"],
                weights=None if value["weights"] is None else tuple(value["weights"]),
                samples=samples,
            )
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path} is not a fit ({error!r}); make it anew with `isoflop fit`") from error


KEPT = ("id", "params", "tokens", "flops", "loss", "budget", "group", "unique_tokens")
"""Fields of a run that fit.json holds."""


class Objective(NamedTuple):
    """How residuals r = ln L_pred − ln L count: r²/2 up to δ, δ·(|r| − δ/2) beyond (Huber), each divided by `unit`."""

    does: str
    delta: float
    """Of ln L, or of the robust scale."""
    robust: bool = False
    """Whether δ is in units of 1.4826·MAD of the residuals that "huber" leaves, at least LEAST_SCALE."""
    unit: float = 1.0


def fit(records: Records, *, law: str = "chinchilla", objective: str = "huber", weights: Floats | None = None) -> Fit:
    """Fit a law to complete runs by approach 3; the same runs in any order and units give the same answer.

    Args:
        records: The runs.
        law: Key of LAWS.
        objective: Key of OBJECTIVES.
        weights: How much each run counts; None: all alike.

    Raises:
        ValueError: there is no such law or objective, a weight is no positive number, or the runs cannot determine it.
    """
    for name, value, table in (("law", law, LAWS), ("objective", objective, OBJECTIVES)):
        if value not in table:
            raise ValueError(f"{name}={value!r} is not known; choose one of {', '.join(table)}")
    check(records, LAWS[law])
    problem, scale = pose(records, LAWS[law], objective=objective, weights=weights)
    best = search(problem, STARTS)
    spread = covariance(problem, best.theta)[0]
    variance = np.diagonal(spread)
    # of a singular curvature nothing is left but rounding, of either sign
    width = 1.645 * np.sqrt(np.where(variance >= 0, variance, np.inf))
    status = statuses(problem.law, best.theta[0], best.theta[0] - width, best.theta[0] + width)
    values = unscale(problem.law, scale, best.theta)
    own = jacobian(problem.law, scale, best.theta[0])
    square = np.diagonal(own @ spread @ own.T)
    errors = np.sqrt(np.where(square >= 0, square, np.inf))
    parameters = {
        name: Parameter(
            float(values[name][0]),
            None,
            None,
            status[i],
            float(values[name][0] * errors[i]) if errors[i] < 1e3 else None,
        )
        for i, name in enumerate(problem.law.parameters)
    }
    told = float(best.objective[0]) / OBJECTIVES[objective].unit
    return Fit(law, parameters, told, records, objective, None if weights is None else tuple(map(float, weights)))


def check(records: Records, law: Law) -> None:
    """Refuse runs that no fit can use.

    Raises:
        ValueError: a value is no positive number, or the runs leave a parameter open.
    """
    for letter in dict.fromkeys((*law.variables, "C", "L")):
        column = getattr(records, letter)
        if (wrong := np.flatnonzero(~(np.isfinite(column) & (column > 0)))).size:
            run = f"run {records.runs[wrong[0]].id} of {records.source}"
            raise ValueError(
                f"{SYMBOLS[letter]}={column[wrong[0]]:g} of {run} must be a positive number; correct it or leave it out"
            )
    variables = {letter: getattr(records, letter) for letter in law.variables}
    distinct = len(np.unique(np.column_stack(list(variables.values())), axis=0))
    if distinct < len(law.parameters):
        raise ValueError(
            f"{distinct} distinct runs of {records.source} cannot determine the {len(law.parameters)} parameters of "
            f"{law.name}; add runs of other sizes and lengths"
        )
    for letter in law.varied:
        column = variables[letter]
        if np.ptp(np.log(column)) < SAME:
            raise ValueError(
                f"all {len(records)} runs of {records.source} have the same {SYMBOLS[letter]}={column[0]:.4g}, so what "
                f"{letter} contributes to the loss cannot be told apart; add runs with other {SYMBOLS[letter]}"
            )
        # A, its exponent and the floor E are three unknowns: two levels fit them with any E
        if "E" in law.parameters and levels_of(column) < LEVELS:
            raise ValueError(
                f"the {len(records)} runs of {records.source} have only {levels_of(column)} different "
                f"{SYMBOLS[letter]}, which leave E and the exponent of {letter} open; add runs at a third one"
            )


def levels_of(column: Floats) -> int:
    """Count the values that differ by more than rounding."""
    return 1 + int(level_of(column).max())


def level_of(column: Floats) -> Int64[np.ndarray, "runs"]:
    """Number the level of each value, from the least; neighbours that differ by no more than rounding share one."""
    where = np.argsort(column, kind="stable")
    level = np.empty(len(column), dtype=np.int64)
    level[where] = np.append(0, np.cumsum(np.diff(np.log(column[where])) > SAME))
    return level


def order(records: Records) -> np.ndarray:
    """Positions of the runs in the order of their values, so that sums round alike whatever the rows' order."""
    return np.lexsort((records.L, records.D, records.N))


def pose(
    records: Records, law: Law, *, objective: str = "huber", weights: Floats | None = None
) -> tuple[Problem, dict[str, float]]:
    """Return the runs, ordered, as a problem in which N, D and L are of order one, and the scales of N, D and L.

    Raises:
        ValueError: a weight is no positive number.
    """
    by = OBJECTIVES[objective]
    where = order(records)
    runs = records.take(where)
    scale = {letter: float(np.exp(np.log(getattr(runs, letter)).mean())) for letter in law.variables}
    scale["L"] = float(runs.L.min())
    if "U" in scale:
        scale["U"] = scale["D"]  # both are tokens
    problem = Problem(
        law=law,
        variables={letter: getattr(runs, letter) / scale[letter] for letter in law.variables},
        ln_loss=np.log(runs.L / scale["L"]),
        weights=np.ones((1, len(runs))) if weights is None else _checked(weights, records)[None, where],
        delta=np.array([DELTA if by.robust else by.delta]),
    )
    return _robust(problem, by.delta) if by.robust else problem, scale


def _checked(weights: Floats, records: Records) -> Floats:
    column = np.asarray(weights, dtype=np.float64)
    if column.shape != (len(records),):
        raise ValueError(f"{column.size} weights for {len(records)} runs of {records.source}; give one a run")
    if (wrong := np.flatnonzero(~(np.isfinite(column) & (column > 0)))).size:
        run = f"run {records.runs[wrong[0]].id} of {records.source}"
        raise ValueError(f"weight={column[wrong[0]]:g} of {run} must be a positive number; leave the run out instead")
    return column


def _robust(problem: Problem, delta: float) -> Problem:
    residual = residuals(problem, search(problem, STARTS).theta)[0]
    scale = 1.4826 * np.median(np.abs(residual - np.median(residual)))
    return replace(problem, delta=np.array([delta * max(scale, LEAST_SCALE)]))


def unscale(law: Law, scale: Mapping[str, float], theta: Float64[np.ndarray, "batch params"]) -> dict[str, Floats]:
    """Return parameters for N, D and L in their own units."""
    scaled = {name: np.exp(theta[:, i]) for i, name in enumerate(law.parameters)}
    units = law.units(scale, scaled)
    return {name: np.asarray(value * units.get(name, 1.0)) for name, value in scaled.items()}


def rescale(law: Law, scale: Mapping[str, float], values: Mapping[str, float]) -> Float64[np.ndarray, "params"]:
    """Return θ of parameters in their own units; `units` looks only at exponents, which have none."""
    units = law.units(scale, values)
    return np.asarray(np.log([values[name] / float(units.get(name, 1.0)) for name in law.parameters]))


def jacobian(
    law: Law, scale: Mapping[str, float], theta: Float64[np.ndarray, "params"]
) -> Float64[np.ndarray, "params params"]:
    """Return ∂ ln(parameter in its own unit)/∂θ: A of N in its unit moves with α."""
    step = 1e-6
    moved = step * np.eye(len(theta))
    high, low = (np.log(np.array(list(unscale(law, scale, theta + sign * moved).values()))) for sign in (1.0, -1.0))
    return np.asarray((high - low) / (2 * step))


def statuses(
    law: Law,
    theta: Float64[np.ndarray, "params"],
    low: Float64[np.ndarray, "params"],
    high: Float64[np.ndarray, "params"],
) -> list[Status]:
    """Judge each parameter by its interval of θ; where an exponent or level is on its bound the rest hang on it."""
    bottom, top = bounds(law)
    near = 1e-6 * np.log(FAR)
    on_bound: Bool[np.ndarray, "params"] = (theta <= bottom + near) | (theta >= top - near)
    loose: Bool[np.ndarray, "params"] = (high - low > np.log(WIDE)) | (low <= bottom + near) | (high >= top - near)
    # the floor on its bound is a law without one, of which the rest may well be determined
    if any(bound for name, bound in zip(law.parameters, on_bound, strict=True) if name != "E"):
        loose = np.ones_like(loose)
    return [
        "on bound" if bound else "flat valley" if wide else "identified"
        for bound, wide in zip(on_bound, loose, strict=True)
    ]


OBJECTIVES: Mapping[str, Objective] = {
    "huber": Objective("Huber's loss of ln L at δ = 1e-3 (arXiv:2203.15556, appendix D.3)", DELTA),
    # 95 % of the efficiency of least squares under normal noise (Huber 1981)
    "robust": Objective("Huber's loss of ln L at 1.345 robust scales of its residuals", 1.345, robust=True),
    # Huber's loss over δ differs from |r| by δ/2 at most
    "absolute": Objective("absolute residual of ln L, the likelihood under Laplace's noise", 1e-7, unit=1e-7),
    "squared": Objective("half the squared residual of ln L, the likelihood under normal noise", 1e3),
}
