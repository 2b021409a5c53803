"""`isoflop study plan`."""

from __future__ import annotations

import json as json_module
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import Positional

from isoflop.cli.study import prepare_study, with_tokens
from isoflop.counts import number_of
from isoflop.study.study import Study

if TYPE_CHECKING:
    from isoflop.study.estimate import Priced


def plan(
    file: Positional[str | None] = None,
    *,
    study: Study,
    out: str | None = None,
    target: bool = False,
    workers: int | None = None,
    seconds: float = 25.0,
    json: bool = False,
) -> None:
    """Show the runs of a study, their size, length, memory, time and price, before anything is trained.

    Times come from training each shape for about a second on as many processes as the study will use.

    Args:
        file: Study file, or the folder of a study.
        study: The question, and what all runs share.
        out: Folder of the study, whose tokens are made if they are not there; None: its name.
        target: The larger run of [target], not the runs of the design.
        workers: Processes; None: one a core.
        seconds: Longest measurement, seconds; 0: none, and no times.
        json: Print JSON.
    """
    from isoflop.data.tokens import open_configured
    from isoflop.study import drive, estimate
    from isoflop.study.timeline import write_planned

    folder = Path(out or (file if file and Path(file).is_dir() else study.name))
    study = with_tokens(study, folder)
    planned = drive.plan(study, folder, targets=target)
    train_tokens = open_configured(study.data, vocab_size=study.model.vocab_size).train_tokens
    if seconds:
        print(f"isoflop: measuring this machine, at most {seconds:.0f} s", file=sys.stderr)
    speeds = estimate.measure(planned, workers=workers, limit=seconds) if seconds else []
    priced = estimate.price(planned, speeds, study, train_tokens=train_tokens)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    slots = min(workers or cores, len(planned))
    wall = estimate.wall_seconds(priced, workers=slots)
    work = None if wall is None else sum(run.seconds or 0.0 for run in priced)
    money = None if work is None or study.price_per_hour is None else work / 3600 * study.price_per_hour
    total = {
        "runs": len(priced),
        "flops": sum(run.planned.flops for run in priced),
        "workers": slots,
        "worker_seconds": work,
        "wall_seconds": wall,
        "price": money,
    }
    if wall is not None and not target:
        write_planned(folder, wall)
    if json:
        print(json_module.dumps({"runs": [estimate.to_row(run) for run in priced], "total": total}))
        return
    print(_told(priced))
    print(f"{number_of(len(priced), 'run')}, {total['flops']:.3g} FLOPs{_time(work, wall, slots)}{_price(money)}")
    for run in priced:
        for warning in run.warnings:
            print(f"  {run.planned.config.id}: {warning}")


plan.prepare = prepare_study(plan)  # type: ignore[attr-defined]


def _told(priced: Sequence[Priced]) -> str:
    head = f"{'FLOPs':>9} {'d_model':>7} {'layers':>6} {'N':>9} {'D':>9} {'D/N':>7} {'epochs':>6} {'steps':>8}"
    lines = [f"{head} {'memory':>8} {'hours':>8}"]
    for run in sorted(priced, key=lambda run: (run.planned.config.train.flops or run.tokens, run.params)):
        model = run.planned.config.model
        memory = "-" if run.memory is None else f"{run.memory / 1e9:.2f} GB"
        hours = "-" if run.seconds is None else f"{run.seconds / 3600:.4f}"
        mark = "  !" if run.warnings else ""
        lines.append(
            f"{run.planned.flops:9.3g} {model.d_model:>7} {model.num_layers:>6} {run.params:9.4g} {run.tokens:9.4g} "
            f"{run.tokens / run.params:7.1f} {run.epochs:6.2f} {run.steps:>8,} {memory:>8} {hours:>8}{mark}"
        )
    return "\n".join(lines)


def _time(work: float | None, wall: float | None, slots: int) -> str:
    if work is None or wall is None:
        return ", time not measured"
    return f", {work / 3600:.3f} process-hours, {wall / 3600:.3f} hours ({wall:.0f} s) on {slots} processes here"


def _price(money: float | None) -> str:
    return "" if money is None else f", price {money:.2f} in your currency"
