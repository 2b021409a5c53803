"""Settings compared seed by seed: runs of one seed share data order, so that their differences have less noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from isoflop.record import Floats, Record, Records
from isoflop.study.questions.answer import length_of

LEVEL = 90.0
"""Per cent of an interval."""
DRAWS = 20_000
"""Draws for the quantile of a range: its standard error is below a hundredth of it."""
FEWEST_SEEDS = 2
"""One seed says nothing of noise."""


@dataclass(frozen=True)
class Paired:
    """Losses of settings under the same seeds, L = setting + seed + noise."""

    values: tuple[Any, ...]
    """Settings, in order."""
    loss: Float64[np.ndarray, "settings seeds"]
    seeds: tuple[int, ...]

    @property
    def mean(self) -> Floats:
        """Mean loss of each setting, nats per token."""
        return np.asarray(self.loss.mean(1))

    @property
    def best(self) -> int:
        """Position of the setting with the lowest mean."""
        return int(self.mean.argmin())

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the noise."""
        return (len(self.values) - 1) * (len(self.seeds) - 1)

    @property
    def noise(self) -> float:
        """Standard deviation of a run beyond what its setting and its seed explain, nats per token."""
        rest = self.loss - self.loss.mean(1, keepdims=True) - self.loss.mean(0, keepdims=True) + self.loss.mean()
        return float(np.sqrt((rest**2).sum() / self.freedom))

    @property
    def seed_noise(self) -> float:
        """Standard deviation of a run under another seed, nats per token."""
        return float(np.sqrt(self.loss.var(1, ddof=1).mean()))

    def margin(self, *, draws: int = DRAWS, seed: int = 0) -> float:
        """Half the width of the interval of a difference between two settings, nats per token.

        It holds for all pairs at once, the best and the worst among them: Tukey's studentised range, drawn.
        """
        rng = np.random.default_rng(seed)
        spread = np.ptp(rng.standard_normal((draws, len(self.values))), axis=1)
        scale = np.sqrt(rng.chisquare(self.freedom, draws) / self.freedom)
        return float(np.percentile(spread / scale, LEVEL) * self.noise / np.sqrt(len(self.seeds)))

    def replicates(self, *, draws: int = 2000, seed: int = 0) -> Float64[np.ndarray, "draws settings"]:
        """Return means that the same settings would have had under other seeds, of which the noise here tells."""
        rng = np.random.default_rng(seed)
        scale = np.sqrt(self.freedom / rng.chisquare(self.freedom, (draws, 1)))
        drawn = rng.standard_normal((draws, len(self.values)))
        return np.asarray(self.mean + drawn * scale * self.noise / np.sqrt(len(self.seeds)))

    def told(self) -> dict[str, Any]:
        """Plain values that a sentence and a figure need."""
        return {
            "loss": self.mean.tolist(),
            "losses": self.loss.tolist(),
            "seeds": list(self.seeds),
            "margin": self.margin(),
            "noise": self.noise,
            "seed_noise": self.seed_noise,
        }


def cells(records: Records, key: Callable[[Record], Any] = lambda run: ()) -> dict[tuple[Any, ...], list[Record]]:
    """Return the runs that are compared with each other: of one key, and of one length, in FLOPs or in tokens."""
    out: dict[tuple[Any, ...], list[Record]] = {}
    for run in records.runs:
        out.setdefault((*key(run), *length_of(run)), []).append(run)
    return out


def pair(runs: Sequence[Record], setting: Callable[[Record], Any], what: str) -> Paired:
    """Arrange runs of one length by setting and seed, the seeds that all settings have.

    Raises:
        ValueError: there are too few settings or common seeds, or two runs of one setting and seed.
    """
    found: dict[Any, dict[int, float]] = {}
    for run in runs:
        seed, value = int(run.config["train"]["seed"]), setting(run)
        if seed in found.setdefault(value, {}):
            raise ValueError(f"two runs have {what} {value} and seed {seed}; answer from one study at a time")
        assert run.loss is not None
        found[value][seed] = run.loss
    if len(found) < 2:
        raise ValueError(f"all runs have {what} {next(iter(found))}, so nothing can be compared; add runs with others")
    common = sorted(set.intersection(*(set(seeds) for seeds in found.values())))
    if len(common) < FEWEST_SEEDS:
        raise ValueError(
            f"{len(common)} seeds are common to all {len(found)} values of {what}, which says nothing of noise; "
            f"train at least {FEWEST_SEEDS} seeds of each"
        )
    values = tuple(sorted(found))
    return Paired(values, np.array([[found[v][seed] for seed in common] for v in values]), tuple(common))
