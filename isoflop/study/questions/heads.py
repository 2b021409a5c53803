"""How many heads? Seed-paired differences at one width, with their interval against the noise of seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from isoflop.record import Records
from isoflop.study.questions.answer import Answer, Cited, answered, differ_only_in, few, field_of, heads_of
from isoflop.study.questions.paired import Paired, cells, pair


def heads(records: Records) -> Answer:
    """Say which number of heads is best at each width and length, and which cannot be told from it.

    Raises:
        ValueError: the runs differ in something else, or there are too few of them.
    """
    varied = {"num_heads", "num_kv_heads", "d_model"}
    differ_only_in(records, {"model": varied, "train": {"seed", "flops", "tokens"}})
    widths = cells(records, lambda run: (int(field_of(run, "model", "d_model")),))
    rows = [_row(width, kind, size, pair(runs, heads_of, "num_heads")) for (width, kind, size), runs in widths.items()]
    measured = [f"{'d_model':>8} {'heads':>6} {'of size':>8} {'loss':>8} {'over the best':>14} {'90 % interval':>20}"]
    for row in rows:
        for count, loss, over in zip(row["heads"], row["loss"], row["over"], strict=True):
            low, high = over - row["margin"], over + row["margin"]
            between = "the best" if over == 0 else f"{low:+.4f} to {high:+.4f}"
            measured.append(
                f"{row['d_model']:>8} {count:>6} {row['d_model'] // count:>8} {loss:8.4f} {over:>+14.4f} {between:>20}"
            )
    return answered(
        records,
        question="heads",
        decided=any(row["decided"] for row in rows),
        verdict=" ".join(_sentence(row) for row in rows),
        measured=tuple(measured),
        numbers={"cells": rows},
        literature=LITERATURE,
    )


def _row(width: int, kind: str, size: float, paired: Paired) -> dict[str, Any]:
    over = paired.mean - paired.mean.min()
    told = paired.told()
    return {
        **told,
        "d_model": width,
        "length": {kind: size},
        "heads": list(paired.values),
        "over": over.tolist(),
        "decided": bool(over.max() > told["margin"]),
    }


def _sentence(row: dict[str, Any]) -> str:
    (kind, size), over, margin = next(iter(row["length"].items())), np.array(row["over"]), row["margin"]
    where = f"at d_model {row['d_model']} and {few(size)} {kind}"
    noise = (
        f"a run's noise is {row['noise']:.4f} nats within a seed, {row['seed_noise']:.4f} between seeds, "
        f"{len(row['seeds'])} seeds"
    )
    if not row["decided"]:
        return (
            f"Not decided {where}: no two of {_list(row['heads'])} heads differ by more than the {margin:.4f} nats "
            f"that these runs can tell ({noise})."
        )
    best = row["heads"][int(over.argmin())]
    worse = [
        f"{_heads(count)} by {gap:.4f} ({gap - margin:.4f} to {gap + margin:.4f})"
        for count, gap in zip(row["heads"], over, strict=True)
        if gap > margin
    ]
    same = [
        f"{_heads(count)} ({gap:+.4f}, {gap - margin:+.4f} to {gap + margin:+.4f})"
        for count, gap in zip(row["heads"], over, strict=True)
        if 0 < gap <= margin
    ]
    rest = f"; {_list(same)} cannot be told from the best" if same else ""
    verb = "is" if best == 1 else "are"
    return (
        f"{where[0].upper()}{where[1:]} {_heads(best)} of {row['d_model'] // best} {verb} best. "
        f"Worse, in nats per token with 90 % intervals for all pairs at once: {_list(worse)}{rest}. "
        f"{noise[0].upper()}{noise[1:]}."
    )


def _heads(count: int) -> str:
    return f"{count} head{'' if count == 1 else 's'}"


def _list(parts: list[Any]) -> str:
    said = [str(part) for part in parts]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


LITERATURE = (
    Cited(
        "arXiv:2001.08361",
        "section 3: within reasonable limits performance depends very weakly on shape; N, D and C decide",
    ),
    Cited(
        "arXiv:2002.07028",
        "many heads in a fixed width make each too small (a low-rank bottleneck); proposes a head size of the sequence "
        "length, whatever the number of heads",
    ),
)
