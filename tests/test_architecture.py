"""python -m pytest tests/test_architecture.py"""

import pytest

from isoflop.architecture import BASES, ModelConfig
from isoflop.config import DataConfig, OptimConfig, RunConfig, TrainConfig

BASE = ModelConfig(d_model=32, num_layers=2, num_heads=2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"parametrization": "mup"},
            "parametrization=mup carries rates over from a base model; say which by base_width",
        ),
        ({"parametrization": "completep", "base_width": 32}, "say which by base_width and base_depth"),
        (
            {"parametrization": "mup", "base_width": 32, "base_depth": 2},
            "base_depth=2 means nothing to parametrization=mup",
        ),
        ({"base_width": 32}, "base_width=32 means nothing to parametrization=standard; leave it out"),
        ({"base_head_size": 8}, "base_head_size=8 means nothing to parametrization=standard"),
        ({"alpha_in": 0.0}, "alpha_in=0.0 must be positive"),
    ],
)
def test_a_base_model_is_given_where_it_means_something(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig(**given)


@pytest.mark.parametrize("name", BASES)
def test_a_base_model_is_carried_over_and_back(name: str) -> None:
    wide = ModelConfig(d_model=128, num_layers=4, num_heads=2)
    carried = wide.carried_over(name, BASE)
    assert [carried.base_width, carried.base_depth] == [
        {"base_width": 32, "base_depth": 2}[field] if field in BASES[name] else None
        for field in ("base_width", "base_depth")
    ]
    assert carried.base_head_size == (None if name == "standard" else 16)
    assert carried.rate_width == (128 if name == "standard" else 32)
    assert carried.carried_over("standard", BASE) == wide


def test_runs_from_before_parametrizations_keep_their_names_and_can_be_read() -> None:
    run = RunConfig(
        model=ModelConfig(),
        data=DataConfig(data="t"),
        optim=OptimConfig(),
        train=TrainConfig(steps=3),
        data_sha256="ab",
    )
    assert run.id == "d128-l4-639e74fde1"  # as version 0.1.0 named it
    old = run.to_dict()
    for name in ("parametrization", "base_width", "base_depth", "base_head_size", "alpha_in", "alpha_out"):
        del old["model"][name]
    assert RunConfig.from_dict(old) == run
    carried = run.to_dict()
    carried["model"] |= {"parametrization": "mup", "base_width": 128}
    assert RunConfig.from_dict(carried).id != run.id
