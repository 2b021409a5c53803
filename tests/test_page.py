"""python -m pytest tests/test_page.py"""

import html.parser
import re
from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.report.evidence import Evidence, read_evidence
from isoflop.report.page import page, write_page
from isoflop.report.words import word
from tests.studies import write_forecast, write_study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_forecast(write_study(tmp_path_factory.mktemp("page") / "s"))


@pytest.fixture(scope="module")
def evidence(study: Path) -> Evidence:
    return read_evidence(study)


class Balance(html.parser.HTMLParser):
    """Collects what a page would load, and the tags that it leaves open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_page_needs_nothing_else(lang: str, evidence: Evidence) -> None:
    text = page(evidence, {"isoflop": b"\x89PNG"}, lang)  # type: ignore[arg-type]
    balance = Balance()
    balance.feed(text)
    assert balance.open == []
    assert balance.loads == ["data:image/png;base64,iVBORw=="]
    assert not re.search(r"https?:|@import|url\(", text)
    assert word("asked", lang) in text and word("repeat", lang) in text  # type: ignore[arg-type]


def test_a_page_tells_the_law_with_intervals_and_status(evidence: Evidence) -> None:
    text = page(evidence, {})
    assert evidence.fit is not None
    for parameter in evidence.fit.parameters.values():
        assert f"{parameter.value:.4g}" in text and f"{parameter.low:.4g} – {parameter.high:.4g}" in text
    assert "identified" in text and "arXiv:2203.15556" in text and "4×10¹²" in text
    assert text.count('class="best"') == 4  # one a budget


def test_a_page_tells_hit_and_miss(study: Path, tmp_path: Path) -> None:
    assert "lies inside the 90% interval" in page(read_evidence(study), {})
    missed = write_forecast(write_study(tmp_path / "s", fitted=False), off=0.05)
    text = page(read_evidence(missed), {})
    assert "the forecast missed" in text and "verdict miss" in text


def test_a_page_says_what_is_missing(evidence: Evidence) -> None:
    bare = replace(evidence, fit=None, frontiers=(), locked=None, measured=None)
    text = page(bare, {})
    assert "isoflop fit s" in text and "No forecast was written down" in text and "<h2>Figures</h2>" not in text
    waiting = page(replace(evidence, measured=None), {})
    assert "isoflop study run s --target" in waiting and "not trained yet" in waiting


def test_a_page_tells_what_was_left_out(evidence: Evidence) -> None:
    text = page(evidence, {})
    assert "lost" in text and "diverged" in text
    fewer = replace(evidence, records=evidence.records.take(range(19)))
    assert "fit.json was made from 20 runs, but 19 are complete now" in page(fewer, {})


def test_names_cannot_break_the_page(evidence: Evidence) -> None:
    assert "<script>" not in page(replace(evidence, name="<script>alert(1)</script>"), {})


def test_the_page_takes_in_the_figures_of_the_folder(study: Path) -> None:
    (study / "figures").mkdir()
    (study / "figures" / "isoflop.png").write_bytes(b"\x89PNG")
    path = write_page(study)
    assert path == study / "report.html" and "iVBORw==" in path.read_text()
