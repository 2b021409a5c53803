"""python -m pytest tests/test_schedule.py"""

import pytest

from isoflop.config import OptimConfig
from isoflop.lm.schedule import BRANCHES, SCHEDULES, multiplier, stable_steps, warmup_length


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


def test_power_falls_as_a_power_of_the_step_and_then_to_the_end() -> None:
    values = rates(1000, schedule="power", warmup_steps=50, decay_fraction=0.2, power=0.5)
    assert values[200] == pytest.approx(0.5) and values[800] == pytest.approx(0.25)
    assert values[905] == pytest.approx(0.25 * (1 - 0.5**0.5), rel=0.01)
    assert values == sorted(values[:50]) + sorted(values[50:], reverse=True)


@pytest.mark.parametrize("schedule", BRANCHES)
@pytest.mark.parametrize(("steps", "fraction"), [(100, 0.2), (77, 0.5), (150, 0.1), (64, 1 / 3)])
def test_runs_of_any_length_share_what_comes_before_their_decay(schedule: str, steps: int, fraction: float) -> None:
    fields = {"schedule": schedule, "warmup_steps": 10, "warmup_fraction": 0.0, "decay_fraction": fraction}
    stable = stable_steps(OptimConfig(**fields), steps)
    short, long = rates(steps, **fields), rates(2 * steps, **fields)
    assert short[:stable] == long[:stable]
    if schedule == "constant":
        assert stable == steps
    else:
        assert stable == pytest.approx(10 + (1 - fraction) * (steps - 10), abs=1)
        assert short[stable] < long[stable]


def test_what_falls_from_the_warmup_on_shares_no_more() -> None:
    assert stable_steps(OptimConfig(schedule="cosine", warmup_steps=10), 100) == 10
