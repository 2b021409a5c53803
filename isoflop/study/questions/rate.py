"""Which learning rate? What the rate of the small model costs at larger widths and depths, per parametrization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from isoflop.law.transfer import FLAT, Size, Transfer, Verdict, transfer
from isoflop.record import Records
from isoflop.study.questions.answer import Answer, Cited, answered, between, differ_only_in, field_of


def rate(records: Records, checks: Sequence[Verdict] = ()) -> Answer:
    """Say what the best rate of the smallest model loses at each larger width and depth, and whether that is little.

    The regret of a shape is its loss at the base's best rate minus its loss at its own best. It says something of a
    parametrization only where the coordinate check of that one passes (`isoflop.study.gate`); standard is its control.

    Raises:
        ValueError: as `isoflop.law.transfer.transfer`, or the runs differ in something else.
    """
    differ_only_in(
        records,
        {
            "model": {"d_model", "num_layers", "num_heads", "parametrization"} | BASE,
            "optim": {"lr"},
            "train": {"seed", "flops", "tokens", "steps"},
        },
    )
    for run in records.runs:
        field_of(run, "optim", "lr")
    found = transfer(records.runs)
    rows = [(one, [check for check in checks if check.parametrization == one.parametrization]) for one in found]
    gates = [_gate(one, own) for one, own in rows]
    return answered(
        records,
        question="rate",
        decided=all(open_ and one.passed is not None for one, (open_, _) in zip(found, gates, strict=True)),
        verdict=" ".join(_sentence(one, gate) for one, gate in zip(found, gates, strict=True)),
        measured=tuple(_table(found)),
        numbers={
            "parametrizations": [
                one.to_dict() | {"checks": [asdict(check) for check in own], "gate": open_}
                for (one, own), (open_, _) in zip(rows, gates, strict=True)
            ]
        },
        literature=LITERATURE,
    )


BASE = {"base_width", "base_depth", "base_head_size"}
"""What tells of the base model, which the standard parametrization has no word for."""


def _gate(one: Transfer, checks: Sequence[Verdict]) -> tuple[bool, str]:
    """Whether the regrets may be read, and why."""
    if one.parametrization == "standard":
        return True, ""
    if not checks:
        return False, "its coordinate check was not made (it needs the study's folder and tokens)"
    said = "; ".join(
        f"{check.axis} {check.slope:+.2f} (control {check.control:+.2f})"
        if check.slope is not None
        else f"{check.axis} shows nothing, for the control does not grow ({check.control:+.2f})"
        for check in checks
    )
    passed = all(check.passed for check in checks)
    verb = "passes" if passed else "does not pass"
    return passed, f"its coordinate check {verb}, |slope| ≤ {FLAT:g} of activations with {said}"


def _table(found: Sequence[Transfer]) -> list[str]:
    lines = [f"{'':<12} {'d_model':>8} {'layers':>7} {'best rate':>10} {'loss':>8} {'regret':>8} {'90 % interval':>18}"]
    for one in found:
        for size in one.sizes:
            said = "" if size is one.sizes[0] else "one seed" if size.between is None else between(*size.between)
            regret = "the base" if size is one.sizes[0] else f"{size.regret:.4f}"
            mark = "  (last rate tried)" if size.edge else ""
            lines.append(
                f"{one.parametrization:<12} {size.d_model:>8} {size.num_layers:>7} {size.best:>10.4g} "
                f"{min(size.losses):8.4f} {regret:>8} {said:>18}{mark}"
            )
    return lines


def _sentence(one: Transfer, gate: tuple[bool, str]) -> str:
    kind, base = one.parametrization, one.sizes[0]
    if not gate[0]:
        return f"{kind}: refused, for {gate[1]}; its regrets say nothing of it."
    checked = f" ({gate[1]})" if gate[1] else ""
    if base.edge:
        return f"{kind}: {one.why}{checked}."
    parts = [f"{_cost(size)} at {_growth(base, size)}" for size in one.sizes[1:]]
    seeds = "" if one.noise is not None else "; one seed of each, so noise is not known"
    if one.passed and any(size.between and size.between[1] > one.tolerance for size in one.sizes):
        seeds = "; more than that is not ruled out by these seeds"
    return (
        f"{kind}: {one.why}. The rate {one.rate:g} of d_model {base.d_model} costs, in nats per token with 90 % "
        f"intervals, {', '.join(parts)}, where {one.tolerance:.4f} is allowed{seeds}{checked}."
    )


def _cost(size: Size) -> str:
    least = "at least " if size.edge else ""
    known = "" if size.between is None else f" ({between(*size.between)})"
    return f"{least}{size.regret:.4f}{known}" if math.isfinite(size.regret) else "the run, which diverges,"


def _growth(base: Size, size: Size) -> str:
    pairs: list[tuple[str, Any, Any]] = [
        ("width", size.d_model, base.d_model),
        ("depth", size.num_layers, base.num_layers),
    ]
    return " and ".join(f"×{large / small:g} {name}" for name, large, small in pairs if large != small)


LITERATURE = (
    Cited(
        "arXiv:2203.03466",
        "under μP the best rate stays as width grows: carried over from 13 million parameters to 350 million "
        "(BERT-large), and from 40 million to 6.7 billion (GPT-3)",
    ),
    Cited(
        "arXiv:2505.01618",
        "some parametrizations do not carry the base rate over to other depths; CompleteP does, and saves 12 to 34 % "
        "of FLOPs",
    ),
    Cited("arXiv:2503.04715", "Step Law: the best peak rate is 1.79·N^-0.713·D^0.307 under standard parametrization"),
)
