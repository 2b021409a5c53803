"""What a question gets for an answer: a verdict in words, the numbers under it, and what others found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from isoflop.config import ModelConfig
from isoflop.record import Record, Records

APART = 0.03
"""Nats by which two losses of one seed each must differ to be told apart: 1.645·√2·0.012, as seeds of models of this
size differ by 0.012 (docs/log.md, the demo at three seeds)."""


@dataclass(frozen=True)
class Cited:
    """A result of others, to be set beside ours."""

    source: str
    """arXiv id."""
    says: str


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question answered from some runs."""

    question: str
    """Key of QUESTIONS."""
    decided: bool
    """Whether the runs decide it; where they do not, the verdict says why."""
    verdict: str
    """One or a few sentences, each number with its interval."""
    measured: tuple[str, ...]
    """Lines of a small table."""
    numbers: Mapping[str, Any]
    """What the figure and JSON need."""
    literature: tuple[Cited, ...]
    runs: int
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def answered(records: Records, **said: Any) -> Answer:
    """Answer from these runs, whose number and what was left out are told."""
    return Answer(**said, runs=len(records), left_out=records.left_out)


def between(low: float, high: float, form: str = ".4f") -> str:
    """Write a 90 % interval."""
    return f"{low:{form}} to {high:{form}}"


def few(value: float) -> str:
    """Write a number with three digits: 1.33 and 55,300 below a million, 2e11 from there on."""
    mantissa, _, power = f"{value:.3g}".partition("e")
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if 1000 <= rounded < 1e6 else mantissa + (f"e{int(power)}" if power else "")


def field_of(run: Record, part: str, name: str) -> Any:
    """Return a field of the configuration of a run of ours.

    Raises:
        ValueError: the record has no configuration, as those of tables have none.
    """
    try:
        return run.config[part][name]
    except KeyError:
        raise ValueError(
            f"run {run.id} does not say its {part}.{name}; the question needs runs that isoflop trained"
        ) from None


def heads_of(run: Record) -> int:
    """Query heads of a run, with the default worked out."""
    shape = {name: field_of(run, "model", name) for name in ("d_model", "num_heads", "position")}
    return ModelConfig(**shape).heads


def length_of(run: Record) -> tuple[str, float]:
    """Return what was held equal when the run's length was chosen: its FLOPs, or its tokens."""
    return ("FLOPs", run.budget) if run.budget is not None else ("tokens", run.tokens)


def differ_only_in(records: Records, allowed: Mapping[str, set[str]]) -> None:
    """Make sure that runs that are compared have everything else in common.

    Raises:
        ValueError: they differ in a field that is not under question.
    """
    known: dict[tuple[str, str], tuple[Any, str]] = {}
    for run in records.runs:
        for part in ("model", "data", "optim", "train"):
            for name, value in run.config.get(part, {}).items():
                first, where = known.setdefault((part, name), (value, run.id))
                if value != first and name not in allowed.get(part, set()) | LOOSE:
                    raise ValueError(
                        f"{name} is {value!r} in run {run.id} and {first!r} in {where}, so that its effect and the one "
                        "in question cannot be told apart; answer from runs that share it"
                    )


LOOSE = {"device", "eval_every", "log_every", "checkpoint_every", "keep_last", "grad_accum", "data", "val", "mix"} | {
    "tokenizer_file"
}
"""Fields that change where and how often a run writes, and the files' places, which data_sha256 stands for."""
