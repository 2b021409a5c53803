"""python -m pytest tests/test_heads.py"""

import pytest

from isoflop.study.questions.heads import heads
from tests.questions import head_counts, record, records, without_config


def test_a_number_of_heads_that_is_worse_is_found() -> None:
    answer = heads(head_counts(0.03, 0.003))
    assert answer.decided and "1 head by 0.0" in answer.verdict and "cannot be told from the best" in answer.verdict
    row = answer.numbers["cells"][0]
    assert row["over"][0] == pytest.approx(0.03, abs=0.006) and row["seed_noise"] > 2 * row["noise"]


def test_heads_that_differ_less_than_noise_are_not_decided() -> None:
    answer = heads(head_counts(0.0, 0.01))
    assert not answer.decided and answer.verdict.startswith("Not decided at d_model 48 and 2e11 FLOPs")


def test_runs_that_differ_in_something_else_are_refused() -> None:
    made = head_counts(0.03, 0.003)
    other = [*made.runs[:-1], record(1.8, num_heads=8, budget=2e11, seed=4, lr=0.01)]
    with pytest.raises(ValueError, match=r"lr is 0.01 in run d48-l2-\w+ and 0.005 in"):
        heads(records(other))
    with pytest.raises(
        ValueError, match=r"does not say its model\.d_model; the question needs runs that isoflop trained"
    ):
        heads(without_config(made))
