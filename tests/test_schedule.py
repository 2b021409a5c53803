"""python -m pytest tests/test_schedule.py"""

import pytest

from isoflop.config import OptimConfig
from isoflop.lm.schedule import SCHEDULES, multiplier, warmup_length


def rates(steps: int, **fields) -> list[float]:
    return [multiplier(step, steps=steps, optim=OptimConfig(**fields)) for step in range(steps)]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_warms_up_in_a_line_to_the_peak_and_stays_within_it(schedule: str) -> None:
    values = rates(400, schedule=schedule)
    assert values[:50] == pytest.approx([(i + 1) / 50 for i in range(50)])
    assert max(values) == values[50] == 1.0
    assert min(values) >= 0


@pytest.mark.parametrize(("steps", "expected"), [(100, 25), (1000, 50), (10_000, 200), (1, 0)])
def test_warmup_is_the_longer_of_both_but_at_most_a_quarter(steps: int, expected: int) -> None:
    assert warmup_length(OptimConfig(), steps) == expected


def test_cosine_halves_midway_and_ends_at_its_floor() -> None:
    values = rates(1001, schedule="cosine", warmup_steps=0, warmup_fraction=0.0, final_lr_fraction=0.1)
    assert values[500] == pytest.approx(0.55, abs=2e-3)
    assert values[-1] == pytest.approx(0.1, abs=1e-4)


def test_linear_is_a_line() -> None:
    values = rates(10, schedule="linear", warmup_steps=0, warmup_fraction=0.0)
    assert values == pytest.approx([1 - i / 10 for i in range(10)])


def test_wsd_is_stable_then_decays_over_its_last_part() -> None:
    values = rates(1000, schedule="wsd", warmup_steps=0, warmup_fraction=0.0, decay_fraction=0.2)
    assert set(values[:801]) == {1.0}
    assert values[850] == pytest.approx(0.5)
    assert values[-1] < 0.01


def test_constant_is_constant() -> None:
    assert set(rates(100, schedule="constant", warmup_steps=0, warmup_fraction=0.0)) == {1.0}
