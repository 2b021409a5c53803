"""What a fit rests on and what should make one doubt it: one function a question, each answer a plain sentence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float64

from isoflop.law.fit import SAME, STARTS, order, pose, rescale
from isoflop.law.fit import fit as fit_law
from isoflop.law.laws import LAWS
from isoflop.law.provenance import conventions, rates, repeats, schedules
from isoflop.law.solve import covariance, expand, residuals
from isoflop.law.subject import AHEAD, Diagnosis, Finding, Subject
from isoflop.law.uncertainty import bootstrap
from isoflop.record import Floats, Records

WORST = 5
"""Runs that are left out together; the five of arXiv:2404.10102 changed its β from 0.37 to 0.45."""
MATTERS = 0.02
"""A change of the exponent a that is worth a warning, if it exceeds a's standard error too; about the published
standard error of β, arXiv:2404.10102."""
NORMAL = 1.4826
"""Standard deviation of a normal over its median absolute deviation."""
OUTLYING = 5.0
"""Robust standard deviations beyond which a residual is outlying: of a normal's, one in 1.7 million."""
TREND = 4.0
"""t-value above which residuals have a trend; of 6 trends tested by chance, one in 2,600."""
SHARE = 0.1
"""Least part of the residuals' variance that a trend must explain to be told."""
SURE = 3.0
"""Standard errors that separate two answers; of up to seven pairs one would often exceed two by chance."""
CUTS = 8
"""Most cut-offs tried along N and along C."""
ERRORS = "standard errors of the difference"
DRAWS = 200
"""Draws that tell what is identified: `isoflop fit` makes more, for its intervals, and judges alike."""
FEWEST_CUTS = 3
"""Fewest that show whether an answer settles."""
WEAK = 0.1
"""Standard error of a (of L, in parts of it) beyond which a cut-off tells nothing: a third of
what the count of N alone moves it by, from 0.37 to 0.70 (nanochat's log of January 2026)."""


def diagnose(
    records: Records, *, law: str = "chinchilla", tell: Callable[[str], None] = lambda said: None
) -> Diagnosis:
    """Fit a law and ask every question of CHECKS about it; `tell` hears which.

    Raises:
        ValueError: as `isoflop.law.fit.fit`.
    """
    tell("the fit")
    fitted = fit_law(records, law=law)
    with suppress(ValueError):  # too few runs to draw from: then the sandwich judges
        fitted = bootstrap(fitted, replicates=DRAWS)
    problem, scale = pose(records, LAWS[law])
    theta = rescale(LAWS[law], scale, fitted.values)
    residual = -residuals(problem, theta[None])[0]
    sigma = NORMAL * float(np.median(np.abs(residual - np.median(residual))))
    subject = Subject(fitted, records.take(order(records)), problem, scale, theta, residual, max(sigma, 1e-12))
    findings = list[Finding]()
    for name, check in CHECKS.items():
        tell(name)
        findings += check(subject)
    return Diagnosis(fitted, tuple(findings))


def identified(subject: Subject) -> list[Finding]:
    """Which parameters do the runs determine, and which slide along a flat valley?"""
    names = subject.problem.law.parameters
    near = expand(subject.problem, subject.theta[None])
    curvature = (near.inner + near.outer)[0]
    values, vectors = np.linalg.eigh(curvature)
    condition = float(values[-1] / max(values[0], 1e-300))
    variance = np.diagonal(covariance(subject.problem, subject.theta[None])[0])
    spread = np.sqrt(np.where(variance >= 0, variance, np.inf))
    status = {name: parameter.status for name, parameter in subject.fit.parameters.items()}
    loose = [name for name in names if status[name] == "flat valley"]
    along = [name for name, part in zip(names, vectors[:, 0], strict=True) if abs(part) > 0.3]
    numbers = {
        "condition": condition,
        "status": status,
        "standard_error_ln": {
            name: float(sd) if np.isfinite(sd) else None for name, sd in zip(names, spread, strict=True)
        },
    }
    said = f"the curvature's condition number is {condition:.2g} in ln of the parameters"
    bound = [name for name in names if status[name] == "on bound"]
    if not loose and not bound:
        return [Finding("identified", "good", f"all {len(names)} parameters are identified; {said}", numbers)]
    parts = [f"{', '.join(bound)} ended on a bound"] if bound else []
    if loose:
        parts.append(f"{', '.join(loose)} lie in a flat valley, along which {', '.join(along)} change together")
    return [
        Finding("identified", "warning", f"{'; '.join(parts)}; {said}; do not read these numbers one by one", numbers)
    ]


