"""python -m pytest tests/test_law_transfer.py"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from isoflop.law.transfer import Coordinates, judge, transfer
from isoflop.record import Record

WIDTHS = (16, 64, 256)


def coordinates(parametrization: str, *slopes: float, axis: str = "width") -> Coordinates:
    """Two steps: flat at first, then with these slopes at as many places."""
    values = np.array([[[1.0] * len(slopes), [2.0 * size**slope for slope in slopes]] for size in WIDTHS])
    places = tuple(f"block {i + 1}" for i in range(len(slopes)))
    return Coordinates(parametrization=parametrization, axis=axis, sizes=WIDTHS, places=places, activations=values)


def test_slopes_are_those_of_the_power_law() -> None:
    one = coordinates("mup", 0.7, -0.2)
    np.testing.assert_allclose(one.slopes, [[0, 0], [0.7, -0.2]], atol=1e-12)
    assert json.loads(json.dumps(one.to_dict()))["slopes"][1] == pytest.approx([0.7, -0.2])


@pytest.mark.parametrize(
    ("control", "slopes", "passed"),
    [
        ((1.0, 0.5), (0.05, -0.09), True),
        ((1.0, 0.5), (0.05, -0.2), False),
        ((1.0, 0.1), (0.05, -0.2), True),  # the control shows nothing at the second place
        ((0.2, 0.1), (0.0, 0.0), None),
    ],
)
def test_a_check_is_judged_where_the_control_grows(control: tuple, slopes: tuple, passed: bool | None) -> None:
    (verdict,) = judge([coordinates("standard", *control), coordinates("mup", *slopes)])
    assert (verdict.parametrization, verdict.passed) == ("mup", passed)
    assert verdict.control == pytest.approx(control[0])
    assert (verdict.slope is None) == (passed is None)


def test_depth_is_asked_of_those_alone_who_take_care_of_it() -> None:
    checked = [coordinates(name, 0.5, axis="depth") for name in ("standard", "mup", "completep")]
    assert [verdict.parametrization for verdict in judge(checked)] == ["completep"]


def records(
    best: dict[int, float], *, parametrization: str = "mup", noise: float = 0.0, gain: float = 0.1, depths: tuple = (2,)
) -> list[Record]:
    """Runs with L = 3 − gain·log₂ d + (ln rate − ln best)²/10 at five rates and two seeds; 1 diverges."""
    out = []
    for depth in depths:
        for width, optimum in best.items():
            for rate in (0.001, 0.003, 0.01, 0.03, 0.1, 1.0):
                for seed in (0, 1):
                    loss = 3 - gain * math.log2(width) + math.log(rate / optimum) ** 2 / 10 + noise * (2 * seed - 1)
                    out.append(
                        Record(
                            id=f"{depth}-{width}-{rate}-{seed}",
                            params={},
                            tokens=1.0,
                            flops=1.0,
                            loss=None if rate == 1.0 else loss,
                            status="diverged" if rate == 1.0 else "complete",
                            config={
                                "model": {"parametrization": parametrization, "d_model": width, "num_layers": depth},
                                "optim": {"lr": rate},
                                "train": {"seed": seed},
                            },
                        )
                    )
    return out


def test_a_rate_that_stays_best_transfers() -> None:
    (found,) = transfer(records({64: 0.01, 16: 0.01}, noise=0.003))
    assert (found.rate, found.passed) == (0.01, True) and "transfers: at most 0.000 nats lost" in found.why
    assert [size.d_model for size in found.sizes] == [16, 64]
    assert found.noise == pytest.approx(0.003 * math.sqrt(2)) and found.tolerance == 0.02
    assert found.sizes[0].losses[-1] == math.inf
    told = json.loads(json.dumps(found.to_dict()))
    assert told["sizes"][0]["losses"][-1] is None and told["sizes"][0]["between"] is None
    low, high = told["sizes"][1]["between"]
    assert low == high == 0  # the next rates cost 0.12 nats, far more than noise


def test_a_rate_that_moves_costs_what_the_regret_says() -> None:
    (found,) = transfer(records({16: 0.03, 64: 0.003}, parametrization="standard"))
    wide = found.sizes[1]
    assert wide.best == 0.003 and wide.regret == pytest.approx(math.log(10) ** 2 / 10)
    low, high = wide.between or (0.0, 0.0)
    assert low == high == pytest.approx(wide.regret)  # seeds without noise
    assert found.passed is False and "does not transfer: 0.530 nats lost at d_model=64" in found.why


def test_noise_between_seeds_widens_what_is_allowed() -> None:
    (found,) = transfer(records({16: 0.01, 64: 0.003}, noise=0.1))
    assert found.tolerance == pytest.approx(0.2 * math.sqrt(2)) and found.passed is True
    low, high = found.sizes[1].between or (0.0, 0.0)
    assert low < found.sizes[1].regret < high and high - low > 0.1


def test_wider_has_to_be_better() -> None:
    (found,) = transfer(records({16: 0.01, 64: 0.01}, gain=-0.1))
    assert found.passed is False and "at 0.01, d_model=64, num_layers=2 is no better than d_model=16" in found.why


def test_depths_are_not_compared_with_each_other() -> None:
    (found,) = transfer(records({16: 0.01, 64: 0.01}, depths=(2, 4)))
    assert found.passed is True and len(found.sizes) == 4


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ({16: 0.0001, 64: 0.001}, "the base model is best at the last rate tried, 0.001; try smaller ones"),
        ({16: 0.003, 64: 0.0015}, None),
    ],
)
def test_a_best_rate_at_the_edge_decides_nothing(best: dict[int, float], said: str | None) -> None:
    (found,) = transfer(records(best))
    assert found.passed is (None if said else False) or not found.sizes[1].edge
    if said:
        assert said in found.why


def test_a_wide_model_at_the_edge_leaves_the_regret_open() -> None:
    runs = [run for run in records({16: 0.003, 64: 0.0019}) if run.config["optim"]["lr"] < 1]
    (found,) = transfer([run for run in runs if run.config["optim"]["lr"] != 0.001 or "16-" in run.id])
    assert found.sizes[1].edge and found.passed is None and "d_model=64" in found.why


def test_a_size_that_never_finishes_is_refused() -> None:
    runs = [run for run in records({16: 0.01, 64: 0.01}) if run.config["model"]["d_model"] == 16 or run.loss is None]
    with pytest.raises(ValueError, match="no rate trained all seeds of d_model=64, num_layers=2 under mup to the end"):
        transfer(runs)


def test_a_regret_against_a_rate_at_the_edge_is_at_least_so_much() -> None:
    (found,) = transfer(records({16: 0.03, 64: 0.0001}))
    assert found.sizes[1].edge and found.passed is False and "at least" in found.why


def test_a_carried_rate_that_diverges_costs_everything() -> None:
    runs = records({16: 0.01, 64: 0.003}, noise=0.003)
    wide = [replace(run, loss=None) if "-64-0.01-" in run.id else run for run in runs]
    (found,) = transfer(wide)
    assert found.passed is False and found.sizes[1].regret == math.inf
    size = found.to_dict()["sizes"][1]
    assert size["regret"] is None and size["between"] == [None, None]


def test_a_sweep_needs_shapes_rates_and_each_run_once() -> None:
    runs = records({16: 0.01, 64: 0.01})
    with pytest.raises(ValueError, match="d_model=16, num_layers=2 under mup is the only shape"):
        transfer([run for run in runs if run.config["model"]["d_model"] == 16])
    with pytest.raises(ValueError, match="or has 2 rates alone"):
        transfer([run for run in runs if run.config["optim"]["lr"] < 0.01])
    with pytest.raises(ValueError, match=r"d_model=64, num_layers=2 under mup was not trained at .* best rate, 0\.01"):
        transfer([run for run in runs if "-64-0.01-" not in run.id])
    with pytest.raises(ValueError, match=r"two runs have rate 0\.001, seed 0 and d_model=16"):
        transfer([*runs, runs[0]])


def test_a_measured_check_is_read_as_it_was_written() -> None:
    one = coordinates("mup", 0.7, -0.2)
    again = Coordinates.from_dict(json.loads(json.dumps(one.to_dict())))
    np.testing.assert_array_equal(again.activations, one.activations)
    assert (again.parametrization, again.axis, again.sizes, again.places) == ("mup", "width", WIDTHS, one.places)
