"""python -m pytest tests/test_repetition.py"""

import pytest

from isoflop.law.laws import LAWS, PUBLISHED
from isoflop.law.repetition import effective, worth

KNOWN = PUBLISHED["muennighoff2023"].parameters
CONSTANTS = {name: value for name, value in KNOWN.items() if name != "E"}


def test_the_data_constrained_law_gives_its_published_value() -> None:
    N, D = effective(6.34e9, 242e9, 25e9, **CONSTANTS)
    plain = {name: KNOWN[name] for name in ("E", "A", "B", "alpha", "beta")}
    assert LAWS["chinchilla"](N=N, D=D, **plain) == pytest.approx(2.2256440889984477, rel=1e-14)
    assert LAWS["data_constrained"](N=6.34e9, D=242e9, U=25e9, **KNOWN) == pytest.approx(2.2256440889984477, rel=1e-14)


@pytest.mark.parametrize(("epochs", "value"), [(1, 1.0), (4, 0.931), (16, 0.661), (40, 0.379)])
def test_the_mean_value_of_repeated_tokens(epochs: float, value: float) -> None:
    assert float(worth(epochs * 25e9, 25e9, KNOWN["R_D"])) / (epochs * 25e9) == pytest.approx(value, abs=5e-4)


def test_fresh_tokens_and_fitting_sizes_count_whole() -> None:
    assert effective(1e7, 1e9, 25e9, **CONSTANTS) == (1e7, 1e9)
