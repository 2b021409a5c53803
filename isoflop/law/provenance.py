"""How the runs were made, as far as their numbers betray it: counts of N, repeated tokens, unfinished schedules."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from isoflop.law.fit import SAME
from isoflop.law.lawful import SIFTS, cells
from isoflop.law.repetition import MUCH
from isoflop.law.subject import Finding, Subject
from isoflop.record import Records

STRANGE = 0.02
"""Difference in ln L at one N and D that seeds alone do not make: of tiny models they spread by 0.6 % (docs/log.md)."""
OUTLYING = 5.0
"""And in robust standard deviations of the residuals, to either side."""
GAP = 0.05
"""Gap in ln(C/6ND) between runs that share no count of N."""


def conventions(subject: Subject) -> list[Finding]:
    """Do all runs count N, and so C = 6ND, alike?"""
    ratio = np.log(subject.records.C / (6 * subject.records.N * subject.records.D))
    ordered = np.sort(ratio)
    gaps = np.diff(ordered)
    wide = float(ordered[-1] - ordered[0]) if len(ordered) else 0.0
    numbers = {"C_over_6ND": [float(np.exp(ordered[0])), float(np.exp(ordered[-1]))]}
    span = f"C/(6ND) runs from {numbers['C_over_6ND'][0]:.3g} to {numbers['C_over_6ND'][1]:.3g}"
    if wide < GAP:
        return [Finding("conventions", "good", f"C = 6ND up to one factor, {np.exp(np.median(ratio)):.3g}", numbers)]
    cut = int(np.argmax(gaps))
    if gaps[cut] > max(GAP, 0.5 * wide):
        said = f"{span}, in two groups of {cut + 1} and {len(ratio) - cut - 1} runs: they seem to count N in two ways"
        return [Finding("conventions", "warning", said, {**numbers, "groups": [cut + 1, len(ratio) - cut - 1]})]
    r = float(np.corrcoef(np.log(subject.records.N), ratio)[0, 1])
    said = f"{span}, and {'changes steadily with N' if abs(r) > 0.7 else 'differs from run to run'}"
    said += ": N seems to leave out what C pays for, or the other way round; a fit under another count will differ"
    return [Finding("conventions", "note", said, {**numbers, "correlation_with_N": r})]


def repeats(subject: Subject) -> list[Finding]:
    """Were tokens repeated so often that they were worth less, or does loss rise where it should fall?"""
    runs = subject.records
    found = []
    if all(run.unique_tokens is not None for run in runs.runs):
        epochs = runs.D / runs.U
        many = int((epochs > MUCH).sum())
        numbers = {"most_epochs": float(epochs.max()), "runs": many}
        if many and "U" not in subject.problem.law.variables:
            said = (
                f"{many} of {len(runs)} runs saw their tokens over {MUCH:g} times, up to {epochs.max():.3g}, where "
                "a repeated token is worth less; fit the law data_constrained, or leave these runs out"
            )
            return [Finding("repeats", "warning", said, numbers)]
        found.append(Finding("repeats", "good", f"no token was seen more than {epochs.max():.3g} times", numbers))
        if "U" in subject.problem.law.variables:
            return found
    noise = 3 * subject.sigma
    for letter, fixed in (("D", "N"), ("N", "D")):
        if pairs := _rises(runs, letter, fixed, noise):
            said = (
                f"loss rises with {letter} at the same {fixed}, beyond the noise, in {len(pairs)} pairs such as "
                f"{pairs[0][0]} and {pairs[0][1]}: data may be repeated, or schedules may not match"
            )
            found.append(Finding("repeats", "warning", said, {"along": letter, "pairs": len(pairs)}))
    return found


def _rises(runs: Records, letter: str, fixed: str, noise: float) -> list[tuple[str, str]]:
    """Pairs of neighbours along one variable, at one value of the other, whose loss rises by more than the noise."""
    pairs = []
    held, along = np.round(np.log(getattr(runs, fixed)), 2), np.log(getattr(runs, letter))
    for value in np.unique(held):
        rows = np.flatnonzero(held == value)
        rows = rows[np.argsort(along[rows], kind="stable")]
        for i, j in pairwise(rows):
            if along[j] - along[i] > SAME and np.log(runs.L[j] / runs.L[i]) > noise:
                pairs.append((runs.runs[i].id, runs.runs[j].id))
    return pairs


def rates(subject: Subject) -> list[Finding]:
    """Do runs of one N and D differ in learning rate or batch, or in something that the source does not say?"""
    runs = subject.records
    kept, _ = SIFTS["best_rates"](runs)
    if many := len(runs) - len(kept):
        said = (
            f"{many} of {len(runs)} runs share their N and D with a better one of another learning rate or batch: the "
            "fit is of all; forecasts and plans take the best alone, and so should a fit"
        )
        return [Finding("rates", "warning", said, {"runs": many})]
    unique = [run.unique_tokens or np.inf for run in runs.runs]
    number = np.unique(np.column_stack([cells(runs), unique]), axis=0, return_inverse=True)[1].reshape(-1)
    loss = np.log(runs.L)
    limit = max(STRANGE, 2 * OUTLYING * subject.sigma)
    apart = [rows for cell in np.unique(number) if np.ptp(loss[rows := np.flatnonzero(number == cell)]) > limit]
    if not apart:
        return []
    worst = max(apart, key=lambda rows: float(np.ptp(loss[rows])))
    one, other = worst[np.argmin(loss[worst])], worst[np.argmax(loss[worst])]
    said = (
        f"{len(apart)} pairs of N and D have runs whose losses differ by more than {100 * limit:.0f} %, such as "
        f"{runs.runs[one].id} ({runs.L[one]:.4g}) and {runs.runs[other].id} ({runs.L[other]:.4g}): they seem to differ "
        "in learning rate, data or schedule, which no law of N and D knows; keep the best, or add columns lr and steps"
    )
    return [Finding("rates", "warning", said, {"cells": len(apart)})]


def schedules(subject: Subject) -> list[Finding]:
    """Were all losses read where the learning rate's schedule had ended?"""
    runs = subject.records.runs
    known = [run.measured["is_final"] for run in runs if "is_final" in run.measured]
    if known:
        early = sum(not final for final in known)
        if early:
            said = (
                f"{early} of {len(runs)} losses were read before the schedule of the run had ended (is_final = 0): "
                "they lie above what a run of that length reaches, and points of one run are not independent"
            )
            return [Finding("schedules", "warning", said, {"intermediate": early})]
        return [Finding("schedules", "good", "every loss was read at its schedule's end", {"intermediate": 0})]
    shared = [run.group for run in runs if run.group is not None]
    size = max((shared.count(group) for group in set(shared)), default=0)
    if size >= 3:
        said = (
            f"up to {size} rows share a trunk, and nothing says that their schedules had ended; if they were read "
            "along one run, its learning rate had not decayed yet"
        )
        return [Finding("schedules", "note", said, {"largest_trunk": size})]
    return [
        Finding(
            "schedules", "note", "the source does not say whether schedules had ended (a column is_final would)", {}
        )
    ]
