"""What whoever reads a table should say of it: what was guessed, and what looks odd."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from isoflop.counts import COMMA, COUNTED, parse
from isoflop.record import Records
from isoflop.sources.cells import Row, text_of
from isoflop.sources.columns import reading

FACTOR = 2.0
"""C/(6ND) beyond this is no matter of counting embeddings or attention (1.05 to 1.9 in arXiv:2406.19146's runs)."""
MIXED = 3.0
"""Largest over smallest C/(ND) beyond which rows seem to count C in several ways."""
MOST_LOSS = math.log(300_000)
"""A uniform guess over a vocabulary of this size; larger ones are not in use."""
RISES = 0.5
"""Rank correlation of L and C above which numbers below 1 look like scores."""


def remarks(records: Records, rows: Sequence[Row], columns: Mapping[str, str], counted: str | None) -> tuple[str, ...]:
    """Return a sentence for each thing worth telling."""
    told = [reading(columns)]
    if columns["loss"] == columns.get("bits_per_byte"):
        told.append(f"bits per byte ({columns['loss']}) are turned into nats per token")
    if counted is not None and counted != records.convention:
        told.append(f"N is counted as {counted}, in the table's own word")
    told += [_written(rows, columns), _blank(rows, columns), _flops(records, columns), _loss(records)]
    return tuple(sentence for sentence in told if sentence is not None)


def _written(rows: Sequence[Row], columns: Mapping[str, str]) -> str | None:
    """Show a suffix and a decimal comma, as they were read."""
    told = []
    for form in (COUNTED, COMMA):
        for meaning in ("params", "tokens", "flops", "loss"):
            texts = (text_of(row, columns, meaning) for row in rows)
            shown = next((text for text in texts if text is not None and form.fullmatch(text)), None)
            if shown is not None:
                told.append(f"{columns[meaning]} {shown} is read as {parse(shown, loss=meaning == 'loss'):g}")
                break
    return "; ".join(told) or None


def _blank(rows: Sequence[Row], columns: Mapping[str, str]) -> str | None:
    """Tell of empty cells of N, D and C, worked out by C = 6ND, where others of their column are filled."""
    told = []
    for meaning, rule in (("params", "C/6D"), ("tokens", "C/6N"), ("flops", "6ND")):
        fitted = [row for row in rows if text_of(row, columns, "loss") is not None]
        empty = sum(text_of(row, columns, meaning) is None for row in fitted)
        if meaning in columns and 0 < empty < len(fitted):
            told.append(f"{columns[meaning]} is empty in {empty} of {len(fitted)} rows, and taken as {rule} there")
    return "; ".join(told) or None


def _flops(records: Records, columns: Mapping[str, str]) -> str | None:
    if not {"params", "tokens", "flops"} <= columns.keys():
        return None
    ratio = records.C / (records.N * records.D)
    least, middle, most = np.percentile(ratio, (0, 50, 100))
    if most > MIXED * least:
        return (
            f"C/(N·D) runs from {least:.3g} to {most:.3g} where 6 is usual: rows seem to count C "
            f"({columns['flops']}) or N in several ways; see `isoflop diagnose`"
        )
    if max(middle / 6, 6 / middle) > FACTOR:
        return (
            f"C ({columns['flops']}) is {middle:.3g}·N·D, not the usual 6·N·D: if that is no count of training FLOPs, "
            "take the column out, and C = 6ND is taken instead"
        )
    return None


def _loss(records: Records) -> str | None:
    middle = float(np.median(records.L))
    if middle > MOST_LOSS:
        return (
            f"half of the losses exceed {MOST_LOSS:.1f} nats per token, the ln of the largest vocabularies: if they "
            "are perplexities, give their logarithms instead"
        )
    if len(records) > 3 and records.L.max() <= 1:
        loss, flops = (np.argsort(np.argsort(column)) for column in (records.L, records.C))
        if np.cov(loss, flops)[0, 1] > RISES * loss.std() * flops.std():
            return "the losses lie below 1 and rise with C, as an accuracy would; a loss should fall"
    return None
