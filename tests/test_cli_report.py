"""python -m pytest tests/test_cli_report.py"""

import json
from pathlib import Path

import pytest

from isoflop.cli.app import call
from isoflop.cli.report import render
from tests.studies import write_run, write_study


def test_a_study_gets_figures_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_study(tmp_path / "s", budgets=(1e11, 2e11), fitted=False)
    call(render, [str(folder)], prog="isoflop render")
    said = capsys.readouterr().out
    assert f"the page: {folder / 'report.html'}" in said and str(folder / "figures" / "isoflop.png") in said
    assert "optimal_params is not drawn: no law is fitted yet, and parabolas have a clear minimum inside at " in said
    assert "run `isoflop fit` first" in said
    assert (folder / "report.html").exists()


def test_what_is_printed_is_in_the_language_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_study(tmp_path / "s", budgets=(1e11, 2e11), fitted=False)
    call(render, [str(folder), "--lang", "zh"], prog="isoflop render")
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"网页：{folder / 'report.html'}"


def test_a_run_gets_its_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path / "r", N=2e4, C=1e11)
    call(render, [str(tmp_path / "r"), "--json"], prog="isoflop render")
    answer = json.loads(capsys.readouterr().out)
    assert [Path(path).name for path in answer["figures"]] == ["loss.png", "perplexity.png"]
    assert all(Path(path).exists() for path in answer["figures"])
    assert answer["page"] is None and answer["not_drawn"] == []


def test_no_folder_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no folder; name the folder of a study or of a run"):
        call(render, [str(tmp_path / "none")], prog="isoflop render")
    with pytest.raises(ValueError, match=str(tmp_path)):
        call(render, [str(tmp_path)], prog="isoflop render")
