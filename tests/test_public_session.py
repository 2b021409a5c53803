"""The session of docs/how-to/read-public-tables.md, typed again: python -m pytest -m slow tests/test_public_session.py

Words must be as printed; numbers may differ by what rounding moves on another machine.
"""

import re
import shutil
from pathlib import Path

import pytest

from isoflop.cli.app import main
from tests.shared import shared

DOCUMENT = Path(__file__).parents[1] / "docs" / "how-to" / "read-public-tables.md"
NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def session() -> list[tuple[list[str], str]]:
    """Each command of the document, without its `isoflop`, and what it printed."""
    blocks = re.findall(r"^```console\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ isoflop ", block, flags=re.MULTILINE)[1:]]
    return [(head.split(), said) for head, _, said in (part.partition("\n") for part in parts)]


def words(said: str) -> list[str]:
    return NUMBER.sub("#", said).split()


@pytest.mark.slow
def test_the_session_prints_what_the_document_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("gadre.csv", "porian.csv", "datablations.csv"):
        shutil.copy(shared(name), tmp_path)
    monkeypatch.chdir(tmp_path)
    for command, expected in session():
        main(command)
        out, err = capsys.readouterr()
        said = err + out
        assert words(said) == words(expected), " ".join(command)
        numbers = [[float(number.replace(",", "")) for number in NUMBER.findall(text)] for text in (said, expected)]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.02, abs=0.02), " ".join(command)


def test_the_session_has_every_kind_of_question() -> None:
    assert {command[0] for command, _ in session()} == {"fit", "diagnose", "predict", "optimal", "plan", "compare"}
