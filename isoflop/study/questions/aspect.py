"""Width against depth? The band of d_model over num_layers that lies within 1 % of the best, at one N or budget."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from isoflop.record import Floats, Record, Records
from isoflop.study.questions.answer import Answer, Cited, answered, differ_only_in, few, field_of
from isoflop.study.questions.paired import Paired, cells, pair

WITHIN = 0.01
"""Part of the best loss that a shape may lose and still count as good."""
SAME_PARAMS = 0.02
"""Largest relative difference of N, attention and MLP, between shapes that are compared."""
FEWEST_SHAPES = 4
"""Fewer shapes leave both ends of the band to one line each."""


class Band(NamedTuple):
    """Ends of bands in d_model over num_layers; 0 and infinite where one reaches the last shape sampled."""

    low: Float64[np.ndarray, "replicates"]
    high: Float64[np.ndarray, "replicates"]


def aspect(records: Records) -> Answer:
    """Say which shapes lie within 1 % of the best, with the ends' intervals, for the same tokens and the same FLOPs.

    Raises:
        ValueError: the runs differ in N or in something else than shape, or there are too few of them.
    """
    shape = {"d_model", "num_layers", "d_ff", "num_heads"}
    differ_only_in(records, {"model": shape, "train": {"seed", "flops", "tokens"}})
    rows = [_row(kind, size, runs) for (kind, size), runs in sorted(cells(records).items(), reverse=True)]
    measured = [f"{'held equal':<20} {'aspect':>7} {'d_model':>8} {'layers':>7} {'loss':>8} {'over the best':>14}"]
    for row in rows:
        for ratio, (width, depth), loss in zip(row["aspect"], row["shapes"], row["loss"], strict=True):
            over = loss / min(row["loss"]) - 1
            held = f"N, {row['size']:.3g} {row['kind']}"
            measured.append(f"{held:<20} {ratio:7.3g} {width:>8} {depth:>7} {loss:8.4f} {100 * over:>12.2f} %")
    return answered(
        records,
        question="aspect",
        decided=all(row["decided"] for row in rows),
        verdict=" ".join(_sentence(row) for row in rows),
        measured=tuple(measured),
        numbers={"cells": rows},
        literature=LITERATURE,
    )


def _shape(run: Record) -> tuple[int, int]:
    return int(field_of(run, "model", "d_model")), int(field_of(run, "model", "num_layers"))


def _ratio(run: Record) -> float:
    width, depth = _shape(run)
    return width / depth


def _row(kind: str, size: float, runs: list[Record]) -> dict[str, Any]:
    bodies = np.array([run.params["body"] for run in runs])
    if np.ptp(bodies) > SAME_PARAMS * bodies.min():
        raise ValueError(
            f"N, attention and MLP, runs from {bodies.min():.4g} to {bodies.max():.4g} at {size:.3g} {kind}, so that "
            "shape and size cannot be told apart; give the study same_params = true"
        )
    paired = pair(runs, _ratio, "d_model/num_layers")
    if len(paired.values) < FEWEST_SHAPES:
        raise ValueError(
            f"{len(paired.values)} shapes at {size:.3g} {kind} show no band; vary num_layers over "
            f"{FEWEST_SHAPES} or more"
        )
    ratios = np.array(paired.values, dtype=np.float64)
    shapes = {_ratio(run): _shape(run) for run in runs}
    drawn, found = band(ratios, paired.replicates()), band(ratios, paired.mean[None])
    return {
        **paired.told(),
        "kind": kind,
        "size": size,
        "params": float(bodies.mean()),
        "aspect": ratios.tolist(),
        "shapes": [list(shapes[ratio]) for ratio in paired.values],
        "low": _end(float(ratios[0]), drawn.low, float(found.low[0])),
        "high": _end(float(ratios[-1]), drawn.high, float(found.high[0])),
        "decided": _told(paired),
    }


def _told(paired: Paired) -> bool:
    """Whether noise lets the band be seen: some shape is outside it for sure, or all are inside."""
    over, margin, allowed = paired.mean - paired.mean.min(), paired.margin(), WITHIN * float(paired.mean.min())
    return bool((over - margin > allowed).any() or (over + margin <= allowed).all())


def band(ratios: Floats, loss: Float64[np.ndarray, "replicates shapes"]) -> Band:
    """Return where each loss, a line between shapes in ln of the ratio, first leaves 1 % of its best on either side."""
    high = _leaves(np.log(ratios), loss)
    low = _leaves(-np.log(ratios)[::-1], loss[:, ::-1])
    return Band(np.exp(-low), np.exp(high))


def _leaves(x: Floats, loss: Float64[np.ndarray, "replicates shapes"]) -> Float64[np.ndarray, "replicates"]:
    """Return the first x above the best at which the loss exceeds 1 % of it, infinite where it does nowhere."""
    rows, best = np.arange(len(loss)), loss.argmin(1)
    limit = loss.min(1) * (1 + WITHIN)
    beyond = (loss > limit[:, None]) & (np.arange(len(x)) > best[:, None])
    after = np.maximum(beyond.argmax(1), 1)
    rise = loss[rows, after] - loss[rows, after - 1]
    part = (limit - loss[rows, after - 1]) / np.where(beyond.any(1), rise, 1.0)
    return np.where(beyond.any(1), x[after - 1] + (x[after] - x[after - 1]) * part, np.inf)


def _end(sampled: float, drawn: Floats, value: float) -> dict[str, Any]:
    """Return an end of the band with its 90 % interval, and how often it reaches the last shape sampled."""
    inside = np.isfinite(drawn) & (drawn > 0)
    low, high = np.percentile(np.where(inside, drawn, sampled), (5, 95))
    known = bool(np.isfinite(value) and value > 0)
    return {"value": value if known else None, "low": float(low), "high": float(high), "open": float(1 - inside.mean())}


def _sentence(row: dict[str, Any]) -> str:
    held = f"at N = {few(row['params'])} (attention and MLP) and {few(row['size'])} {row['kind']}"
    best = min(row["loss"])
    if not row["decided"]:
        return (
            f"Not decided {held}: with {len(row['seeds'])} seeds a difference is known to ±{row['margin']:.4f} nats, "
            f"and no shape is for sure outside of 1 % of the best loss, {WITHIN * best:.4f}; train more seeds."
        )
    first, last = row["aspect"][0], row["aspect"][-1]
    if row["low"]["value"] is None and row["high"]["value"] is None:
        every = f"every shape from d_model/num_layers {first:.3g} to {last:.3g} is within 1 % of the best."
        return f"{held[0].upper()}{held[1:]} {every}"
    at = row["aspect"][row["loss"].index(best)]
    ends = [_said(row["low"], first), _said(row["high"], last)]
    return (
        f"{held[0].upper()}{held[1:]} a d_model/num_layers of {at:.3g} is best, and shapes from {ends[0]} to {ends[1]} "
        "lose at most 1 % to it."
    )


def _said(end: dict[str, Any], sampled: float) -> str:
    if end["value"] is None:
        return f"{sampled:.3g} (the last sampled)"
    return f"{end['value']:.3g} (90 % interval {end['low']:.3g} to {end['high']:.3g})"


LITERATURE = (
    Cited("arXiv:2001.08361", "section 3: within reasonable limits depth against width matters very little"),
    Cited(
        "arXiv:2505.01618",
        "CompleteP, which carries rates over to other depths, keeps a wider range of width/depth ratios "
        "compute-efficient and saves 12 to 34 % of FLOPs on deep models",
    ),
)
