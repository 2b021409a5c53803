"""How far a study is, read from its folders alone, so that any number of people may watch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from isoflop.data.tokens import open_configured
from isoflop.flops import compute, train_steps
from isoflop.record import Record
from isoflop.sources.log import last_line
from isoflop.study import drive
from isoflop.study.drive import Planned
from isoflop.study.study import Study

QUIET = 120.0
"""Seconds without a line in the log after which a run counts as interrupted; there are two hundred lines in a run."""


@dataclass(frozen=True, kw_only=True)
class Underway:
    """A run that has begun and is not done."""

    planned: Planned
    step: int
    steps: int
    loss: float
    """Training loss, nats per token."""
    flops: float
    """Spent so far."""
    rate: float
    """FLOPs per second."""
    silent: float
    """Seconds since its last line."""

    @property
    def running(self) -> bool:
        """Whether somebody trains it now, by its log."""
        return self.silent < QUIET


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What of a study is done, under way and open."""

    study: Study
    planned: Sequence[Planned]
    """The runs of the design, and the target where its folder exists."""
    records: Mapping[Path, Record]
    underway: Sequence[Underway]

    @property
    def flops(self) -> float:
        """What all runs will have cost."""
        return sum(run.flops for run in self.planned)

    @property
    def spent(self) -> float:
        """FLOPs of what is done and under way."""
        done = sum(run.flops for run in self.planned if run.folder in self.records)
        return done + sum(run.flops for run in self.underway)

    @property
    def seconds_left(self) -> float | None:
        """What is open over the speed of the runs under way; None while nothing runs."""
        rate = sum(run.rate for run in self.underway if run.running)
        open_flops = sum(run.flops for run in self.planned if run.folder not in self.records)
        return (open_flops - sum(run.flops for run in self.underway)) / rate if rate else None


def progress(folder: Path) -> Progress:
    """Read how far the study of a folder is.

    Raises:
        ValueError: the folder holds no study, or its tokens do not suit.
    """
    study = drive.open_study(folder)
    planned = list(drive.plan(study, folder))
    if study.target_flops is not None:
        planned += [run for run in drive.plan(study, folder, targets=True) if run.folder.exists()]
    records = drive.records(planned)
    train_tokens = open_configured(study.data, vocab_size=study.model.vocab_size).train_tokens
    begun = [run for run in planned if run.folder not in records and (run.folder / "log.jsonl").exists()]
    told = [_underway(run, train_tokens) for run in begun]
    return Progress(study=study, planned=planned, records=records, underway=[run for run in told if run is not None])


def _underway(run: Planned, train_tokens: int) -> Underway | None:
    log = run.folder / "log.jsonl"
    line = last_line(log)
    if line is None:
        return None
    config = run.config
    flops = (1 - config.first_step / line["step"]) * line["tokens"] * compute(config.model)
    return Underway(
        planned=run,
        step=line["step"],
        steps=train_steps(config.model, config.train, train_tokens=train_tokens),
        loss=line["train_loss"],
        flops=flops,
        rate=flops / max(line["seconds"], 1e-3),
        silent=max(0.0, time.time() - log.stat().st_mtime),
    )
