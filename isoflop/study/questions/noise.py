"""The gradient noise scale that runs logged: along the longest of them, and at the end of each length."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from isoflop.record import Record, Records
from isoflop.study.questions.answer import APART


def noise_scale(records: Records, batch_tokens: Callable[[Record], float]) -> dict[str, Any] | None:
    """Return the gradient noise scale, tokens (arXiv:1812.06162), of the runs whose rate suits their batch.

    Those are the runs within noise of the best rate of their batch and length. Per length: the median over them of the
    last quarter of each run, with the least and the greatest; for the longest, of every quarter. None without a log.
    """
    best: dict[tuple[float, float], float] = {}
    for run in records.runs:
        key, loss = (run.tokens, batch_tokens(run)), _loss(run)
        best[key] = min(loss, best.get(key, loss))
    found: dict[float, list[list[float]]] = {}
    for run in sorted(records.runs, key=lambda run: run.tokens):
        along = run.measured.get("noise_scales")
        if along and _loss(run) <= best[run.tokens, batch_tokens(run)] + APART:
            found.setdefault(run.tokens, []).append(along)
    if not found:
        return None
    quarters = {len(along) for rows in found.values() for along in rows}
    assert len(quarters) == 1, f"runs have their noise scale at {sorted(quarters)} points, and must agree in how many"
    return {
        "ends": [{"tokens": tokens} | _spread([along[-1] for along in rows]) for tokens, rows in found.items()],
        "tokens": max(found),
        "along": [_spread([along[k] for along in found[max(found)]]) for k in range(len(found[max(found)][0]))],
    }


def _loss(run: Record) -> float:
    assert run.loss is not None
    return run.loss


def _spread(values: list[float]) -> dict[str, Any]:
    return {"value": float(np.median(values)), "low": min(values), "high": max(values), "runs": len(values)}
