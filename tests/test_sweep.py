"""python -m pytest tests/test_sweep.py"""

from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.config import DataConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.presets import preset
from isoflop.study.sweep import Sweep, plan

BASE = RunConfig(
    model=preset("small"),
    data=DataConfig(data="t"),
    optim=OptimConfig(lr_width=None),
    train=TrainConfig(steps=3, seed=5),
    data_sha256="ab",
)
SWEEP = Sweep(
    base=BASE,
    parametrizations=("standard", "completep"),
    widths=(64, 16),
    depths=(4, 2),
    rates=(0.1, 0.01, 0.001),
    seeds=2,
)


def test_every_rate_is_tried_at_every_size_from_the_least_model_up() -> None:
    planned = plan(SWEEP, Path("out"), train_tokens=1000)
    assert len({run.config.id for run in planned}) == len(planned) == 2 * 2 * 2 * 3 * 2
    assert [run.flops for run in planned] == sorted((run.flops for run in planned), reverse=True)
    assert all(run.folder == Path("out/runs") / run.config.id for run in planned)
    assert {run.config.train.seed for run in planned} == {5, 6}
    carried = [run.config.model for run in planned if run.config.model.parametrization == "completep"]
    assert {(model.base_width, model.base_depth, model.base_head_size) for model in carried} == {(16, 2, 8)}


def test_without_depths_the_model_keeps_its_own() -> None:
    planned = plan(replace(SWEEP, depths=()), Path("out"), train_tokens=1000)
    assert {run.config.model.num_layers for run in planned} == {2}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"widths": (16, 16), "depths": (2,)}, "name one model, to which nothing can be carried over"),
        ({"rates": (0.1, 0.2)}, "cannot hold a best one between two others"),
        ({"seeds": 0}, "seeds=0 must be at least 1"),
        ({"base": replace(BASE, optim=OptimConfig(lr=1.0))}, "lr=1 is what a sweep varies; leave it out"),
    ],
)
def test_what_answers_nothing_is_refused(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(SWEEP, **given)
