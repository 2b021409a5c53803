"""python -m pytest tests/test_places.py"""

import shutil
from pathlib import Path

import pytest

from isoflop.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig, read_run, write_run
from isoflop.places import parse_mix


def run(**data) -> RunConfig:
    return RunConfig(
        model=ModelConfig(), data=DataConfig(**data), optim=OptimConfig(), train=TrainConfig(steps=1), data_sha256="0"
    )


def test_a_run_finds_its_tokens_from_anywhere_and_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tmp_path / "study"
    (study / "tokens").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(study)
    folder = write_run(run(data="tokens"), Path("runs")).absolute()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert read_run(folder).data.data == str(study / "tokens")
    shutil.move(study, tmp_path / "moved")
    assert read_run(tmp_path / "moved" / "runs" / folder.name).data.data == str(tmp_path / "moved" / "tokens")
    shutil.rmtree(tmp_path / "moved" / "tokens")
    assert read_run(tmp_path / "moved" / "runs" / folder.name).data.data == str(study / "tokens")


def test_a_mixture_is_named_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_run(write_run(run(mix="a=1,b=3"), tmp_path)).data.data == str(tmp_path)
    assert parse_mix("a=1, b=3") == {"a": 0.25, "b": 0.75} and parse_mix(None) == {}


@pytest.mark.parametrize("mix", ["", "a", "a=", "=1", "a=0", "a=-1", "a=nan", "a=inf", "a=1,a=2", "a=1,,b=2"])
def test_what_is_no_mixture_is_refused(mix: str) -> None:
    with pytest.raises(ValueError, match="must name each folder once, with a weight above 0"):
        parse_mix(mix)
