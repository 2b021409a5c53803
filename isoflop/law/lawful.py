"""Runs that one law of N and D can hold for: hardly repeated tokens, and the best learning rate of those tried."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from isoflop.config import ModelConfig, OptimConfig
from isoflop.law.fit import SAME, Fit
from isoflop.law.fit import fit as fit_law
from isoflop.law.laws import LAWS
from isoflop.law.repetition import MUCH
from isoflop.law.uncertainty import bootstrap
from isoflop.record import Record, Records


class Setting(NamedTuple):
    """What a run was trained with, as far as it says."""

    lr: float | None
    """Peak learning rate."""
    batch_tokens: float | None
    """Tokens in one step."""


def setting(run: Record) -> Setting:
    """Read a run's peak rate and batch from its configuration, or from a table's columns lr and steps."""
    if {"model", "optim", "train"} <= set(run.config):
        model, train = run.config["model"], run.config["train"]
        lr = OptimConfig(**run.config["optim"]).peak_lr(ModelConfig(**model).rate_width)
        return Setting(lr, float(train["batch_size"] * model["context_length"]))
    steps = run.measured.get("steps")
    return Setting(run.measured.get("lr"), run.tokens / steps if steps else None)


def cells(records: Records) -> Int64[np.ndarray, "runs"]:
    """Number the runs by N and D, alike where both are the same."""
    about = np.round(np.log(np.column_stack([records.N, records.D])) / SAME)
    return np.asarray(np.unique(about, axis=0, return_inverse=True)[1].reshape(-1), dtype=np.int64)


def lawful(records: Records, *, law: str = "chinchilla") -> tuple[Records, tuple[str, ...]]:
    """Leave out what a law of N and D does not hold for, and say so; one that knows U takes repeated tokens too."""
    notes: list[str] = []
    for name, sift in SIFTS.items():
        if name == "fresh" and "U" in LAWS[law].variables:
            continue
        kept, note = sift(records)
        if note is not None and len(kept):
            records, notes = kept, [*notes, note]
    return records, tuple(notes)


def sifted(fit: Fit, *, seed: int = 0) -> tuple[Fit, tuple[str, ...]]:
    """Return a fit of lawful runs as it is, any other fitted again to those of its runs that are, and say so."""
    kept, notes = lawful(fit.records, law=fit.law)
    if not notes:
        return fit, ()
    stay = {id(run) for run in kept.runs}
    weights = None
    if fit.weights is not None:
        weights = np.array([w for w, run in zip(fit.weights, fit.records.runs, strict=True) if id(run) in stay])
    again = fit_law(kept, law=fit.law, objective=fit.by, weights=weights)
    if draws := len(next(iter(fit.samples.values()), ())):
        again = bootstrap(again, replicates=draws, seed=seed)
    return again, (*notes, "the fit took them all, so its law is fitted again without them")


def _fresh(records: Records) -> tuple[Records, str | None]:
    known = [run.unique_tokens for run in records.runs]
    epochs = np.array([run.tokens / (U or run.tokens) for run, U in zip(records.runs, known, strict=True)])
    many = int((epochs > MUCH).sum())
    if not many:
        return records, None
    note = f"left out {many} of {len(records)} runs that saw their tokens more than {MUCH:g} times: those follow "
    return records.take(epochs <= MUCH), note + "another law (fit data_constrained)"


def _best_rates(records: Records) -> tuple[Records, str | None]:
    """Of runs of one N and D with several rates or batches keep those of the best, all its seeds."""
    found: dict[int, dict[Setting, list[int]]] = {}
    for i, (run, cell) in enumerate(zip(records.runs, cells(records), strict=True)):
        found.setdefault(int(cell), {}).setdefault(setting(run), []).append(i)
    best = [min(tried.values(), key=lambda rows: float(records.L[rows].mean())) for tried in found.values()]
    kept = sorted(i for rows in best for i in rows)
    if len(kept) == len(records):
        return records, None
    note = f"left out {len(records) - len(kept)} of {len(records)} runs: of those that differ only in learning rate or "
    return records.take(kept), note + "batch the best stay"


SIFTS: Mapping[str, Callable[[Records], tuple[Records, str | None]]] = {"fresh": _fresh, "best_rates": _best_rates}
