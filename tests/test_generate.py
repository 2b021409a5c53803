"""python -m pytest tests/test_generate.py"""

import pytest
import torch

from isoflop.config import ModelConfig
from isoflop.lm.generate import generate, sample
from isoflop.lm.model import Transformer

LOGITS = torch.tensor([1.0, 3.0, 2.0, -1.0])


def draws(**settings) -> set[int]:
    generator = torch.Generator().manual_seed(0)
    return {sample(LOGITS, generator=generator, **settings) for _ in range(300)}


def test_temperature_zero_takes_the_likeliest() -> None:
    assert draws(temperature=0.0) == {1}


def test_top_k_and_top_p_keep_the_likeliest() -> None:
    assert draws(temperature=1.0) == {0, 1, 2, 3}
    assert draws(top_k=2) == {1, 2}
    assert draws(top_p=0.5) == {1}  # softmax: 0.09, 0.66, 0.24, 0.01
    assert draws(top_p=0.7) == {1, 2}
    assert draws(top_p=1.0) == {0, 1, 2, 3}


def test_draws_follow_the_probabilities() -> None:
    generator = torch.Generator().manual_seed(0)
    ids = torch.tensor([sample(LOGITS, generator=generator) for _ in range(4000)])
    shares = torch.bincount(ids, minlength=4) / 4000
    torch.testing.assert_close(shares, LOGITS.softmax(0), rtol=0, atol=0.03)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0 must not be negative"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"top_p": 1.5}, "top_p=1.5 must be above 0 and at most 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(LOGITS, **settings)


def test_generation_is_seeded_slides_its_window_and_stops_at_the_end_of_text() -> None:
    model = Transformer(ModelConfig(vocab_size=7, context_length=4, d_model=8, num_layers=1))
    first = generate(model, torch.tensor([1]), max_tokens=12, seed=3)
    assert first == generate(model, torch.tensor([1]), max_tokens=12, seed=3)
    assert len(first) == 12
    stopped = generate(model, torch.tensor([1]), max_tokens=12, seed=3, end_of_text=first[4])
    assert stopped == first[: first.index(first[4]) + 1]


def test_an_empty_prompt_is_refused() -> None:
    model = Transformer(ModelConfig(vocab_size=7, context_length=4, d_model=8, num_layers=1))
    with pytest.raises(ValueError, match="the prompt is empty"):
        generate(model, torch.tensor([], dtype=torch.long), max_tokens=1)
