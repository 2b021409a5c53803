"""The curves of runs that isoflop trained: the points of their logs, for approach 1."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np

from isoflop.record import Record, Records

ALIKE = 1.1
"""A point is the mean of the logged losses within this factor of its tokens to either side: one batch is noisy."""
MANY = 1000
"""Runs above which their final losses stand close enough for approach 1: 10,000 logs of 1,000 lines take a minute."""
BEGUN = 0.1
"""The first part of a run, while its rate still warms up, is left out."""


def read_curves(source: str | Path, records: Records) -> Records | None:
    """Return points along these runs of a folder, each run a group, with its training loss.

    None: it has no logs, or more than `MANY` runs.
    """
    folder = Path(source)
    if not folder.is_dir() or len(records) > MANY:
        return None
    parent = folder / "runs" if (folder / "runs").is_dir() else folder
    points = [point for run in records.runs for point in _points(parent / run.id / "log.jsonl", run)]
    return replace(records, runs=tuple(points)) if points else None


def _points(log: Path, run: Record) -> list[Record]:
    text = log.read_text(encoding="utf-8") if log.exists() else ""
    lines = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    rows = [
        (line["tokens"], line["flops"], line["train_loss"])
        for line in lines
        if {"tokens", "flops"} <= line.keys() and math.isfinite(line.get("train_loss", math.nan))
    ]
    if not rows:
        return []
    tokens, flops, loss = np.array(rows, dtype=np.float64).T
    total = np.concatenate([[0.0], np.cumsum(loss)])
    first, last = np.searchsorted(tokens, tokens / ALIKE), np.searchsorted(tokens, tokens * ALIKE, side="right")
    smooth = (total[last] - total[first]) / (last - first)
    kept = tokens > BEGUN * tokens[-1]
    points = zip(tokens[kept].tolist(), flops[kept].tolist(), smooth[kept].tolist(), strict=True)
    return [
        replace(run, id=f"{run.id} {i}", tokens=D, flops=C, loss=L, group=run.id) for i, (D, C, L) in enumerate(points)
    ]
