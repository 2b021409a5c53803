"""Do the laws hold at every size? A law refitted with a sliding smallest N: where its exponent stops moving."""

from __future__ import annotations

import numpy as np

from isoflop.law.diagnose import SURE, diagnose
from isoflop.record import Floats, Records
from isoflop.study.questions.answer import Answer, Cited, answered, few

LAW = "chinchilla"
TOO_WIDE = 0.1
"""Half the 90 % interval of a above which 0.5 and 0.73, the values under dispute, begin to look alike."""
ROUNDING = 1e-3
"""Answers of the same runs by other starts agree to this."""


def regime(records: Records) -> Answer:
    """Say from which N on the exponent of N* moves no more, or that this does not happen within the runs.

    Raises:
        ValueError: too few sizes and lengths for three nested fits.
    """
    answers = [found.numbers for found in diagnose(records, law=LAW).findings if found.check == "regime"]
    known = next((numbers for numbers in answers if {"N", "a"} <= numbers.keys()), None)
    if known is None:
        raise ValueError(
            f"the {len(records)} runs of {records.source} leave fewer than three cut-offs of N with runs enough for "
            f"{LAW}, so nothing can be said of where scaling starts; add sizes and lengths"
        )
    N, a, sd = (np.array(known[key], dtype=np.float64) for key in ("N", "a", "sd"))
    runs = np.array(known["runs"], dtype=np.float64)
    start = next(i for i in range(len(N)) if _settled(a[i:], sd[i:], runs[i:]))
    numbers = {
        "N": N.tolist(),
        "a": a.tolist(),
        "low": (a - 1.645 * sd).tolist(),
        "high": (a + 1.645 * sd).tolist(),
        "runs": list(known["runs"]),
        "start": start,
        "convention": records.convention,
    }
    decided, verdict = _verdict(N, a, 1.645 * sd, start)
    rows = zip(N, known["runs"], a, sd, strict=True)
    return answered(
        records,
        question="regime",
        decided=decided,
        verdict=verdict,
        measured=(
            f"{'smallest N':>10} {'runs':>5} {'a of N* ∝ C^a':>14} {'90 % interval':>18}",
            *(f"{n:10.4g} {r:>5} {x:14.3f} {f'{x - 1.645 * s:.3f} to {x + 1.645 * s:.3f}':>18}" for n, r, x, s in rows),
        ),
        numbers=numbers,
        literature=LITERATURE,
    )


def _settled(a: Floats, sd: Floats, runs: Floats) -> bool:
    """Whether all later answers agree with the first: answers from n and m of its runs correlate as √(m/n)."""
    apart = sd**2 + sd[0] ** 2 - 2 * np.sqrt(runs / runs[0]) * sd * sd[0]
    return bool((np.abs(a - a[0]) <= SURE * np.sqrt(np.maximum(apart, 0.0)) + ROUNDING).all())


def _verdict(N: Floats, a: Floats, half: Floats, start: int) -> tuple[bool, str]:
    def said(i: int) -> str:
        return f"a = {a[i]:.3f} (90 % interval {a[i] - half[i]:.3f} to {a[i] + half[i]:.3f})"

    if not half[start] <= TOO_WIDE:
        least = int(half.argmin())
        best = f"; the narrowest is {said(least)} from N = {N[least]:.4g} on" if least != start else ""
        return False, (
            f"Not decided: from N = {N[start]:.4g} on {said(start)}, too wide to see a move of {TOO_WIDE:g}{best}. Add "
            "longer and shorter runs."
        )
    if start == 0:
        last = max(i for i in range(len(N)) if half[i] <= TOO_WIDE)
        rest = f", {said(last)}; from larger N alone a is not known to {TOO_WIDE:g}" if last < len(N) - 1 else ""
        return True, (
            f"The law holds from the smallest size on, within these runs: N* grows as C^a with {said(0)} for every N "
            f"from {few(N[0])}, and leaving out the N below {few(N[last])} does not move it beyond its error{rest}."
        )
    if start >= len(N) - 2:
        return True, (
            f"Not within these runs: a goes from {a[0]:.3f} with all sizes to {said(len(N) - 1)} with N from "
            f"{N[-1]:.4g} and is still moving, so no exponent of these sizes may be carried to larger ones."
        )
    return True, (
        f"Scaling starts at N between {N[start - 1]:.4g} and {N[start]:.4g}: {said(start)} from there on, and "
        f"{said(0)} with all sizes."
    )


LITERATURE = (
    Cited("arXiv:2001.08361", "N* ∝ C^0.73, counting parameters without embeddings (as quoted by arXiv:2406.12907)"),
    Cited("arXiv:2203.15556", "N* ∝ C^0.50 (as quoted by arXiv:2406.12907)"),
    Cited(
        "arXiv:2406.12907",
        "much of that gap comes from counting parameters without embeddings together with small scale: the local "
        "exponent moves with size",
    ),
)
