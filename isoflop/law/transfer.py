"""Does a learning rate carry over to larger models? Judged by activations, and by the loss that it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from isoflop.architecture import BASES, ParametrizationKind
from isoflop.config import OptimConfig, TrainConfig
from isoflop.record import Floats, Record

# the limits of SCIENCE: width and depth transfer
FLAT, GROWING = 0.1, 0.3
"""A slope of activations up to FLAT passes, where that of the standard control reaches GROWING."""
REGRET, SPREADS = 0.02, 2.0
"""Nats per token, or standard deviations between seeds if these are more, that a rate carried over may cost."""
CHECKED_OPTIM = OptimConfig(lr=0.01, lr_width=None, schedule="constant", warmup_steps=0, warmup_fraction=0.0)
"""What a coordinate check trains with. The rate is large: at widths of 32 to 512 the control's activations grow faster
than d_model^2 within five updates."""
CHECKED_TRAIN = TrainConfig(steps=6, batch_size=4)
"""How long: five updates, and a forward pass after the last."""
FEWEST_RATES = 3
"""Fewest rates of a shape: one on either side of the best."""
DRAWS = 2000
"""Draws of an interval; its ends at 5 and 95 % are then known to about half a per cent of probability."""
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

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Coordinates:
        """Read what `to_dict` wrote."""
        given = {name: tuple(value[name]) for name in ("sizes", "places")}
        return cls(
            parametrization=value["parametrization"],
            axis=value["axis"],
            activations=np.array(value["activations"], dtype=np.float64),
            **given,
        )


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
    """How much more that is than the lowest loss; at least so much where that is at an edge."""
    between: tuple[float, float] | None
    """90 % interval of the regret, by the noise of seeds; None: one seed, or the base model."""


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
        """Plain values; what is infinite is None."""
        value = asdict(self)
        for size in value["sizes"]:
            size["losses"] = [_finite(loss) for loss in size["losses"]]
            size |= {name: _finite(size[name]) for name in ("carried", "regret")}
            size["between"] = size["between"] and [_finite(end) for end in size["between"]]
        return value


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


Shape = tuple[int, int]
"""d_model and num_layers."""
Losses = dict[float, dict[int, float]]
"""Loss by rate and seed; infinite where the run diverged."""


def transfer(records: Sequence[Record]) -> list[Transfer]:
    """Judge each parametrization of a learning-rate sweep: runs that differ in shape, peak rate and seed alone.

    Raises:
        ValueError: two runs are the same, there is no larger shape, a shape has too few rates or not the base model's
            best, or none at which all seeds are complete.
    """
    grouped: dict[ParametrizationKind, dict[Shape, Losses]] = {}
    for run in records:
        model, rate, seed = run.config["model"], run.config["optim"]["lr"], run.config["train"]["seed"]
        shapes = grouped.setdefault(model.get("parametrization", "standard"), {})
        seeds = shapes.setdefault((model["d_model"], model["num_layers"]), {}).setdefault(rate, {})
        if seed in seeds:
            raise ValueError(
                f"two runs have rate {rate:g}, seed {seed} and d_model={model['d_model']}; judge one sweep at a time"
            )
        seeds[seed] = math.inf if run.loss is None else run.loss
    return [_judged(name, grouped[name]) for name in BASES if name in grouped]


def _judged(name: ParametrizationKind, shapes: dict[Shape, Losses]) -> Transfer:
    means = {
        shape: {rate: float(np.mean(list(losses.values()))) for rate, losses in sorted(rates.items())}
        for shape, rates in sorted(shapes.items())
    }
    best = {shape: min(losses, key=losses.__getitem__) for shape, losses in means.items()}
    rate = best[min(means)]
    _check(name, means, rate)
    cells = [list(rates[chosen].values()) for shape, rates in shapes.items() for chosen in {best[shape], rate}]
    several = [losses for losses in cells if len(losses) > 1 and math.isfinite(sum(losses))]
    noise = float(np.sqrt(np.mean([np.var(losses, ddof=1) for losses in several]))) if several else None
    freedom = sum(len(losses) - 1 for losses in several)
    draws = None if noise is None else _Draws(noise / math.sqrt(min(map(len, several))), freedom, means[min(means)])
    tolerance = max(REGRET, SPREADS * (noise or 0.0))
    sizes = tuple(_size(shape, losses, best[shape], rate, draws) for shape, losses in means.items())
    passed, why = _verdict(sizes, rate, tolerance)
    return Transfer(
        parametrization=name, sizes=sizes, rate=rate, noise=noise, tolerance=tolerance, passed=passed, why=why
    )


def _check(name: str, means: dict[Shape, dict[float, float]], rate: float) -> None:
    for shape, losses in means.items():
        where = f"d_model={shape[0]}, num_layers={shape[1]} under {name}"
        if not any(map(math.isfinite, losses.values())):
            raise ValueError(f"no rate trained all seeds of {where} to the end; give smaller rates")
        if len(means) < 2 or len(losses) < FEWEST_RATES:
            raise ValueError(
                f"{where} is the only shape, or has {len(losses)} rates alone; a transfer needs a base model, larger "
                f"ones, and {FEWEST_RATES} rates of each"
            )
        if rate not in losses:
            raise ValueError(
                f"{where} was not trained at the base model's best rate, {rate:g}; give all the same rates"
            )


@dataclass(frozen=True)
class _Draws:
    """What other seeds could have found, from which regrets have their intervals."""

    noise: float
    """Standard deviation of a mean loss."""
    freedom: int
    base: Mapping[float, float]
    """Mean loss of the base model by rate."""

    def interval(self, losses: Mapping[float, float]) -> tuple[float, float]:
        """90 % interval of the regret of a model: both its best rate and the base model's are chosen anew."""
        rates = list(losses)
        common = [rate for rate in rates if rate in self.base]
        rng = np.random.default_rng(0)
        scale = self.noise * np.sqrt(self.freedom / rng.chisquare(self.freedom, (DRAWS, 1)))
        small = np.array([self.base[rate] for rate in common]) + scale * rng.standard_normal((DRAWS, len(common)))
        large = np.array(list(losses.values())) + scale * rng.standard_normal((DRAWS, len(rates)))
        chosen = np.array([rates.index(rate) for rate in common])[small.argmin(1)]
        regret = large[np.arange(DRAWS), chosen] - large.min(1)
        # nearest: a diverged run makes a regret infinite, and between two of these nothing can be read off
        low, high = np.percentile(regret, (5, 95), method="nearest")
        return float(low), float(high)


