"""python -m pytest tests/test_fields.py"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from isoflop.cli.app import main
from isoflop.fields import of_their_types


@dataclass
class Owner:
    whole: int = 1
    number: float = 1.0
    name: str | None = None
    kind: Literal["a", "b"] = "a"
    many: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        of_their_types(self)


def test_what_fits_is_let_through() -> None:
    assert Owner(whole=3, number=2, name="x", kind="b", many=(1, 2.5)).many == (1, 2.5)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("whole", 1.5, "whole=1.5 must be a whole number"),
        ("whole", True, "whole=True must be a whole number"),
        ("number", "3", "number='3' must be a number"),
        ("name", 4, "name=4 must be a text or left out"),
        ("kind", "c", "kind='c' must be one of a, b"),
        ("many", (1.0, "x"), r"many=\(1.0, 'x'\) must be a list, each of it a number"),
    ],
)
def test_what_does_not_fit_is_named(field: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Owner(**{field: value})


@pytest.mark.usefixtures("unchecked")
def test_a_word_for_a_number_in_a_file_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*args: str) -> str:
        assert main(args) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1, said
        return said

    study, model = tmp_path / "s.toml", tmp_path / "m.json"
    study.write_text('[design]\nbudgets = [1e11]\nsizes = "three"\n[model]\npreset = "small"\n')
    assert "sizes='three' must be a whole number" in refused("study", "run", str(study))
    model.write_text('{"d_model": "64"}')
    asked = ["--published", "hoffmann2022", "--tokens", "1e9", "--model-config", str(model)]
    assert "d_model='64' must be a whole number" in refused("predict", *asked)
