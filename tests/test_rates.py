"""python -m pytest tests/test_rates.py"""

from dataclasses import replace

import numpy as np
import pytest

from isoflop.config import ModelConfig, OptimConfig, TrainConfig
from isoflop.flops import count_params
from isoflop.law.rates import RATES, best_rates, power, step_law, usual
from isoflop.record import Record, Records
from isoflop.sources import read
from tests.shared import shared

MODEL = ModelConfig(d_model=512, num_layers=8, vocab_size=4096)


def sweep(*, sizes: object = (1e7, 3e7, 1e8), lengths: object = (1e9, 4e9), steps: bool = True) -> Records:
    """Seven rates at each N and D; the best one is 2·N^-0.7·D^0.3, the batch a thousandth of the tokens."""
    out = []
    for N in np.asarray(sizes):
        for D in np.asarray(lengths):
            for away in np.linspace(-1.5, 1.5, 7):
                lr = 2 * N**-0.7 * D**0.3 * np.exp(away)
                measured = {"lr": float(lr)} | ({"steps": 1000.0} if steps else {})
                loss, name = 2 + N**-0.1 + 0.05 * away**2, f"{len(out)}"
                out.append(
                    Record(id=name, params={"given": N}, tokens=D, flops=6 * N * D, loss=loss, measured=measured)
                )
    return Records(tuple(out), source="sweep", convention="given")


def test_step_law() -> None:
    lr, batch = step_law(7e9, 1.4e12)
    assert (lr, batch) == (pytest.approx(9.17e-4, rel=1e-3), pytest.approx(5.00e6, rel=1e-3))
    rate, named, notes = RATES["step_law"](None, MODEL, 1e7, 1e9)
    assert rate == step_law(count_params(MODEL).body, 1e9) and "2503.04715" in named and "lies outside" in notes[0]


def test_the_best_rates_are_found_and_extrapolated() -> None:
    best = best_rates(sweep())
    assert len(best.N) == 6 and best.lr == pytest.approx(2 * best.N**-0.7 * best.D**0.3)
    rate, named, notes = RATES["fit"](sweep(), MODEL, 5e7, 2e9)
    assert rate == pytest.approx((2 * 5e7**-0.7 * 2e9**0.3, 2e6)) and notes == ()
    assert "6 sizes and lengths: lr ∝ N^-0.70·D^0.30" in named and "batch ∝" in named
    rate, _, notes = RATES["fit"](sweep(steps=False), MODEL, 5e8, 2e9)
    assert "extrapolated, 5 times beyond" in notes[0] and "batch by Step Law" in notes[1]
    assert rate.batch_tokens == step_law(count_params(MODEL).body, 2e9).batch_tokens


@pytest.mark.parametrize("runs", [None, sweep(lengths=(1e9,)), sweep(sizes=(1e7,))])
def test_too_few_rates_are_refused(runs: Records | None) -> None:
    with pytest.raises(ValueError, match=r"rate='fit' needs runs with a column lr .* that tried 3 rates each"):
        RATES["fit"](runs, MODEL, 5e7, 2e9)


def test_sizes_on_a_line_do_not_tell_n_from_d() -> None:
    N = np.geomspace(1e6, 1e9, 5)
    assert power(N, 20 * N, N**-0.5) is None
    found = power(N, N[[3, 1, 4, 0, 2]], N**-0.5)
    assert found is not None and (found.a, found.b) == pytest.approx((-0.5, 0), abs=1e-9)


def test_the_runs_own_rate_is_transferred_by_width() -> None:
    config = {"model": vars(ModelConfig(d_model=64)), "train": vars(TrainConfig(batch_size=32))}
    config["optim"] = vars(OptimConfig(lr=4e-3, lr_width=128))
    run = Record(id="a", params={"given": 1e6}, tokens=2e7, flops=1.2e14, loss=3.0, config=config)
    rate, named, notes = RATES["transfer"](Records((run,), source="own", convention="given"), MODEL, 1e7, 1e9)
    assert rate == (pytest.approx(1e-3), 32 * 128) and "∝ 1/width" in named and notes == ()
    assert usual(Records((run,), source="own", convention="given")) == "transfer"
    hotter = replace(run, config={**config, "optim": vars(OptimConfig(lr=8e-3, lr_width=128))})
    assert (
        usual(Records((run, hotter), source="own", convention="given")) == usual(sweep()) == usual(None) == "step_law"
    )
    with pytest.raises(ValueError, match="rate='transfer' needs runs that know their configuration"):
        RATES["transfer"](sweep(), MODEL, 1e7, 1e9)


def test_the_rates_of_step_laws_own_runs_give_step_law() -> None:
    best = best_rates(read(str(shared("steplaw_dense.csv"))))
    found = power(best.N, best.D, best.lr)
    assert len(best.N) == 17 and found is not None
    assert found.at(1e9, 1e11) == pytest.approx(step_law(1e9, 1e11).lr, rel=0.1)
    assert found.a == pytest.approx(-0.713, abs=0.07) and found.scatter < 0.15


def test_a_rate_far_from_its_laws_runs_says_so_with_the_factor() -> None:
    step = RATES["step_law"]
    inside = ModelConfig(d_model=1024, num_layers=24, num_heads=16, vocab_size=32000)
    assert step(None, inside, 3e8, 2e10).named == "Step Law (arXiv:2503.04715)"
    tiny = ModelConfig(d_model=48, num_layers=2, num_heads=2, vocab_size=256)
    factor = 215e6 / count_params(tiny).body
    named = step(None, tiny, 7e4, 1e12).named
    assert (
        named
        == f"Step Law (arXiv:2503.04715); caution: N {factor:,.3g} times below its range, D 10 times above its range"
    )
