"""Does a learning rate carry over to larger models? Judged by activations, and by the loss that it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from isoflop.architecture import BASES, ParametrizationKind
from isoflop.record import Floats, Record

# the limits of SCIENCE: width and depth transfer
FLAT, GROWING = 0.1, 0.3
"""A slope of activations up to FLAT passes, where that of the standard control reaches GROWING."""
REGRET, SPREADS = 0.02, 2.0
"""Nats per token, or standard deviations between seeds if these are more, that a rate carried over may cost."""
Axis = Literal["width", "depth"]


@dataclass(frozen=True, kw_only=True)
class Coordinates:
    """Activations of one parametrization while the model grows along one axis."""

    parametrization: ParametrizationKind
    axis: Axis
    sizes: tuple[int, ...]
    """d_model or num_layers, the base model's first."""
    places: tuple[str, ...]
    """The residual stream after each block (of models of several depths, after the last), and the logits."""
    activations: Floats
    """Mean |activation| over tokens and units, geometric mean over seeds, by size, step and place; step k is the
    forward pass after k updates."""

    @property
    def slopes(self) -> Floats:
        """Slopes of ln mean |activation| against ln size, by step and place."""
        x = np.log(self.sizes)
        x -= x.mean()
        slopes: Floats = np.tensordot(x, np.log(self.activations), axes=1) / (x @ x)
        return slopes

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "activations": self.activations.tolist(), "slopes": self.slopes.tolist()}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a coordinate check says of one parametrization along one axis, after the last update."""

    parametrization: ParametrizationKind
    axis: Axis
    slope: float | None
    """The one farthest from 0 at the places where the control grows; None: it grows nowhere."""
    control: float
    """The control's slope farthest from 0."""
    passed: bool | None
    """Whether all places that grow in the control are flat here; None: the control grows nowhere."""


def judge(checked: Sequence[Coordinates]) -> list[Verdict]:
    """Hold each parametrization against the standard one, along the axes that it claims to take care of.

    The last step that all reached counts: before any update the logits of a wide model are small under μP by design,
    since its read-out is divided by m where random weights would need √m.
    """
    out = []
    for axis in dict.fromkeys(one.axis for one in checked):
        along = {one.parametrization: one for one in checked if one.axis == axis}
        last = min(len(one.slopes) for one in along.values()) - 1
        control = along["standard"].slopes[last]
        growing = np.abs(control) >= GROWING
        for name, one in along.items():
            if f"base_{axis}" not in BASES[name]:
                continue
            slopes = one.slopes[last][growing]
            out.append(
                Verdict(
                    parametrization=name,
                    axis=axis,
                    slope=_steepest(slopes) if growing.any() else None,
                    control=_steepest(control),
                    passed=bool(np.all(np.abs(slopes) <= FLAT)) if growing.any() else None,
                )
            )
    return out


def _steepest(slopes: Floats) -> float:
    return float(slopes[np.abs(slopes).argmax()])


@dataclass(frozen=True, kw_only=True)
class Size:
    """Losses of one shape at every rate."""

    d_model: int
    num_layers: int
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    """Mean over seeds, nats per token; infinite where a seed diverged."""
    best: float
    """The rate of the lowest loss."""
    edge: bool
    """Whether that is the least or the greatest rate tried, so that a better one may lie outside."""
    carried: float
    """Loss at the base model's best rate."""
    regret: float
    """How much more that is than the lowest loss."""


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a sweep says of one parametrization."""

    parametrization: ParametrizationKind
    sizes: tuple[Size, ...]
    """The base model, then the larger ones."""
    rate: float
    """The base model's best rate, which is carried over."""
    noise: float | None
    """Standard deviation of a loss between seeds at the best and at the carried rates; None: one seed."""
    tolerance: float
    """Regret allowed, nats per token."""
    passed: bool | None
    """None: not decided."""
    why: str
    """The verdict in words."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values; an infinite loss is None."""
        value = asdict(self)
        for size in value["sizes"]:
            size["losses"] = [loss if math.isfinite(loss) else None for loss in size["losses"]]
            size |= {name: size[name] if math.isfinite(size[name]) else None for name in ("carried", "regret")}
        return value


