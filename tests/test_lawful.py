"""python -m pytest tests/test_lawful.py"""

from dataclasses import replace

import pytest

from isoflop.config import ModelConfig, OptimConfig, TrainConfig
from isoflop.law.lawful import cells, lawful, setting
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
