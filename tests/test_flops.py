"""python -m pytest tests/test_flops.py"""

import pytest

from isoflop.config import ModelConfig, TrainConfig
from isoflop.flops import FLOPS, compute, count_params, params_by_convention, train_steps
from isoflop.presets import preset

GPT2 = preset("gpt", vocab_size=50257, context_length=1024, d_model=768, num_layers=12, num_heads=12)


def test_gpt2_parameters_match_the_published_model() -> None:
    params = count_params(GPT2)
    assert (params.body, params.head) == (84_934_656, 38_597_376)
    assert params.total == 124_439_808  # GPT-2 small as published, biases included


@pytest.mark.parametrize(
    ("convention", "per_token"),
    [
        ("kaplan", 509_607_936),
        ("kaplan_context", 566_231_040),
        ("palm", 854_438_400),
        ("palm_causal", 797_815_296),
        ("compute", 797_815_296),
    ],
)
def test_gpt2_flops_per_token(convention: str, per_token: int) -> None:
    assert FLOPS[convention](GPT2) == per_token


def test_gpt2_chinchilla_flops_per_sequence() -> None:
    assert FLOPS["chinchilla"](GPT2) * 1024 == 1_113_446_154_240
    assert FLOPS["chinchilla_body"](GPT2) * 1024 == 639_161_597_952


def test_course_preset_has_the_parameters_of_the_course_records() -> None:
    assert count_params(preset("70M")).total == 61_830_912


def test_course_config_works_as_given() -> None:
    config = ModelConfig(
        vocab_size=32000, context_length=2048, d_model=768, num_layers=12, num_heads=12, d_ff=3072,
        attn_pdrop=0.1, residual_pdrop=0.1,
    )  # fmt: skip
    assert count_params(config).body == 84_934_656


def test_demo_formula() -> None:
    for d in (16, 40, 72):
        model = preset("small", d_model=d)
        assert compute(model) == 6 * (24 * d * d + 256 * d + 128 * d)


def test_compute_count_makes_c_equal_6nd() -> None:
    model = preset("llama")
    assert 6 * params_by_convention(model)["compute"] == compute(model)


def test_each_length_gives_the_same_steps() -> None:
    model = preset("small")
    per_step = 8 * 64
    for length in (
        {"steps": 100},
        {"tokens": 100 * per_step},
        {"epochs": 0.5},
        {"flops": 100 * per_step * compute(model)},
    ):
        train = TrainConfig(batch_size=8, **length)
        assert train_steps(model, train, train_tokens=200 * per_step) == 100


def test_a_run_shorter_than_a_step_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens=10 is less than one step of 512 tokens"):
        train_steps(preset("small"), TrainConfig(tokens=10, batch_size=8), train_tokens=1000)


@pytest.mark.parametrize("lengths", [{}, {"steps": 3, "epochs": 1.0}])
def test_exactly_one_length(lengths: dict) -> None:
    with pytest.raises(ValueError, match="exactly one of epochs, tokens, flops, steps"):
        _ = TrainConfig(**lengths).length
