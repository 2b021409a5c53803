"""How many epochs? Where validation loss turns on a held-down corpus, and what a repeated token is worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from isoflop.law.fit import fit
from isoflop.law.uncertainty import bootstrap
from isoflop.record import Record, Records
from isoflop.study.questions.answer import APART, Answer, Cited, answered, differ_only_in, few, field_of

FEWEST_LENGTHS = 3
"""A turn needs a length on either side."""
REPLICATES = 100
PUBLISHED = 15.387756
"""R*_D of arXiv:2305.16264."""


def epochs(records: Records, *, replicates: int = REPLICATES) -> Answer:
    """Say after how many epochs the loss turns at each size and corpus, which is best, and what R*_D is.

    The law is fitted to the runs before the turn: it has no term for over-fitting.

    Raises:
        ValueError: the records do not say their unique tokens, or no corpus was repeated.
    """
    differ_only_in(
        records, {"model": {"d_model", "num_heads"}, "data": {"train_tokens"}, "train": {"seed", "tokens", "flops"}}
    )
    curves: dict[tuple[float, float], dict[float, list[Record]]] = {}
    for run in records.runs:
        curves.setdefault((_pool(run), run.params[records.convention]), {}).setdefault(run.tokens, []).append(run)
    rows = [_row(pool, N, lengths) for (pool, N), lengths in sorted(curves.items()) if len(lengths) >= FEWEST_LENGTHS]
    if not any(row["epochs"][-1] > 1 for row in rows):
        raise ValueError(
            f"no corpus of {records.source} was repeated at three lengths or more; hold it down with train_tokens"
        )
    keep = [run for row in rows for run in records.runs if _before(run, row, records.convention)]
    law = _law(records, keep, replicates)
    best = [_best([row for row in rows if row["pool"] == pool]) for pool in sorted({row["pool"] for row in rows})]
    measured = [f"{'unique':>9} {'N':>8} {'epochs: loss, nats per token (lowest of the row in brackets)'}"]
    for row in rows:
        cells = [
            f"{e:.3g}: [{y:.3f}]" if i == row["at"] else f"{e:.3g}: {y:.3f}"
            for i, (e, y) in enumerate(zip(row["epochs"], row["loss"], strict=True))
        ]
        measured.append(f"{row['pool']:9.3g} {row['N']:8.4g} {'   '.join(cells)}")
    decided = any(row["turned"] for row in rows) or law["status"] == "identified"
    return answered(
        records,
        question="epochs",
        decided=decided,
        verdict=_verdict(rows, best, law),
        measured=tuple(measured),
        numbers={"curves": rows, "best": best, "law": law},
        literature=LITERATURE,
    )


def _pool(run: Record) -> float:
    """Training tokens of the corpus that a run draws from."""
    held = field_of(run, "data", "train_tokens")
    return float(held if held is not None else run.measured["train_tokens"])


def _row(pool: float, N: float, lengths: dict[float, list[Record]]) -> dict[str, Any]:
    D = np.array(sorted(lengths))
    loss = np.array([np.mean([run.loss for run in lengths[tokens]]) for tokens in D])
    at, rise = int(loss.argmin()), _rise(lengths)
    return {
        "pool": pool,
        "N": N,
        "tokens": D.tolist(),
        "epochs": (D / pool).tolist(),
        "loss": loss.tolist(),
        "at": at,
        "rise": rise,
        "turned": bool(loss[at:].max() - loss[at] > rise),
    }


def _rise(lengths: dict[float, list[Record]]) -> float:
    many = [[run.loss for run in runs] for runs in lengths.values() if len(runs) > 1]
    if not many:
        return APART
    deviation = np.sqrt(np.mean([np.var(np.array(losses), ddof=1) for losses in many]))
    return float(1.645 * np.sqrt(2 / min(map(len, many))) * deviation)


def _before(run: Record, row: dict[str, Any], convention: str) -> bool:
    mine = _pool(run) == row["pool"] and run.params[convention] == row["N"]
    return bool(mine and run.tokens <= row["tokens"][row["at"]])


def _law(records: Records, runs: list[Record], replicates: int) -> dict[str, Any]:
    """Fit the data-constrained law; a refusal is told, not raised, for the turn needs no law."""
    among = Records(tuple(runs), records.source, records.convention)
    try:
        made = bootstrap(fit(among, law="data_constrained", objective="robust"), replicates=replicates)
    except ValueError as refusal:
        return {"status": "refused", "reason": str(refusal), "runs": len(runs)}
    found = made.parameters["R_D"]
    return {
        "status": found.status,
        "value": found.value,
        "low": found.low,
        "high": found.high,
        "runs": len(runs),
        "parameters": made.values,
    }


def _best(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Find the size and number of epochs of the lowest loss on one corpus, and those that noise cannot tell from them.

    An interval lies between the nearest sizes, or epochs, on either side whose best loss is for sure higher; None where
    all that were tried on that side are as good.
    """
    cells = [(y, row["N"], e) for row in rows for e, y in zip(row["epochs"], row["loss"], strict=True)]
    loss, N, passes = min(cells)
    margin = max(row["rise"] for row in rows)
    near = [(n, e) for y, n, e in cells if y <= loss + margin]
    sizes, lengths = sorted({n for _, n, _ in cells}), sorted({e for _, _, e in cells})
    open_ = ["epochs"] if passes == lengths[-1] else []
    open_ += ["N"] if N in (sizes[0], sizes[-1]) else []
    return {
        "pool": rows[0]["pool"],
        "N": N,
        "N_between": _around(sizes, [n for n, _ in near]),
        "epochs": passes,
        "epochs_between": _around(lengths, [e for _, e in near]),
        "loss": loss,
        # a difference of two runs is √2 noisier than one
        "half": margin / np.sqrt(2),
        "open": open_,
    }


