"""python -m pytest tests/test_aspect.py"""

from dataclasses import replace

import numpy as np
import pytest

from isoflop.study.questions.aspect import aspect, band
from tests.questions import record, records, shapes


def test_the_band_of_shapes_comes_back() -> None:
    answer = aspect(shapes(1e-3))
    assert answer.decided
    for row in answer.numbers["cells"]:
        assert row["low"]["value"] == pytest.approx(10 / np.e, rel=0.2)
        assert row["high"]["value"] == pytest.approx(10 * np.e, rel=0.2)
        assert row["low"]["low"] <= row["low"]["value"] <= row["low"]["high"]
    assert "and 400,000 tokens a d_model" in answer.verdict and "and 2e11 FLOPs a d_model" in answer.verdict


def test_noise_wider_than_the_band_is_not_decided() -> None:
    answer = aspect(shapes(0.05))
    assert not answer.decided and answer.verdict.startswith("Not decided") and "no shape is for sure" in answer.verdict


def test_a_band_may_reach_the_last_shape() -> None:
    ratios = np.array([1.0, 2.0, 4.0])
    low, high = band(ratios, np.array([[2.0, 2.01, 2.1], [2.0, 2.0, 2.0], [2.5, 2.0, 2.5]]))
    assert low.tolist() == [0.0, 0.0, pytest.approx(2 * 0.5**0.04)]
    assert high.tolist() == [pytest.approx(2 * 2 ** (0.01 / 0.09)), np.inf, pytest.approx(2 * 2**0.04)]
    flat = [replace(run, loss=2.0 + 1e-5 * i) for i, run in enumerate(shapes(0.0).runs)]
    assert "every shape from" in aspect(records(flat)).verdict


def test_shapes_of_other_sizes_are_refused() -> None:
    larger = [record(2.0, d_model=64, num_layers=2, seed=seed) for seed in range(3)]
    small = [run for run in shapes(1e-3).runs if run.budget is None]
    with pytest.raises(ValueError, match="shape and size cannot be told apart"):
        aspect(records([*small, *(replace(run, tokens=400_000.0) for run in larger)]))
    with pytest.raises(ValueError, match=r"3 shapes at 4e\+05 tokens show no band"):
        aspect(records([run for run in shapes(1e-3, depths=(1, 2, 3)).runs if run.budget is None]))
