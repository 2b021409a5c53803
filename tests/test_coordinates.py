"""python -m pytest tests/test_coordinates.py; widths under Muon too: -m slow"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isoflop.config import DataConfig, OptimConfig, OptimizerKind, RunConfig, TrainConfig
from isoflop.data.tokens import open_tokens
from isoflop.law.transfer import FLAT, GROWING
from isoflop.lm.coordinates import LAST, LOGITS, measure
from isoflop.presets import preset


@pytest.fixture
def base(token_folder: Path) -> RunConfig:
    return RunConfig(
        model=preset("small", d_model=16, num_layers=1, context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=16),
        optim=OptimConfig(lr=0.02, lr_width=None, schedule="constant", warmup_steps=0, warmup_fraction=0.0),
        train=TrainConfig(steps=4, batch_size=4),
        data_sha256=open_tokens(token_folder).fingerprint,
    )


def test_activations_grow_with_width_under_the_standard_parametrization_alone(base: RunConfig) -> None:
    ran = []
    both = {
        name: measure(base, name, "width", (16, 64), seeds=1, on_run=lambda: ran.append(1))
        for name in ("standard", "mup")
    }
    assert len(ran) == 4 and both["mup"].places == ("block 1", LOGITS)
    assert both["mup"].activations.shape == (2, 4, 2)
    np.testing.assert_array_equal(both["mup"].activations[0], both["standard"].activations[0])  # the base model
    assert both["standard"].slopes[-1, 0] > 0.8
    assert abs(both["mup"].slopes[-1, 0]) < 0.3
    # logits of random weights grow as √d, and shrink so where they are divided by d
    assert both["standard"].slopes[0, 1] == pytest.approx(0.5, abs=0.15)
    assert both["mup"].slopes[0, 1] == pytest.approx(-0.5, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(("optimizer", "lr"), [("adamw", 0.01), ("muon", 0.02)])
def test_activations_keep_their_size_under_optimizers_of_normalised_steps(
    base: RunConfig, optimizer: OptimizerKind, lr: float
) -> None:
    optim = replace(base.optim, optimizer=optimizer, lr=lr)
    run = replace(base, optim=optim, train=replace(base.train, steps=10, batch_size=8))
    standard, mup = (measure(run, name, "width", (16, 64, 128), seeds=2) for name in ("standard", "mup"))
    assert abs(standard.slopes[-1]).max() >= GROWING
    assert len(mup.slopes) == 10 and abs(mup.slopes[-1]).max() <= FLAT


def test_activations_grow_with_depth_unless_branches_are_damped(base: RunConfig) -> None:
    deep = {name: measure(base, name, "depth", (1, 4), seeds=1) for name in ("standard", "completep")}
    assert deep["standard"].places == (LAST, LOGITS)
    assert deep["standard"].slopes[-1, 0] > 0.3 > abs(deep["completep"].slopes[-1, 0])


def test_what_cannot_be_measured_is_refused(base: RunConfig) -> None:
    with pytest.raises(ValueError, match=r"widths=\(16,\) names one size, but a slope needs two"):
        measure(base, "mup", "width", (16,))
    with pytest.raises(ValueError, match="activations overflow before the first update"):
        measure(replace(base, model=replace(base.model, alpha_in=3e38)), "mup", "width", (16, 32), seeds=1)
    with pytest.raises(ValueError, match=r"grad_clip=1: SGD's rates carry over widths only without a bound"):
        measure(replace(base, optim=replace(base.optim, optimizer="sgd")), "mup", "width", (16, 32))
