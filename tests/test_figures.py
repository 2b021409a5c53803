"""python -m pytest tests/test_figures.py"""

import string
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from isoflop.report.axes import chinese_font
from isoflop.report.evidence import Evidence, read_curves, read_evidence
from isoflop.report.figures import FIGURES, TRAINING, draw_study, draw_training, not_drawn
from isoflop.report.words import WORDS, word
from tests.studies import BUDGETS, true_size, write_forecast, write_run, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_forecast(write_study(tmp_path_factory.mktemp("figures") / "s"))


@pytest.fixture(scope="module")
def evidence(study: Path) -> Evidence:
    return read_evidence(study)


def drawn(name: str, evidence: Evidence) -> Axes:
    return FIGURES[name].draw(evidence, Figure().add_subplot())


def labels(ax: Axes) -> list[str]:
    return ax.get_legend_handles_labels()[1]


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_labels_a_title_and_something_in_it(name: str, evidence: Evidence) -> None:
    ax = drawn(name, evidence)
    assert ax.get_xlabel() and ax.get_ylabel() and ax.get_title(loc="left") + ax.get_title()
    assert ax.has_data() and ax.get_legend() is not None


def test_isoflop_curves_have_one_parabola_and_one_minimum_a_budget(evidence: Evidence) -> None:
    ax = drawn("isoflop", evidence)
    *parabolas, minima = ax.get_lines()
    assert len(parabolas) == len(ax.collections) == len(BUDGETS)
    np.testing.assert_allclose(minima.get_xdata(), [true_size(C) for C in BUDGETS], rtol=0.02)
    assert labels(ax)[0] == "$10^{11}$ FLOPs" and "÷ 6" in ax.get_xlabel()
    for parabola, y in zip(parabolas, minima.get_ydata(), strict=True):
        assert np.min(parabola.get_ydata()) == pytest.approx(y, abs=1e-3)


@pytest.mark.parametrize(("name", "exponent"), [("optimal_params", 0.4 / 0.9), ("optimal_tokens", 0.5 / 0.9)])
def test_optima_reach_1e24_along_the_true_exponent(name: str, exponent: float, evidence: Evidence) -> None:
    ax = drawn(name, evidence)
    lines = ax.get_lines()
    assert [line.get_linestyle() for line in lines] == ["-", "--"] * 2  # within the runs, and beyond
    assert max(np.max(line.get_xdata()) for line in lines) == pytest.approx(1e24)
    x, y = np.log(lines[3].get_xdata()), np.log(lines[3].get_ydata())
    assert (y[-1] - y[0]) / (x[-1] - x[0]) == pytest.approx(exponent, abs=0.01)
    assert len(ax.collections) == 3  # two bands and the minima


def test_fixed_size_has_a_line_of_the_law_and_the_runs_of_each_size(evidence: Evidence) -> None:
    lines = drawn("fixed_size", evidence).get_lines()
    assert len(lines) == 2 * 8
    assert [len(line.get_xdata()) for line in lines[::2]] == [1, 2, 3, 4, 4, 3, 2, 1]


def test_the_forecast_and_the_measurement_are_both_in_the_figure(evidence: Evidence) -> None:
    ax = drawn("optimal_loss", evidence)
    assert {"measured", "forecast with its 90% interval"} <= set(labels(ax))
    assert "forecast" in ax.get_title(loc="left") + ax.get_title() and evidence.measured is not None
    assert f"measured {evidence.measured.loss:.3f}" in ax.get_title(loc="left") + ax.get_title()
    alone = drawn("optimal_loss", replace(evidence, locked=None, measured=None))
    assert not {"measured", "forecast with its 90% interval"} & set(labels(alone))


def test_perplexity_is_e_to_the_loss(tmp_path: Path) -> None:
    write_run(tmp_path / "r", N=2e4, C=1e11)
    curves = read_curves(tmp_path / "r")
    train, val = TRAINING["perplexity"][0](curves, Figure().add_subplot()).get_lines()
    np.testing.assert_allclose(train.get_ydata(), np.exp(curves.train))
    np.testing.assert_allclose(val.get_ydata(), np.exp(curves.val))


def test_a_run_gets_two_pictures(tmp_path: Path) -> None:
    write_run(tmp_path / "r", N=2e4, C=1e11)
    paths = draw_training(tmp_path / "r")
    assert [path.name for path in paths] == ["loss.png", "perplexity.png"]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)


def test_what_has_no_data_is_not_drawn_and_a_sentence_says_so(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "few", budgets=BUDGETS[:1], sizes=2, fitted=False)
    stale = folder / "figures" / "isoflop.png"
    stale.parent.mkdir()
    stale.write_bytes(b"old")
    for log in folder.glob("runs/*/log.jsonl"):
        log.unlink()
    assert draw_study(folder) == [] and not stale.exists()
    told = not_drawn(read_evidence(folder))
    assert len(told) == len(FIGURES)
    assert told[0].startswith("isoflop is not drawn: no budget has runs of three sizes")


def test_two_budgets_are_drawn_without_lines_through_them(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "two", budgets=BUDGETS[:2], fitted=False)
    assert [path.stem for path in draw_study(folder)] == ["isoflop", "fixed_size", "training"]


def test_chinese_has_every_glyph(study: Path, caplog: pytest.LogCaptureFixture) -> None:
    try:
        chinese_font()
    except ValueError as reason:
        pytest.skip(str(reason))
    # a missing glyph is a warning in text, and warnings are errors here; within mathtext it is only logged
    assert [path.stem for path in draw_study(study, "zh")] == list(FIGURES)
    assert "glyph" not in caplog.text


@pytest.mark.parametrize("key", WORDS)
def test_both_languages_say_the_same(key: str) -> None:
    en, zh = ({name for _, name, _, _ in string.Formatter().parse(text) if name} for text in WORDS[key])
    assert en == zh
    values = dict.fromkeys(en, 0.5)
    assert word(key, "en", **values) and word(key, "zh", **values)
