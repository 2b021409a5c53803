"""A study's folder as training leaves it, its losses those of a known law."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from isoflop.files import write_json
from isoflop.law.fit import fit
from isoflop.law.uncertainty import bootstrap
from isoflop.record import Record
from isoflop.sources import read
from isoflop.study.locked import Locked
from isoflop.study.study import Study

TRUTH = {"E": 1.2, "A": 90.0, "B": 90.0, "alpha": 0.5, "beta": 0.4}
BUDGETS = (1e11, 2e11, 4e11, 8e11)


def true_loss(N: float, D: float) -> float:
    """Loss of the known law, nats per token."""
    return TRUTH["E"] + TRUTH["A"] * N ** -TRUTH["alpha"] + TRUTH["B"] * D ** -TRUTH["beta"]


def true_size(C: float) -> float:
    """N* of the known law: where αA·N^-α = βB·D^-β under C = 6ND."""
    alpha, beta = TRUTH["alpha"], TRUTH["beta"]
    ratio = alpha * TRUTH["A"] / (beta * TRUTH["B"])
    return ratio ** (1 / (alpha + beta)) * (C / 6) ** (beta / (alpha + beta))


def write_run(folder: Path, *, N: float, C: float, status: Literal["complete", "diverged"] = "complete") -> Record:
    """Write a run's record and its log."""
    D = C / (6 * N)
    loss = true_loss(N, D)
    done = loss if status == "complete" else None
    record = Record(
        id=folder.name,
        params={"compute": N},
        tokens=D,
        flops=C,
        loss=done,
        status=status,
        budget=C,
        measured={"seconds": 3.0},
    )
    record.write(folder / "record.json")
    lines: list[dict[str, float]] = [
        {"step": k, "tokens": k * D / 40, "flops": k * C / 40, "train_loss": loss + 3 * math.exp(-k / 5)}
        for k in range(1, 41)
    ]
    lines += [{"step": 40, "val_loss": loss, "val_tokens": 4096}]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return record


def write_study(folder: Path, *, budgets: Sequence[float] = BUDGETS, sizes: int = 5, fitted: bool = True) -> Path:
    """Write runs within a factor of 3 of the optimum of each budget, one that diverged, and the fit."""
    for i, C in enumerate(budgets):
        for k in range(sizes):
            # one grid of sizes for all budgets, shifted by a step each, so that sizes come back
            write_run(folder / "runs" / f"b{i}-s{k}", N=true_size(budgets[0]) * 1.4 ** (k - sizes // 2 + i), C=C)
    write_run(folder / "runs" / "lost", N=1e4, C=budgets[0], status="diverged")
    study = Study(name=folder.name, source=("stdlib",), budgets=tuple(budgets), target_flops=4e12, target_d_model=72)
    write_json(folder / "study.json", study.to_dict())
    if fitted:
        write_json(folder / "fit.json", bootstrap(fit(read(str(folder))), replicates=50).to_dict())
    return folder


def write_forecast(folder: Path, *, measured: bool = True, off: float = 0.0) -> Path:
    """Write a forecast that is `off` nats above what the larger run measures, ± 0.04."""
    N = true_size(4e12)
    D = 4e12 / (6 * N)
    loss = true_loss(N, D) + off
    locked = Locked(
        run="large",
        params=N,
        params_convention="compute",
        tokens=D,
        flops=4e12,
        loss=loss,
        low=loss - 0.04,
        high=loss + 0.04,
        level=0.9,
        basis=f"made up for {folder.name}",
        made="2026-01-01T00:00:00+00:00",
        isoflop="0",
        inputs={},
    )
    write_json(folder / "forecast.json", asdict(locked))
    if measured:
        write_run(folder / "target" / "large", N=N, C=4e12)
    return folder