def _size(shape: Shape, losses: dict[float, float], best: float, rate: float, draws: _Draws | None) -> Size:
    return Size(
        d_model=shape[0],
        num_layers=shape[1],
        rates=tuple(losses),
        losses=tuple(losses.values()),
        best=best,
        edge=best in (min(losses), max(losses)),
        carried=losses[rate],
        regret=losses[rate] - losses[best],
        between=None if draws is None or losses is draws.base else draws.interval(losses),
    )


def _verdict(sizes: Sequence[Size], rate: float, tolerance: float) -> tuple[bool | None, str]:
    base, *larger = sizes
    worst = max(larger, key=lambda size: size.regret)
    if base.edge:
        side = "smaller" if rate == base.rates[0] else "larger"
        return None, f"not decided: the base model is best at the last rate tried, {rate:g}; try {side} ones"
    if worst.regret > tolerance:
        least = "at least " if worst.edge else ""
        return False, f"does not transfer: {least}{worst.regret:.3f} nats lost at {_name(worst)}"
    sizes_by_depth = sorted(sizes, key=lambda size: (size.num_layers, size.d_model))
    for narrow, wide in pairwise(sizes_by_depth):
        if narrow.num_layers == wide.num_layers and not wide.carried < narrow.carried:
            return False, f"does not transfer: at {rate:g}, {_name(wide)} is no better than {_name(narrow)}"
    if edges := [size for size in larger if size.edge]:
        return None, f"not decided: {_name(edges[0])} is best at the last rate tried, {edges[0].best:g}; try more"
    return True, f"transfers: at most {worst.regret:.3f} nats lost, and wider is better"


def _name(size: Size) -> str:
    return f"d_model={size.d_model}, num_layers={size.num_layers}"
