"""Which learning rate? What the rate of the small model costs at larger widths and depths, per parametrization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from isoflop.record import Floats, Record, Records
from isoflop.study.questions.answer import Answer, Cited, differ_only_in, field_of

ALLOWED = 0.02
"""Nats per token that a transferred rate may cost, or two standard deviations between seeds where that is more."""
FEWEST_RATES = 3
"""Fewest rates of a shape: one on either side of the best."""
DRAWS = 2000

Shape = tuple[int, int]
"""d_model and num_layers."""
Losses = dict[float, dict[int, float]]
"""Loss by rate and seed."""


def rate(records: Records) -> Answer:
    """Say what the best rate of the smallest model loses at each larger width and depth, and whether that is little.

    The regret of a shape is its loss at the base's best rate minus its loss at its own best.

    Raises:
        ValueError: there is no base, no larger shape, or too few rates.
    """
    differ_only_in(
        records,
        {
            "model": {"d_model", "num_layers", "num_heads", "parametrization", "base_width", "base_depth"},
            "optim": {"lr"},
            "train": {"seed", "flops", "tokens", "steps"},
        },
    )
    by_kind: dict[str, dict[Shape, Losses]] = {}
    for run in records.runs:
        shapes = by_kind.setdefault(str(run.config["model"].get("parametrization", "standard")), {})
        _put(shapes.setdefault(_shape(run), {}), run)
    rows = [_row(kind, shapes) for kind, shapes in sorted(by_kind.items())]
    measured = [
        f"{'':<12} {'d_model':>8} {'layers':>7} {'best rate':>10} {'regret':>8} {'90 % interval':>18} {'allowed':>8}"
    ]
    for row in rows:
        for item in row["shapes"]:
            between = f"{item['low']:.4f} to {item['high']:.4f}" if item["low"] is not None else "one seed"
            measured.append(
                f"{row['parametrization']:<12} {item['d_model']:>8} {item['num_layers']:>7} {item['best']:>10.4g} "
                f"{item['regret']:8.4f} {between:>18} {row['allowed']:8.4f}"
            )
    return Answer(
        question="rate",
        decided=all(row["refused"] is None for row in rows),
        verdict=" ".join(_sentence(row) for row in rows),
        measured=tuple(measured),
        numbers={"parametrizations": rows},
        literature=LITERATURE,
        runs=len(records),
        left_out=records.left_out,
    )


def _shape(run: Record) -> Shape:
    return int(field_of(run, "model", "d_model")), int(field_of(run, "model", "num_layers"))


def _put(losses: Losses, run: Record) -> None:
    lr, seed = float(field_of(run, "optim", "lr")), int(field_of(run, "train", "seed"))
    if seed in losses.setdefault(lr, {}):
        raise ValueError(f"two runs have rate {lr:g}, seed {seed} and d_model {_shape(run)[0]}; answer from one study")
    assert run.loss is not None
    losses[lr][seed] = run.loss


def _row(kind: str, shapes: dict[Shape, Losses]) -> dict[str, Any]:
    base = min(shapes)
    larger = sorted(shape for shape in shapes if shape != base)
    few = [shape for shape, losses in shapes.items() if len(losses) < FEWEST_RATES]
    if not larger or few:
        which = f"d_model {few[0][0]} has {len(shapes[few[0]])} rates" if few else f"only d_model {base[0]} was trained"
        raise ValueError(
            f"{which} under {kind}; a transfer needs a base, larger shapes, and {FEWEST_RATES} rates of each"
        )
    rates, loss = _means(shapes[base])
    at = int(loss.argmin())
    noise = _noise(losses for by_rate in shapes.values() for losses in by_rate.values())
    edge = at in (0, len(rates) - 1)
    told = [] if edge else [_regret(shape, shapes[shape], shapes[base], noise) for shape in larger]
    along = [
        (base, float(loss[at])),
        *((shape, item["transferred"]) for shape, item in zip(larger, told, strict=False)),
    ]
    wider = [value for (_, depth), value in along if depth == base[1]]
    return {
        "parametrization": kind,
        "base": list(base),
        "rate": float(rates[at]),
        "refused": f"its best rate {rates[at]:g} is the last one tried" if edge else None,
        "allowed": max(ALLOWED, 2 * noise),
        "noise": noise,
        "shapes": told,
        "wider_is_better": bool((np.diff(wider) < 0).all()) if len(wider) > 1 else None,
        "curves": [
            {"d_model": shape[0], "num_layers": shape[1], "rates": x.tolist(), "loss": y.tolist()}
            for shape, (x, y) in ((shape, _means(shapes[shape])) for shape in (base, *larger))
        ],
    }


def _means(losses: Losses) -> tuple[Floats, Floats]:
    rates = sorted(losses)
    return np.array(rates), np.array([np.mean(list(losses[lr].values())) for lr in rates])


def _noise(cells: Iterable[dict[int, float]]) -> float:
    """Standard deviation between seeds of one rate and shape; 0 where each was trained once."""
    many = [list(losses.values()) for losses in cells if len(losses) > 1]
    spare = sum(len(values) - 1 for values in many)
    return float(np.sqrt(sum(np.var(values) * len(values) for values in many) / spare)) if many else 0.0


def _regret(shape: Shape, losses: Losses, base: Losses, noise: float) -> dict[str, Any]:
    rates, loss = _means(losses)
    own, theirs = _means(base)
    common = [i for i, lr in enumerate(own) if lr in losses]
    if len(common) < len(own):
        raise ValueError(
            f"d_model {shape[0]} was not trained at every rate of the base; repeat the sweep with the same rates"
        )
    where = {lr: i for i, lr in enumerate(rates.tolist())}
    at = where[float(own[theirs.argmin()])]
    rng = np.random.default_rng(0)
    seeds = min(len(values) for values in losses.values())
    small = theirs + noise / np.sqrt(seeds) * rng.standard_normal((DRAWS, len(own)))
    large = loss + noise / np.sqrt(seeds) * rng.standard_normal((DRAWS, len(rates)))
    chosen = np.array([where[lr] for lr in own.tolist()])[small.argmin(1)]
    low, high = np.percentile(large[np.arange(DRAWS), chosen] - large.min(1), (5, 95))
    return {
        "d_model": shape[0],
        "num_layers": shape[1],
        "best": float(rates[loss.argmin()]),
        "transferred": float(loss[at]),
        "regret": float(loss[at] - loss.min()),
        "low": float(low) if noise else None,
        "high": float(high) if noise else None,
    }


def _sentence(row: dict[str, Any]) -> str:
    kind, (width, depth) = row["parametrization"], row["base"]
    if row["refused"]:
        return f"{kind}: not decided, for {row['refused']} at the base of d_model {width}; try rates beyond it."
    parts = []
    for item in row["shapes"]:
        times = [f"×{item[key] / of:g} {name}" for key, of, name in _factors(width, depth) if item[key] != of]
        between = f" ({item['low']:.4f} to {item['high']:.4f})" if item["low"] is not None else ""
        parts.append(f"{item['regret']:.4f}{between} at {' and '.join(times)}")
    passes = all(item["regret"] <= row["allowed"] for item in row["shapes"])
    wider = {True: "; wider is better there", False: "; wider is not always better there", None: ""}[
        row["wider_is_better"]
    ]
    verdict = "transfers" if passes else "does not transfer"
    seeds = "" if row["noise"] else " (one seed of each, so noise is not known)"
    return (
        f"{kind}: the rate {row['rate']:g} {verdict}: it costs, in nats per token, {', '.join(parts)}, where "
        f"{row['allowed']:.4f} is allowed{seeds}{wider}."
    )


def _factors(width: int, depth: int) -> tuple[tuple[str, int, str], ...]:
    return (("d_model", width, "width"), ("num_layers", depth, "depth"))


LITERATURE = (
    Cited(
        "arXiv:2203.03466",
        "under μP the best rate stays as width grows: carried over from 13 million parameters to 350 million "
        "(BERT-large), and from 40 million to 6.7 billion (GPT-3)",
    ),
    Cited(
        "arXiv:2505.01618",
        "some parametrizations do not carry the base rate over to other depths; CompleteP does, and saves 12 to 34 % "
        "of FLOPs",
    ),
    Cited("arXiv:2503.04715", "Step Law: the best peak rate is 1.79·N^-0.713·D^0.307 under standard parametrization"),
)
