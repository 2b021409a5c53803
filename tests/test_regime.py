"""python -m pytest tests/test_regime.py"""

import pytest

from isoflop.study.questions.regime import regime
from tests.questions import grid, records


def test_a_law_that_holds_everywhere_is_found_so() -> None:
    answer = regime(grid())
    assert answer.decided and "holds from the smallest size on" in answer.verdict
    assert answer.numbers["low"][0] < 0.4 / 0.9 < answer.numbers["high"][0]


def test_sizes_below_the_law_are_found() -> None:
    answer = regime(grid(bend=0.2, noise=2e-4))
    assert answer.decided and answer.numbers["start"] > 0
    assert "Scaling starts at N between" in answer.verdict or "Not within these runs" in answer.verdict


def test_noise_hides_the_start_of_scaling() -> None:
    answer = regime(grid(noise=0.03))
    assert not answer.decided and answer.verdict.startswith("Not decided")
    with pytest.raises(ValueError, match="fewer than three cut-offs of N"):
        regime(records([run for run in grid().runs if run.params["compute"] > 3e4]))
