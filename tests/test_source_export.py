"""Run: python -m pytest tests/test_source_export.py"""

import json
from pathlib import Path

import numpy as np
import pytest

from isoflop.cli.app import main
from isoflop.law.fit import fit
from isoflop.sources import read
from tests.studies import write_forecast, write_study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return write_forecast(write_study(tmp_path / "mine"))


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_an_exported_study_fits_as_its_folder_does(
    study: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    assert main(["study", "export", str(study), "--out", "away/mine"]) == 0
    assert f"away/mine.{ending}" in capsys.readouterr().out
    here, there = read(study), read(f"away/mine.{ending}")
    assert there.convention == here.convention == "compute"
    assert len(there.left_out) == len(here.left_out) == 1
    for letter in "NDCL":
        assert np.array_equal(getattr(there, letter), getattr(here, letter))
    assert fit(there).values == fit(here).values
    assert [run.budget for run in there.runs] == [run.budget for run in here.runs]


def test_the_export_holds_the_question_the_forecast_and_the_target(study: Path) -> None:
    assert main(["study", "export", str(study)]) == 0
    value = json.loads(Path("mine.json").read_text())
    assert value["study"]["target_flops"] == 4e12
    assert [run["id"] for run in value["targets"]] == ["large"]
    assert value["forecasts"] == [json.loads((study / "forecast.json").read_text())]
    assert value["fit"]["law"] == "chinchilla"
    assert "large" not in {run.id for run in read("mine.json").runs}


def test_tokens_in_the_study_are_named_from_there(study: Path) -> None:
    path = next((study / "runs").glob("*/record.json"))
    record = json.loads(path.read_text())
    record["config"]["data"] = {"data": str(study / "tokens")}
    path.write_text(json.dumps(record))
    assert main(["study", "export", str(study)]) == 0
    (run,) = [run for run in json.loads(Path("mine.json").read_text())["runs"] if run["id"] == record["id"]]
    assert run["config"]["data"]["data"] == "tokens"


def test_without_pyarrow_json_is_written_and_the_remedy_said(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    assert main(["study", "export", str(study)]) == 0
    assert "pip install 'isoflop[parquet]'" in capsys.readouterr().out
    assert sorted(path.name for path in Path().glob("mine*")) == ["mine", "mine.json"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"runs": 3}, "is an exported study without runs"),
        ({"runs": []}, "has no complete run"),
        ({"runs": [{"id": "a"}]}, "run 1 is not a record of a run"),
    ],
)
def test_what_is_no_export_is_told(study: Path, change: dict, said: str) -> None:
    assert main(["study", "export", str(study)]) == 0
    Path("mine.json").write_text(json.dumps(json.loads(Path("mine.json").read_text()) | change))
    with pytest.raises(ValueError, match=said):
        read("mine.json")


def test_a_study_without_records_is_told(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for record in study.glob("runs/*/record.json"):
        record.unlink()
    assert main(["study", "export", str(study)]) == 2
    assert "has no record yet" in capsys.readouterr().err
