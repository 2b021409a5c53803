"""python -m pytest tests/test_epochs.py"""

import importlib
from dataclasses import replace

import numpy as np
import pytest

from isoflop.record import Record
from isoflop.study.questions.answer import few
from isoflop.study.questions.epochs import epochs
from tests.questions import corpus, corpus_of_one_size, corpus_of_sizes_alike, record, records


def test_the_turn_and_the_worth_of_a_repeated_token_come_back() -> None:
    answer = epochs(corpus(8.0), replicates=10)
    assert answer.decided
    turned = {(row["pool"], row["N"]): row["epochs"][row["at"]] for row in answer.numbers["curves"] if row["turned"]}
    assert len(turned) == 3 and set(turned.values()) == {8.0}
    assert "turns after 8 epochs (between 4 and 16) at N = 12,300, 23,000, 53,800" in answer.verdict
    law = answer.numbers["law"]
    assert law["status"] == "identified" and law["value"] == pytest.approx(10, rel=0.1) and law["low"] < law["high"]
    best = {item["pool"]: item for item in answer.numbers["best"]}
    assert best[100_000]["epochs"] == 8.0 and best[400_000]["open"][0] == "epochs"
    assert "for 400,000 unique tokens are not within these runs" in answer.verdict


def test_the_best_size_and_epochs_have_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("isoflop.study.questions.epochs")  # the package's own name is the function
    monkeypatch.setattr(module, "_law", lambda *_: {"status": "refused", "reason": "not asked for", "runs": 0})
    made = corpus(8.0)
    wide = [
        replace(
            run,
            loss=run.loss + 0.2 * (run.config["model"]["d_model"] == 40) - 0.1 * (run.config["model"]["d_model"] == 24),
        )
        for run in made.runs
    ]
    best = epochs(records(wide), replicates=10).numbers["best"][0]
    low, high = best["N_between"]
    assert low < best["N"] < high and best["open"] == []
    low, high = best["epochs_between"]
    assert low <= 4.0 < 16.0 <= high and best["half"] == pytest.approx(0.03 / np.sqrt(2))
    flat = [
        replace(run, loss=run.loss - 0.005 * (run.config["model"]["d_model"] == 24)) for run in corpus_of_sizes_alike()
    ]
    assert "no end within these runs" in epochs(records(flat), replicates=10).verdict


def test_a_loss_that_never_turns_is_told() -> None:
    answer = epochs(corpus_of_one_size(None))
    assert not answer.decided and "turns nowhere within these runs" in answer.verdict
    assert answer.numbers["law"]["status"] == "refused"


def test_one_pass_is_no_answer() -> None:
    fresh = [run for run in corpus(None).runs if run.tokens <= 200_000 and run.config["data"]["train_tokens"] > 2e5]
    with pytest.raises(ValueError, match="no corpus of made up was repeated at three lengths"):
        epochs(records(fresh))
    assert "What a repeated token is worth is not decided: " in epochs(corpus_of_one_size(8.0)).verdict


def test_seeds_say_what_a_rise_is() -> None:
    twice: list[Record] = []
    for run in corpus_of_one_size(8.0).runs:
        again = record(
            run.loss + 1e-4,
            d_model=run.config["model"]["d_model"],
            tokens=round(run.tokens),
            train_tokens=run.config["data"]["train_tokens"],
            seed=1,
        )
        twice += [run, again]
    assert [row["turned"] for row in epochs(records(twice)).numbers["curves"]] == [True, False]


def test_ends_keep_three_digits() -> None:
    module = importlib.import_module("isoflop.study.questions.epochs")
    assert module._ends((1.5, 2.5)) == "between 1.5 and 2.5"
    assert [few(x) for x in (0.5, 1.33, 4, 999.9, 55_312, 999_600, 2e11)] == (
        ["0.5", "1.33", "4", "1,000", "55,300", "1e6", "2e11"]
    )
