"""python -m pytest tests/test_noise.py"""

import numpy as np
import pytest

from isoflop.lm import noise


def test_exact_lengths_give_back_signal_and_noise() -> None:
    signal, spread, small, big = 0.3, 700.0, 128, 1024
    lengths = [signal + spread / batch for batch in (small, big)]
    assert noise.split(*lengths, small_batch=small, big_batch=big) == pytest.approx((signal, spread))
    assert noise.scale(signal, spread) == pytest.approx(spread / signal)


def test_gradients_of_known_covariance_give_their_noise_scale() -> None:
    """Gradients of single tokens are drawn with mean G and covariance Σ: B = tr Σ/|G|² (arXiv:1812.06162, eq. 2.9)."""
    draw = np.random.default_rng(0)
    mean, deviations = draw.normal(size=400) * 0.05, np.geomspace(0.1, 3, 400)
    true = float((deviations**2).sum() / (mean @ mean))
    part, parts = 16, 4
    signal = spread = 0.0
    estimates = []
    for step in range(1000):
        means = mean + draw.normal(size=(parts, 400)) * deviations / part**0.5
        whole = means.mean(axis=0)
        found = noise.split(float(means[0] @ means[0]), float(whole @ whole), small_batch=part, big_batch=part * parts)
        signal, spread = noise.average(signal, found[0]), noise.average(spread, found[1])
        if step >= 2 * noise.HORIZON:
            estimates.append(noise.scale(signal, spread))
    assert None not in estimates
    assert np.median(estimates) == pytest.approx(true, rel=0.05)
    assert np.std(np.log(estimates)) < 0.3


def test_averages_that_lie_in_the_scatter_give_no_number() -> None:
    assert noise.scale(-0.1, 3.0) is None and noise.scale(0.1, -3.0) is None
