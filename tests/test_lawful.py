"""python -m pytest tests/test_lawful.py"""

from dataclasses import replace

import numpy as np
import pytest

from isoflop.config import ModelConfig, OptimConfig, TrainConfig
from isoflop.law.fit import fit
from isoflop.law.lawful import cells, lawful, setting, sifted
from isoflop.law.uncertainty import bootstrap
from isoflop.record import Record, Records


def runs(*rows: dict) -> Records:
    plain = {"params": {"given": 1e6}, "tokens": 2e7, "flops": 1.2e14, "loss": 3.0}
    return Records(tuple(Record(**{"id": f"{i}", **plain, **row}) for i, row in enumerate(rows)), source="made up")


def given(*rows: dict) -> Records:
    return replace(runs(*rows), convention="given")


def test_runs_that_a_law_holds_for_stay_as_they_are() -> None:
    records = given({"unique_tokens": 1e7}, {"tokens": 4e7}, {"tokens": 4e7, "measured": {"seed": 1}})
    assert lawful(records) == (records, ())
    assert cells(records).tolist() == [0, 1, 1]


def test_much_repeated_tokens_are_left_out() -> None:
    kept, notes = lawful(given({"unique_tokens": 1e6}, {}, {"unique_tokens": 5e6}))
    assert [run.id for run in kept.runs] == ["1", "2"]
    assert notes[0].startswith("left out 1 of 3 runs that saw their tokens more than 4 times")
    alone = given({"unique_tokens": 1e6})
    assert lawful(alone) == (alone, ())


def test_of_several_rates_the_best_stays_with_all_its_seeds() -> None:
    rates = [(1e-3, 3.0), (2e-3, 2.9), (2e-3, 2.95), (4e-3, 2.93)]
    kept, notes = lawful(given(*({"loss": loss, "measured": {"lr": lr}} for lr, loss in rates)))
    assert [run.id for run in kept.runs] == ["1", "2"] and "left out 2 of 4" in notes[0]


def test_a_setting_is_that_of_the_configuration_or_of_the_table() -> None:
    config = {"model": vars(ModelConfig(d_model=64)), "train": vars(TrainConfig(batch_size=8, steps=10))}
    config["optim"] = vars(OptimConfig(lr=4e-3, lr_width=128))
    own, table = runs({"config": config}, {"measured": {"lr": 0.01, "steps": 100.0}}).runs
    assert setting(own) == pytest.approx((8e-3, 8 * 128)) and setting(table) == (0.01, 2e5)
    assert setting(runs({}).runs[0]) == (None, None)


def swept() -> Records:
    """Runs of a law, each with a second one at a bad rate and one of many epochs."""
    rows = []
    for N in (1e6, 3e6, 1e7):
        for D in (2e7, 6e7, 2e8, 6e8):
            loss, about = 2 + 400 * N**-0.35 + 900 * D**-0.35, {"params": {"given": N}, "tokens": D, "flops": 6 * N * D}
            rows += [about | {"loss": x, "measured": {"lr": lr}} for lr, x in ((1e-3, loss), (1e-2, loss + 0.5))]
            rows.append(about | {"loss": loss + 1, "unique_tokens": D / 50, "measured": {"lr": 1e-3}})
    return given(*rows)


def test_a_fit_of_all_runs_is_made_again_without_those_that_the_law_does_not_hold_for() -> None:
    whole = bootstrap(fit(swept(), weights=np.arange(1.0, 37.0)), replicates=10)
    again, notes = sifted(whole)
    assert len(again.records) == 12 and len(again.samples["A"]) == 10 and again.weights == tuple(range(1, 37, 3))
    assert again.values["alpha"] == pytest.approx(0.35, abs=1e-3) and whole.values["alpha"] != again.values["alpha"]
    assert len(notes) == 3 and "its law is fitted again without them" in notes[-1]
    assert sifted(again) == (again, ())


def test_a_law_of_repeated_tokens_keeps_them() -> None:
    kept, notes = lawful(swept(), law="data_constrained")
    assert len(notes) == 1 and len(kept) == 24
    kept, notes = lawful(given({"unique_tokens": 1e6}, {"tokens": 4e7}), law="data_constrained")
    assert len(kept) == 2 and notes == ()