def outlying(subject: Subject) -> list[Finding]:
    """Which runs lie far off the curve?"""
    away = np.abs(subject.residual) / subject.sigma
    rows = np.flatnonzero(away > OUTLYING)
    rows = rows[np.argsort(-away[rows])]
    worst = [subject.records.runs[i].id for i in rows]
    numbers = {"runs": worst, "residuals": subject.residual[rows].tolist(), "sigma": subject.sigma}
    if not len(rows):
        return [
            Finding("outlying", "good", f"no run lies more than {OUTLYING:g} robust deviations off the curve", numbers)
        ]
    shown = ", ".join(
        f"{name} ({100 * r:+.1f} %)" for name, r in zip(worst[:8], subject.residual[rows[:8]], strict=True)
    )
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    said = f"{len(rows)} of {len(subject.records)} runs lie more than {OUTLYING:g} robust deviations off the curve"
    return [Finding("outlying", "warning", f"{said}: {shown}{more}; look at them before trusting the fit", numbers)]


def influence(subject: Subject) -> list[Finding]:
    """Which runs carry the answer: fits without each run, and without the five that lie worst."""
    count = len(subject.records)
    worst = _worst(subject)
    among = np.vstack([~np.eye(count, dtype=bool), ~np.isin(np.arange(count), worst)[None]])
    whole = subject.ahead(subject.theta[None])
    found = subject.ahead(subject.refit(among))
    key = "a" if "a" in found else "L"
    change = found[key] - whole[key]
    single = np.argsort(-np.abs(change[:-1]), kind="stable")[:WORST]
    ids = [subject.records.runs[i].id for i in worst]
    numbers = {
        "of": key,
        "whole": float(whole[key][0]),
        "most": {subject.records.runs[i].id: float(change[i]) for i in single},
        "worst": ids,
        "without_worst": {name: float(values[-1]) for name, values in found.items()},
        "with_worst": {name: float(values[0]) for name, values in whole.items()},
    }
    top = subject.records.runs[single[0]].id
    said = (
        f"without the {WORST} runs that lie worst ({', '.join(ids)}), {key} goes from {whole[key][0]:.3f} to "
        f"{found[key][-1]:.3f}"
    )
    if "N" in found:
        said += f" and N* at {AHEAD:g} times the largest C changes by a factor {found['N'][-1] / whole['N'][0]:.2f}"
    said += f"; of single runs {top} moves {key} most, by {change[single[0]]:+.3f}"
    # what the runs leave open anyhow is no sign of single ones
    open_ = float(_spread(subject, np.ones((1, count), dtype=bool), subject.theta[None], key)[0])
    limit = max(MATTERS if key == "a" else MATTERS * float(whole["L"][0]), open_)
    moved = max(abs(change[-1]), abs(change[single[0]])) > limit
    return [Finding("influence", "warning" if moved else "good", said, numbers)]


def _worst(subject: Subject) -> np.ndarray:
    """Find the runs farthest off a curve that they do not pull at: concentration steps (Rousseeuw 1999)."""
    residual = subject.residual
    for _ in range(3):
        worst = np.argsort(-np.abs(residual), kind="stable")[:WORST]
        keep = ~np.isin(np.arange(len(residual)), worst)
        residual = residuals(subject.problem, subject.refit(keep[None]))[0]
    return worst


def regime(subject: Subject) -> list[Finding]:
    """Where does the scaling regime start: does the answer settle as the smallest N, or C, are left out?"""
    return [finding for letter in ("N", "C") for finding in _regime(subject, letter)]


def _regime(subject: Subject, letter: str) -> list[Finding]:
    column = np.log(getattr(subject.records, letter))
    cuts = np.unique(np.quantile(column, np.linspace(0, 0.7, CUTS), method="lower"))
    keep = column >= cuts[:, None] - SAME
    # budgets that differ by rounding leave out the same runs
    different = np.sort(np.unique(keep, axis=0, return_index=True)[1])
    cuts, keep = cuts[different], keep[different]
    usable = np.array([i for i in range(len(cuts)) if _suffices(subject, keep[i])], dtype=np.int64)
    if len(usable) < FEWEST_CUTS:
        law = subject.problem.law
        said = (
            f"too few runs, or too few values of {letter}, to leave out the smallest {letter} step by step: it takes "
            f"{FEWEST_CUTS} cut-offs that leave {2 * len(law.parameters)} runs and 3 values of "
            f"{' and of '.join(law.varied)}, and there are {len(usable)}"
        )
        return [Finding("regime", "note", said, {letter: np.exp(cuts[usable]).tolist()})]
    cuts, keep = cuts[usable], keep[usable]
    theta = subject.refit(keep, STARTS)
    answer = subject.ahead(theta)
    # a law whose form fixes a, such as α = β, is judged by its loss ahead
    key = "a" if "a" in answer and np.ptp(answer["a"]) > SAME else "L"
    sd = _spread(subject, keep, theta, key)
    told = sd <= (WEAK if key == "a" else WEAK * float(subject.records.L.min()))
    if told.sum() < FEWEST_CUTS or not told[0]:
        said = f"without the smallest {letter} the other runs leave {key} too uncertain to tell where scaling starts"
        numbers = {letter: np.exp(cuts).tolist(), key: answer[key].tolist(), "sd": sd.tolist()}
        numbers |= {"runs": keep.sum(1).tolist()}
        return [Finding("regime", "note", said, numbers)]
    cuts, keep, sd, answer = cuts[told], keep[told], sd[told], {key: answer[key][told]}
    start = next(i for i in range(len(cuts)) if _settled(answer[key][i:], sd[i:]))
    at = np.exp(cuts)
    numbers = {letter: at.tolist(), key: answer[key].tolist(), "sd": sd.tolist(), "runs": keep.sum(1).tolist()}
    path = _path(answer[key], sd, at, letter, start)
    if start == 0:
        said = f"leaving out the smallest {letter} does not move {key} by more than {SURE:g} {ERRORS} ({path})"
        return [Finding("regime", "good", said, numbers)]
    if start >= len(cuts) - 2:
        said = f"{key} keeps moving as the smallest {letter} are left out ({path}): no scaling regime in {letter} shows"
        return [Finding("regime", "warning", said, numbers)]
    said = (
        f"from {letter} = {at[start]:.2g} on {key} agrees with all later cut-offs within {SURE:g} {ERRORS} "
        f"({path}): below it other rules may hold"
    )
    return [Finding("regime", "warning", said, numbers)]


