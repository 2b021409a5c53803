"""Is a forecast to be trusted? Fit on the cheap runs, forecast the dear ones, and look."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from isoflop.law.fit import fit
from isoflop.law.forecast import forecast
from isoflop.law.laws import LAWS
from isoflop.law.uncertainty import MOST_DRAWS, bootstrap
from isoflop.record import Floats, Records

CUTS = (10.0, 30.0)
"""The dearest run's FLOPs over those of the dearest run that is fitted."""
AVERAGE = "average"
"""The forecast of `isoflop.law.forecast`, an average of laws; any name of LAWS asks that law with a bootstrap."""
NAIVE = "chinchilla"
"""Approach 3: what the literature extrapolates with."""
REPLICATES = 1000
"""Draws of the bootstrap."""


class Band(NamedTuple):
    """Losses of runs, nats per token, and their nominal 90 % intervals."""

    mean: Floats
    low: Floats
    high: Floats


class Score(NamedTuple):
    """How far a band lay from what was measured."""

    median_abs_rel_error: float
    """Median over runs of |forecast/measured − 1|."""
    max_abs_rel_error: float
    coverage: float
    """Part of the runs inside their interval; 0.9 is nominal."""
    interval_score: float
    """Mean over runs in ln L: the width, and 20 times how far outside (Gneiting & Raftery 2007, section 6.2)."""


@dataclass(frozen=True)
class Backtest:
    """The dear runs of one series forecast from its cheap ones."""

    law: str
    cut: float
    train: int
    test: int
    score: Score
    naive: Score
    """Of approach 3 with a bootstrap over runs, on the same runs."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "law": self.law,
            "cut": self.cut,
            "train": self.train,
            "test": self.test,
            **self.score._asdict(),
            "naive_coverage": self.naive.coverage,
            "naive_interval_score": self.naive.interval_score,
        }


def backtest(
    records: Records, *, cut: float = CUTS[0], law: str = AVERAGE, replicates: int = REPLICATES, seed: int = 0
) -> Backtest:
    """Fit the runs up to C_max/cut, forecast the rest, and score the forecast.

    Raises:
        ValueError: the cut is not above 1, the law is not known, or the runs below the cut cannot be fitted.
    """
    check_wish(law, cut, replicates)
    train, test = split(records, cut)
    naive = resampled(train, test, law=NAIVE, replicates=replicates, seed=seed)
    if law == AVERAGE:
        made = forecast(train, N=test.N, D=test.D, C=test.C)
        band = Band(made.mean, made.low, made.high)
    else:
        band = naive if law == NAIVE else resampled(train, test, law=law, replicates=replicates, seed=seed)
    return Backtest(law, cut, len(train), len(test), score(band, test.L), score(naive, test.L))


def check_wish(law: str, cut: float, replicates: int) -> None:
    """Check what holds for every series.

    Raises:
        ValueError: the law is not known, the cut is not above 1, or the draws are too few for percentiles.
    """
    if law != AVERAGE and law not in LAWS:
        raise ValueError(f"law={law!r} is not known; choose one of {', '.join((AVERAGE, *LAWS))}")
    _check_cut(cut)
    if not 2 <= replicates <= MOST_DRAWS:
        raise ValueError(
            f"bootstrap={replicates} leaves approach 3 without the interval that is compared; give 2 to {MOST_DRAWS}, "
            f"such as {REPLICATES}"
        )


def _check_cut(cut: float) -> None:
    if not 1 < cut < np.inf:
        raise ValueError(f"cut={cut:g} holds out nothing; give a factor above 1, such as 10")


def split(records: Records, cut: float) -> tuple[Records, Records]:
    """Part the runs at C_max/cut: those up to it, and those beyond.

    Raises:
        ValueError: the cut is not above 1, or leaves no run below it.
    """
    _check_cut(cut)
    # a budget that is C_max/cut but for rounding belongs to the training runs
    cheap = records.C.max() / cut * (1 + 1e-6) >= records.C
    if not cheap.any():
        raise ValueError(
            f"no run of {records.source} takes at most 1/{cut:g} of the largest one's {records.C.max():.4g} FLOPs; "
            "give --cut nearer to 1, such as 2, or add cheaper runs"
        )
    return records.take(cheap), records.take(~cheap)


def resampled(train: Records, test: Records, *, law: str, replicates: int, seed: int) -> Band:
    """Forecast by one law fitted by approach 3, with the percentiles of a bootstrap over runs as interval.

    Raises:
        ValueError: the runs cannot be fitted or drawn again.
    """
    fitted = bootstrap(fit(train, law=law), replicates=replicates, seed=seed)
    variables = {letter: getattr(test, letter) for letter in LAWS[law].variables}
    samples = {name: values[:, None] for name, values in fitted.samples.items()}
    low, high = np.percentile(LAWS[law](**variables, **samples), (5, 95), axis=0)
    return Band(np.asarray(LAWS[law](**variables, **fitted.values)), low, high)


def score(band: Band, measured: Floats) -> Score:
    """Compare a band with the losses measured."""
    error = np.abs(band.mean / measured - 1)
    ln_low, ln_high, ln_loss = np.log(band.low), np.log(band.high), np.log(measured)
    outside = np.maximum(0.0, ln_low - ln_loss) + np.maximum(0.0, ln_loss - ln_high)
    return Score(
        median_abs_rel_error=float(np.median(error)),
        max_abs_rel_error=float(error.max()),
        coverage=float((outside == 0).mean()),
        interval_score=float((ln_high - ln_low + 20 * outside).mean()),
    )
