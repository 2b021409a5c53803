"""python -m pytest tests/test_basis.py"""

from dataclasses import replace

import numpy as np
import pytest

from isoflop.law.basis import fitted, published, with_repetition
from isoflop.law.fit import fit
from isoflop.law.lawful import lawful
from isoflop.law.laws import LAWS, PUBLISHED
from isoflop.record import Record, Records
from isoflop.sources import read
from tests.shared import shared

TRUTH = {**PUBLISHED["muennighoff2023"].parameters, "R_D": 5.0, "R_N": 2.0}
"""Tokens that fade three times as fast as the published ones."""


def repeated() -> Records:
    """Runs of 1 to 64 epochs by TRUTH, with a little noise."""
    rng, runs = np.random.default_rng(0), []
    for N in np.geomspace(1e7, 1e9, 5):
        for U in np.geomspace(1e8, 1e10, 4):
            for epochs in (1, 4, 16, 64):
                loss = float(LAWS["data_constrained"].loss(TRUTH, N=N, D=U * epochs, U=U))
                loss *= float(np.exp(1e-3 * rng.standard_normal()))
                about = {"tokens": float(U * epochs), "flops": float(6 * N * U * epochs), "unique_tokens": float(U)}
                runs.append(Record(id=f"{len(runs)}", params={"total": float(N)}, loss=loss, **about))
    return Records(tuple(runs), source="repeats", convention="total")


def test_the_decay_of_repeated_tokens_is_that_of_the_runs() -> None:
    runs = repeated()
    kept, notes = lawful(runs)
    basis = fitted(fit(kept), tried=runs, notes=notes)
    assert basis.fades == {name: PUBLISHED["muennighoff2023"].parameters[name] for name in ("R_D", "R_N")}
    own = with_repetition(basis)
    assert own.fades["R_D"] == pytest.approx(5, rel=0.2)
    assert float(own.loss(1e9, 1e11, 1e9)) > float(basis.loss(1e9, 1e11, 1e9))


def test_what_has_no_repeated_runs_keeps_the_published_decay() -> None:
    fresh = replace(repeated(), runs=tuple(run for run in repeated().runs if run.tokens == run.unique_tokens))
    for basis in (published("besiroglu2024"), fitted(fit(fresh))):
        assert with_repetition(basis) is basis
    few = replace(repeated(), runs=(*fresh.runs[:8], repeated().runs[-1]))
    told = with_repetition(replace(fitted(fit(fresh)), tried=replace(few, runs=few.runs[-6:])))
    assert "the runs do not tell how repeated tokens fade: " in told.notes[0] and not told.faded


def test_a_law_that_is_not_published_is_refused() -> None:
    with pytest.raises(ValueError, match="'nobody' is no published law; choose one of"):
        published("nobody")


def test_a_decay_that_the_runs_leave_open_is_said_and_not_taken() -> None:
    runs = read(shared("datablations.csv"), series="c4")
    told = with_repetition(fitted(fit(lawful(runs)[0]), tried=runs))
    assert not told.faded and "the runs leave R*_D, how fast repeated tokens fade, open (a fit says" in told.notes[-1]
