"""python -m pytest tests/test_heads_fixed.py"""

from dataclasses import replace

import numpy as np
import pytest

from isoflop.study.questions.heads_fixed import heads_fixed
from tests.questions import head_lengths, records, two_sweeps


def test_an_exponent_that_moves_with_the_heads_is_found() -> None:
    answer = heads_fixed(two_sweeps(0.2, 1e-3))
    assert answer.decided and answer.verdict.startswith("No, not if the exponent matters")
    moved = answer.numbers["difference"]
    assert moved["low"] < 0.2 < moved["high"] and moved["value"] == pytest.approx(0.2, abs=0.02)
    assert answer.numbers["same_runs"] == 0


def test_an_exponent_that_stays_is_found_and_noise_is_not_decided() -> None:
    same = heads_fixed(two_sweeps(0.0, 1e-3))
    assert same.decided and same.verdict.startswith("Yes, at these sizes")
    noisy = heads_fixed(two_sweeps(0.0, 0.015))
    moved = noisy.numbers["difference"]
    assert not noisy.decided and noisy.verdict.startswith("Not decided, but bounded")
    assert f"move a by at most {max(-moved['low'], moved['high']):.3f}" in noisy.verdict


def test_two_sweeps_are_needed() -> None:
    with pytest.raises(ValueError, match="only 2 budgets of made up have 4 widths both"):
        heads_fixed(two_sweeps(0.0, 1e-3, budgets=(1e11, 2e11)))
    with pytest.raises(ValueError, match="all runs of made up have 2 heads"):
        heads_fixed(records([run for run in two_sweeps(0.0, 1e-3).runs if run.config["model"]["num_heads"] == 2]))
    with pytest.raises(ValueError, match="made up has no budgets"):
        heads_fixed(head_lengths())
    edge = two_sweeps(0.0, 1e-3)
    steep = [replace(run, loss=2 + 0.1 * float(np.log(run.params["compute"] / 1e3)) ** 2) for run in edge.runs]
    assert "lie at the edge of the sampled widths" in heads_fixed(records(steep)).verdict