def _path(answer: Floats, sd: Floats, at: Floats, letter: str, start: int) -> str:
    """Name the answers from the first cut-off, from where they settle, and from the last, each with its error."""
    shown = sorted({0, start, len(at) - 1})
    return ", ".join(f"{answer[i]:.3f} ± {sd[i]:.3f} from {letter} = {at[i]:.2g}" for i in shown)


def _suffices(subject: Subject, keep: Bool[np.ndarray, "runs"]) -> bool:
    law = subject.problem.law
    columns = [np.log(subject.problem.variables[letter][keep]) for letter in law.varied]
    return bool(keep.sum() >= 2 * len(law.parameters)) and all(len(np.unique(np.round(x, 2))) >= 3 for x in columns)


def _spread(
    subject: Subject, keep: Bool[np.ndarray, "subsets runs"], theta: Float64[np.ndarray, "subsets params"], key: str
) -> Floats:
    """Carry the sandwich covariance of θ over to an answer by finite differences."""
    many = replace(subject.problem, weights=keep.astype(np.float64), delta=np.repeat(subject.problem.delta, len(keep)))
    spread, step = covariance(many, theta), 1e-5
    move = step * np.eye(theta.shape[1])
    slope = np.stack(
        [(subject.ahead(theta + m)[key] - subject.ahead(theta - m)[key]) / (2 * step) for m in move], axis=1
    )
    variance = np.einsum("bi,bij,bj->b", slope, spread, slope)
    return np.asarray(np.sqrt(np.maximum(variance, 0.0)))


def _settled(answer: Floats, sd: Floats) -> bool:
    """Whether all later answers agree with the first; nested samples differ by the difference of variances."""
    allowed = SURE * np.sqrt(np.abs(sd**2 - sd[0] ** 2)) + 1e-3
    return bool((np.abs(answer - answer[0]) <= allowed).all())


def trends(subject: Subject) -> list[Finding]:
    """Do the residuals rise, fall or bend along N, D or C?"""
    limit = 3 * subject.sigma
    y = np.clip(subject.residual, -limit, limit)
    found = []
    for letter in "NDC":
        x = np.log(getattr(subject.records, letter))
        if np.ptp(x) < SAME or len(x) < 6:
            continue
        for power, verb in ((1, "trend"), (2, "bend")):
            t, share = _t_value((x - x.mean()) / x.std(), y, power)
            if abs(t) > TREND and share > SHARE:
                way = (
                    ("above the curve at both ends" if t > 0 else "below it at both ends")
                    if power == 2
                    else ("rise" if t > 0 else "fall")
                )
                said = (
                    f"residuals {verb} along {letter} ({way}; {100 * share:.0f} % of their variance, t = {t:.1f}): "
                    f"{subject.fit.law} does not describe how the loss depends on {letter}"
                )
                found.append(
                    Finding("trends", "warning", said, {"against": letter, "power": power, "t": t, "share": share})
                )
    return found or [Finding("trends", "good", "residuals show no trend or bend along N, D or C", {})]


def _t_value(x: Floats, y: Floats, power: int) -> tuple[float, float]:
    """Return the t-value of a polynomial's highest term, and the part of the variance that it explains."""
    design = np.vander(x, power + 1)
    beta, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    without = y - design[:, 1:] @ np.linalg.lstsq(design[:, 1:], y, rcond=None)[0]
    rest = float(((y - design @ beta) ** 2).sum())
    total = float((without**2).sum())
    if rank <= power or total <= 0 or len(x) <= power + 1:
        return 0.0, 0.0
    t = np.sign(beta[0]) * np.sqrt(max(total - rest, 0.0) / max(rest / (len(x) - power - 1), 1e-300))
    return float(t), 1 - rest / total


CHECKS: Mapping[str, Callable[[Subject], list[Finding]]] = {
    "identified": identified,
    "outlying": outlying,
    "influence": influence,
    "regime": regime,
    "trends": trends,
    "conventions": conventions,
    "repeats": repeats,
    "rates": rates,
    "schedules": schedules,
}
