"""python -m pytest tests/test_rate.py"""

import numpy as np
import pytest

from isoflop.study.questions.rate import rate
from tests.questions import checked, sweep, without_config


def test_a_rate_that_carries_over_is_found() -> None:
    answer = rate(sweep(0.0))
    assert answer.decided and answer.verdict.startswith(
        "standard: transfers: at most 0.000 nats lost, and wider is better"
    )
    base, *larger = answer.numbers["parametrizations"][0]["sizes"]
    assert base["between"] is None and all(size["regret"] < 0.02 and size["between"][0] == 0 for size in larger)
    assert "×4 width" in answer.verdict and "×8 width" in answer.verdict and "×4 depth" in answer.verdict


def test_a_rate_that_moves_is_found() -> None:
    answer = rate(sweep(0.5))
    assert answer.decided and "does not transfer" in answer.verdict
    sizes = answer.numbers["parametrizations"][0]["sizes"]
    regret = {(size["d_model"], size["num_layers"]): size["regret"] for size in sizes}
    assert regret[64, 2] == pytest.approx(0.1 * np.log(2) ** 2, abs=0.01)
    assert "at least" in rate(sweep(1.2)).verdict


def test_a_parametrization_is_read_only_where_its_coordinate_check_passes() -> None:
    made = sweep(0.5, kinds=("standard", "mup", "completep"))
    checks = [*checked("mup", True), *checked("completep", True, False)]
    answer = rate(made, checks)
    assert not answer.decided and "standard: does not transfer" in answer.verdict
    assert "mup: transfers" in answer.verdict and "its coordinate check passes" in answer.verdict
    assert "completep: refused, for its coordinate check does not pass" in answer.verdict
    assert "depth +0.40 (control +1.20)" in answer.verdict
    assert [row["gate"] for row in answer.numbers["parametrizations"]] == [True, True, False]
    assert rate(made, [*checked("mup", True), *checked("completep", True, True)]).decided
    assert "mup: refused, for its coordinate check was not made" in rate(made).verdict
    assert "shows nothing, for the control does not grow" in rate(made, checked("mup", None)).verdict


def test_a_rate_at_the_edge_is_not_decided() -> None:
    answer = rate(sweep(0.0, edge=True))
    assert not answer.decided and "the base model is best at the last rate tried" in answer.verdict
    once = rate(sweep(0.0, seeds=1, noise=0))
    assert once.numbers["parametrizations"][0]["sizes"][1]["between"] is None
    assert "one seed of each, so noise is not known" in once.verdict


def test_a_transfer_needs_runs_of_ours() -> None:
    with pytest.raises(ValueError, match=r"does not say its optim\.lr; the question needs runs that isoflop trained"):
        rate(without_config(sweep(0.0)))
