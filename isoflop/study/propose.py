"""What a study's runs tell, and the runs that would tell most: the step from a fit to the next round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from isoflop.flops import compute
from isoflop.law.advise import AHEAD, FAR, advise
from isoflop.law.fit import Fit, fit
from isoflop.law.forecast import forecast
from isoflop.law.frontier import approach3
from isoflop.law.lawful import lawful
from isoflop.law.laws import LAWS
from isoflop.law.repetition import MUCH
from isoflop.law.uncertainty import bootstrap
from isoflop.sources.folder import read_folder
from isoflop.study.design import run_of, width_near
from isoflop.study.rounds import Known, Round
from isoflop.study.study import Study

REPLICATES = 300
"""Draws for the interval of the exponent, as `isoflop plan` takes them."""
DESIGNS_OF_ROUNDS = ("isoflop", "grid", "ladder", "next")
"""Designs whose runs are separate ones of one recipe, as proposed runs are."""


def check_study(study: Study) -> None:
    """Make sure that rounds can be trained after a study.

    Raises:
        ValueError: its runs are branches, or compare settings.
    """
    if study.design not in DESIGNS_OF_ROUNDS:
        raise ValueError(
            f"--run trains separate runs of one recipe, which a study of design={study.design} has none of; leave "
            f"--run out, or use a study of design={', '.join(DESIGNS_OF_ROUNDS)}"
        )


def fit_folder(folder: Path, law: str) -> Fit:
    """Fit the law to all complete runs of a study, rounds included; errors as `read_folder` and `fit`."""
    return fit(lawful(read_folder(folder))[0], law=law)


def known(fitted: Fit, target: float) -> Known:
    """Say what a fit's runs know of the target's optimum."""
    N, D = (float(value) for value in fitted.optimum(target))
    ahead = forecast(fitted.records, N=N, D=D)
    a = approach3(bootstrap(fitted, replicates=REPLICATES)).a
    assert a.low is not None and a.high is not None
    return Known(
        runs=len(fitted.records),
        exponent=float(a.value),
        exponent_low=float(a.low),
        exponent_high=float(a.high),
        params=N,
        loss=float(ahead.mean[0]),
        low=float(ahead.low[0]),
        high=float(ahead.high[0]),
    )


def default_target(fitted: Fit, allowance: float) -> float:
    """FLOPs of the forecast to improve: as far beyond the largest run, of all rounds, as `advise` looks by itself."""
    return AHEAD * max(float(fitted.records.C.max()), FAR * allowance)


def propose(
    study: Study, fitted: Fit, before: Known, *, number: int, allowance: float, unique: float, **wishes: Any
) -> Round:
    """Choose the runs of a round, as models that can be built and in whole steps; `wishes` go to `advise`.

    What would read the `unique` training tokens more than `MUCH` times is left out: the fit would leave it out too.

    Raises:
        ValueError: nothing else is proposed.
    """
    told = advise(fitted, allowance, **wishes)
    widths, budgets, expected, why = list[int](), list[float](), list[float](), list[str]()
    for run in told.runs:
        config = run_of(study, width_near(study, run.params), run.flops)
        per_token = compute(config.model)
        step = per_token * config.train.batch_size * config.model.context_length
        spent = step * max(1.0, np.floor(run.flops / step))
        if spent / per_token > MUCH * unique:
            continue
        widths.append(config.model.d_model)
        why.append(run.why)
        budgets.append(float(spent))
        expected.append(float(np.asarray(LAWS[fitted.law].loss(fitted.values, N=per_token / 6, D=spent / per_token))))
    if not widths:
        raise ValueError(
            f"all runs proposed for {allowance:.3g} FLOPs would read the {unique:.3g} training tokens more than "
            f"{MUCH:g} times, and no fit takes those; give fewer --flops, or a study of more text"
        )
    return Round(
        number=number,
        widths=tuple(widths),
        budgets=tuple(budgets),
        expected=tuple(expected),
        why=tuple(why),
        left_out=len(told.runs) - len(why),
        target=told.target,
        before=before,
    )