def _around(tried: list[float], near: list[float]) -> tuple[float | None, float | None]:
    below, above = [x for x in tried if x < min(near)], [x for x in tried if x > max(near)]
    return (max(below) if below else None), (min(above) if above else None)


def _verdict(rows: list[dict[str, Any]], best: list[dict[str, Any]], law: dict[str, Any]) -> str:
    turns = (
        "; ".join(_turns(rows)) + "."
        if any(row["turned"] for row in rows)
        else ("Validation loss turns nowhere within these runs.")
    )
    lines = [turns[0].upper() + turns[1:]]
    lines += [_of_best(item) for item in best]
    lines.append(_of_law(law))
    return " ".join(lines)


def _of_best(item: dict[str, Any]) -> str:
    loss = f"loss {item['loss']:.3f} ± {item['half']:.3f} nats per token"
    if item["open"]:
        return (
            f"The best size and epochs for {few(item['pool'])} unique tokens are not within these runs: {loss} is "
            f"lowest at N = {few(item['N'])} for {item['epochs']:.3g} epochs, where the {' and '.join(item['open'])} "
            "tried end."
        )
    return (
        f"Best for {few(item['pool'])} unique tokens: N = {few(item['N'])} ({_ends(item['N_between'])}) for "
        f"{item['epochs']:.3g} epochs ({_ends(item['epochs_between'])}), {loss}."
    )


def _ends(between: tuple[float | None, float | None]) -> str:
    low, high = ("" if end is None else few(end) for end in between)
    if low and high:
        return f"between {low} and {high}"
    if low or high:
        return f"{f'above {low}' if low else f'below {high}'}; the other end is not within these runs"
    return "no end within these runs"


def _turns(rows: list[dict[str, Any]]) -> list[str]:
    """Say where the loss turns, sizes that agree together."""
    alike: dict[str, list[str]] = {}
    for row in (row for row in rows if row["turned"]):
        at, e = row["at"], row["epochs"]
        before = f"{e[at - 1]:.3g}" if at else "the shortest run"
        said = (
            f"with {few(row['pool'])} unique tokens validation loss turns after {e[at]:.3g} epochs (between {before} "
            f"and {e[at + 1]:.3g})"
        )
        alike.setdefault(said, []).append(few(row["N"]))
    return [f"{said} at N = {', '.join(sizes)}" for said, sizes in alike.items()]


def _of_law(law: dict[str, Any]) -> str:
    if law["status"] == "refused":
        return f"What a repeated token is worth is not decided: {law['reason']}."
    known = (
        f"R*_D = {law['value']:.3g} (90 % interval {law['low']:.3g} to {law['high']:.3g}) from {law['runs']} runs "
        "before the turn"
    )
    if law["status"] != "identified":
        return f"What a repeated token is worth is not decided: {known}, {law['status']}."
    return f"{known}, where arXiv:2305.16264 has {PUBLISHED:.1f}."


LITERATURE = (
    Cited(
        "arXiv:2305.16264",
        "up to 4 epochs change the loss negligibly against unique data; then a repeated token is worth less and less, "
        "with R*_D = 15.4",
    ),
)