def transfer(records: Sequence[Record]) -> list[Transfer]:
    """Judge each parametrization of a learning-rate sweep: runs that differ in shape, peak rate and seed alone.

    Raises:
        ValueError: a shape has no rate at which all seeds are complete.
    """
    grouped: dict[ParametrizationKind, dict[tuple[int, int], dict[float, list[float]]]] = {}
    for run in records:
        model, loss = run.config["model"], math.inf if run.loss is None else run.loss
        shapes = grouped.setdefault(model["parametrization"], {})
        rates = shapes.setdefault((model["d_model"], model["num_layers"]), {})
        rates.setdefault(run.config["optim"]["lr"], []).append(loss)
    return [_judged(name, shapes) for name, shapes in grouped.items()]


def _judged(name: ParametrizationKind, shapes: dict[tuple[int, int], dict[float, list[float]]]) -> Transfer:
    means = {
        shape: {rate: float(np.mean(losses)) for rate, losses in sorted(rates.items())}
        for shape, rates in sorted(shapes.items())
    }
    best = {shape: min(losses, key=losses.__getitem__) for shape, losses in means.items()}
    for shape, losses in means.items():
        if not math.isfinite(losses[best[shape]]):
            raise ValueError(
                f"no rate trained all seeds of d_model={shape[0]}, num_layers={shape[1]} under {name} to the end; "
                "give smaller rates"
            )
    rate = best[min(means)]
    sizes = tuple(_size(shape, losses, best[shape], rate) for shape, losses in means.items())
    cells = [rates[chosen] for shape, rates in shapes.items() for chosen in {best[shape], rate}]
    spread = [np.var(losses, ddof=1) for losses in cells if len(losses) > 1 and math.isfinite(sum(losses))]
    noise = float(np.sqrt(np.mean(spread))) if spread else None
    tolerance = max(REGRET, SPREADS * (noise or 0.0))
    passed, why = _verdict(sizes, rate, tolerance)
    return Transfer(
        parametrization=name, sizes=sizes, rate=rate, noise=noise, tolerance=tolerance, passed=passed, why=why
    )


def _size(shape: tuple[int, int], losses: dict[float, float], best: float, rate: float) -> Size:
    return Size(
        d_model=shape[0],
        num_layers=shape[1],
        rates=tuple(losses),
        losses=tuple(losses.values()),
        best=best,
        edge=best in (min(losses), max(losses)),
        carried=losses[rate],
        regret=losses[rate] - losses[best],
    )


def _verdict(sizes: Sequence[Size], rate: float, tolerance: float) -> tuple[bool | None, str]:
    base, *larger = sizes
    worst = max(larger, key=lambda size: size.regret)
    if base.edge:
        side = "smaller" if rate == base.rates[0] else "larger"
        return None, f"not decided: the base model is best at the last rate tried, {rate:g}; try {side} ones"
    if worst.regret > tolerance:
        return False, f"does not transfer: {worst.regret:.3f} nats lost at {_name(worst)}"
    sizes_by_depth = sorted(sizes, key=lambda size: (size.num_layers, size.d_model))
    for narrow, wide in pairwise(sizes_by_depth):
        if narrow.num_layers == wide.num_layers and not wide.carried < narrow.carried:
            return False, f"does not transfer: at {rate:g}, {_name(wide)} is no better than {_name(narrow)}"
    if edges := [size for size in larger if size.edge]:
        return None, f"not decided: {_name(edges[0])} is best at the last rate tried, {edges[0].best:g}; try more"
    return True, f"transfers: at most {worst.regret:.3f} nats lost, and wider is better"


def _name(size: Size) -> str:
    return f"d_model={size.d_model}, num_layers={size.num_layers}"
