"""Run: python -m pytest tests/test_presets.py"""

import pytest

from isoflop.presets import PRESETS, preset


@pytest.mark.parametrize("name", PRESETS)
def test_presets_take_changes(name: str) -> None:
    assert preset(name, vocab_size=77).vocab_size == 77


def test_unknown_presets_and_fields_are_named() -> None:
    with pytest.raises(ValueError, match="preset='70m' is not known; choose one of gpt"):
        preset("70m")
    with pytest.raises(ValueError, match="width is no field of a model"):
        preset("gpt", width=3)
