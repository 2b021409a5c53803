"""The how-tos' Python and their examples of laws: python -m pytest tests/test_how_to_code.py"""

import re
import runpy
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.law.laws import LAWS

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"


def test_the_law_of_add_a_law_is_fitted(tmp_path: Path) -> None:
    text = (HOW_TO / "add-a-law.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    # a file, since jaxtyping and inspect read sources
    path = tmp_path / "added.py"
    path.write_text(blocks[0], encoding="utf-8")
    runpy.run_path(str(path), run_name="added")


def test_choose_a_law_names_every_law() -> None:
    named = set(re.findall(r"`(\w+)`", (HOW_TO / "choose-a-law.md").read_text(encoding="utf-8")))
    assert set(LAWS) <= named


def test_the_answer_to_the_readmes_table_is_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (HOW_TO.parents[1] / "README.md").read_text(encoding="utf-8")
    table = re.search(r"cat > runs.csv <<'CSV'\n(.*?)^CSV$", readme, re.MULTILINE | re.DOTALL)
    printed = re.search(
        r"^```text\n(.*?)^```$", (HOW_TO / "fit-your-own-table.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert table is not None and printed is not None
    monkeypatch.chdir(tmp_path)
    Path("runs.csv").write_text(table[1])
    assert main(["fit", "runs.csv"]) == 0
    assert printed[1] in capsys.readouterr().out
