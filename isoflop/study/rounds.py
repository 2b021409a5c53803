"""Rounds of a study: runs that were proposed after a fit, each round a study of design `next` in the same folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import filelock

from isoflop.files import read_json, write_json
from isoflop.study.study import Study

ROUNDS = "rounds.json"
"""In a study's folder: what was proposed, and what was known before and after."""
SEEDS = 100
"""Seeds between two rounds, so that no run of one is a run of another, or of the study."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the runs so far say of the target's optimum."""

    runs: int
    """Runs fitted."""
    exponent: float
    """a of N* ∝ C^a."""
    exponent_low: float
    exponent_high: float
    """Its 90 % interval."""
    params: float
    """N* of the target, compute count."""
    loss: float
    """Forecast there, nats per token."""
    low: float
    high: float
    """Its 90 % interval."""

    @property
    def width(self) -> float:
        """Half of the loss's interval, over the loss."""
        return (self.high - self.low) / 2 / self.loss


@dataclass(frozen=True, kw_only=True)
class Round:
    """Runs that were proposed together."""

    number: int
    """The first is 1."""
    widths: tuple[int, ...]
    """d_model of each run."""
    budgets: tuple[float, ...]
    """Its FLOPs."""
    expected: tuple[float, ...]
    """Its loss by the fit, nats per token."""
    why: tuple[str, ...]
    """What it is for."""
    target: float
    """FLOPs of the forecast that they serve."""
    before: Known
    left_out: int = 0
    """Proposed runs that would have repeated their tokens more often than any fit takes."""
    after: Known | None = None
    """None until all its runs are done."""

    def study(self, study: Study) -> Study:
        """Return the study that this round is."""
        train = replace(study.train, seed=study.train.seed + SEEDS * self.number)
        changes: dict[str, Any] = {name: getattr(Study(budgets=(1.0,)), name) for name in _OF_OTHER_DESIGNS}
        changes |= {"design": "next", "widths": self.widths, "budgets": self.budgets, "train": train}
        return replace(study, **changes)


_OF_OTHER_DESIGNS = ("lengths", "ratios", "vary", "seeds", "same_params", "recentre", "question")


def read_rounds(folder: Path) -> list[Round]:
    """Read the rounds of a study's folder, oldest first.

    Raises:
        ValueError: the file holds none.
    """
    path = folder / ROUNDS
    try:
        return [_round(value) for value in (read_json(path) if path.exists() else [])]
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} holds no rounds ({error}); was it written by another version?") from error


def _round(value: Any) -> Round:
    lists = {f.name: tuple(value[f.name]) for f in fields(Round) if isinstance(value.get(f.name), list)}
    after = value["after"] and Known(**value["after"])
    return Round(**{**value, **lists, "before": Known(**value["before"]), "after": after})


def keep(folder: Path, made: Round) -> Round:
    """Write a round down, new or with what is known after it; return it, or what another controller wrote before."""
    with filelock.FileLock(folder / "rounds.lock"):
        rounds = read_rounds(folder)
        there = rounds[made.number - 1 :]
        if there and (there[0].after is not None or made.after is None):
            return there[0]
        rounds[made.number - 1 :] = [made]
        write_json(folder / ROUNDS, [asdict(one) for one in rounds])
        return made
