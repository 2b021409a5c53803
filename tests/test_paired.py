"""python -m pytest tests/test_paired.py"""

import numpy as np
import pytest

from isoflop.study.questions.paired import Paired, pair
from tests.questions import record


def many(noise: float, *, seeds: int = 4, rng: int = 0) -> Paired:
    """Three settings, the last 0.02 nats worse; seeds differ by 0.1, which pairing takes out."""
    drawn = np.random.default_rng(rng)
    shared = 0.1 * drawn.standard_normal(seeds)
    own = noise * drawn.standard_normal((3, seeds))
    return Paired((1, 2, 4), 2 + np.array([[0.0], [0.0], [0.02]]) + shared + own, tuple(range(seeds)))


def test_pairing_takes_the_seeds_out() -> None:
    made = many(0.001, seeds=40)
    assert made.noise == pytest.approx(0.001, rel=0.2)
    assert made.seed_noise == pytest.approx(0.1, rel=0.3)
    assert made.mean[2] - made.mean[0] == pytest.approx(0.02, abs=1e-3)


def test_the_margin_holds_for_all_pairs_in_nine_of_ten_studies() -> None:
    held = []
    for rng in range(300):
        made = many(0.01, rng=rng)
        off = made.mean - np.array([0.0, 0.0, 0.02])
        held.append(np.ptp(off) <= made.margin(draws=2000))
    assert 0.86 <= np.mean(held) <= 0.94


def test_two_settings_have_students_margin() -> None:
    made = Paired((1, 2), np.array([[2.0, 2.1, 2.3], [2.1, 2.1, 2.5]]), (0, 1, 2))
    difference = made.loss[1] - made.loss[0]
    # t of 95 % at two degrees of freedom: 2.920
    assert made.margin() == pytest.approx(2.920 * difference.std(ddof=1) / np.sqrt(3), rel=0.03)
    assert np.std(made.replicates()[:, 0]) > 0


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([record(2.0), record(2.1, seed=1)], "all runs have num_heads 2, so nothing can be compared"),
        ([record(2.0), record(2.1, num_heads=4)], "1 seeds are common to all 2 values of num_heads"),
        ([record(2.0), record(2.1)], "two runs have num_heads 2 and seed 0"),
    ],
)
def test_what_cannot_be_compared_is_refused(runs: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pair(runs, lambda run: run.config["model"]["num_heads"], "num_heads")
