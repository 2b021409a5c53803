"""How many epochs? Where validation loss turns on a held-down corpus, and what a repeated token is worth."""

from __future__ import annotations

from typing import Any

import numpy as np

from isoflop.law.fit import fit
from isoflop.law.uncertainty import bootstrap
from isoflop.record import Record, Records
from isoflop.study.questions.answer import Answer, Cited, differ_only_in, field_of

RISE = 0.03
"""Nats that a loss must rise to have turned, where one seed each tells no noise: 1.645·√2·0.012, as seeds of models of
this size differ by 0.012 (docs/log.md, the demo at three seeds)."""
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
    return Answer(
        question="epochs",
        decided=decided,
        verdict=_verdict(rows, best, law),
        measured=tuple(measured),
        numbers={"curves": rows, "best": best, "law": law},
        literature=LITERATURE,
        runs=len(records),
        left_out=records.left_out,
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
        "turned": bool(loss[at:].max() - loss[at] > rise),
    }


def _rise(lengths: dict[float, list[Record]]) -> float:
    many = [[run.loss for run in runs] for runs in lengths.values() if len(runs) > 1]
    if not many:
        return RISE
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
    """Find the size and number of epochs of the lowest loss on one corpus, and whether they are the last ones tried."""
    row = min(rows, key=lambda row: row["loss"][row["at"]])
    sizes = [other["N"] for other in rows]
    open_ = [] if row["turned"] else ["epochs"]
    open_ += ["N"] if row["N"] == max(sizes) or row["N"] == min(sizes) else []
    return {
        "pool": row["pool"],
        "N": row["N"],
        "epochs": row["epochs"][row["at"]],
        "loss": row["loss"][row["at"]],
        "open": open_,
    }


def _verdict(rows: list[dict[str, Any]], best: list[dict[str, Any]], law: dict[str, Any]) -> str:
    turns = (
        "; ".join(_turns(rows)) + "."
        if any(row["turned"] for row in rows)
        else ("Validation loss turns nowhere within these runs.")
    )
    lines = [turns[0].upper() + turns[1:]]
    for item in best:
        tail = f" ({' and '.join(item['open'])} at the end of what was tried)" if item["open"] else ""
        lines.append(
            f"Best on {item['pool']:.3g} unique tokens: N = {item['N']:.4g} for {item['epochs']:.3g} epochs, loss "
            f"{item['loss']:.3f}{tail}."
        )
    lines.append(_of_law(law))
    return " ".join(lines)


def _turns(rows: list[dict[str, Any]]) -> list[str]:
    """Say where the loss turns, sizes that agree together."""
    alike: dict[str, list[str]] = {}
    for row in (row for row in rows if row["turned"]):
        at, e = row["at"], row["epochs"]
        before = f"{e[at - 1]:.3g}" if at else "the shortest run"
        said = (
            f"with {row['pool']:.3g} unique tokens validation loss turns after {e[at]:.3g} epochs (between {before} "
            f"and {e[at + 1]:.3g})"
        )
        alike.setdefault(said, []).append(f"{row['N']:.3g}")
    return [f"{said} at N = {', '.join(sizes)}" for said, sizes in alike.items()]


def _of_law(law: dict[str, Any]) -> str:
    if law["status"] == "refused":
        return f"What a repeated token is worth is not decided: {law['reason']}."
    known = f"R*_D = {law['value']:.3g} ({law['low']:.3g} to {law['high']:.3g}) from {law['runs']} runs before the turn"
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
