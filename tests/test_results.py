"""The kept study's page says what its records say: python -m pytest tests/test_results.py"""

import json
from pathlib import Path

import pytest

from isoflop.cli.app import main

FOLDER = Path(__file__).parents[1] / "docs" / "results" / "kernel"
PAGES = [FOLDER / "README.md", FOLDER / "README.zh-CN.md"]


def test_the_law_is_fitted_anew_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(FOLDER / "kernel.json")]) == 0
    said = capsys.readouterr().out.replace(str(FOLDER / "kernel.json"), "docs/results/kernel/kernel.json")
    law = said[: said.index("\n\n  approaches")]
    for page in PAGES:
        assert law in page.read_text(encoding="utf-8")


def test_the_forecast_and_the_losses_are_those_of_the_records() -> None:
    kept = json.loads((FOLDER / "kernel.json").read_text(encoding="utf-8"))
    (forecast,), (larger,) = kept["forecasts"], kept["targets"]
    assert forecast["low"] < larger["loss"] < forecast["high"]
    said = f"forecast  {forecast['loss']:.4f}  ({forecast['low']:.4f} to {forecast['high']:.4f}, 90 % interval)"
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert said in text and f"measured  {larger['loss']:.4f}" in text
        assert all(f"{run['loss']:.4f}" in text for run in kept["runs"])
