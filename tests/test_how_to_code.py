"""The how-tos' Python and their examples of laws: python -m pytest tests/test_how_to_code.py"""

import re
from pathlib import Path

from isoflop.law.laws import LAWS

HOW_TO = Path(__file__).parents[1] / "docs" / "how-to"


def test_the_law_of_add_a_law_is_fitted(tmp_path: Path) -> None:
    text = (HOW_TO / "add-a-law.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    # a file, since jaxtyping and inspect read sources
    path = tmp_path / "added.py"
    path.write_text(blocks[0], encoding="utf-8")
    exec(compile(blocks[0], str(path), "exec"), {"__name__": "added"})


def test_choose_a_law_names_every_law() -> None:
    named = set(re.findall(r"`(\w+)`", (HOW_TO / "choose-a-law.md").read_text(encoding="utf-8")))
    assert set(LAWS) <= named
