"""The README's commands, as a reader would paste them: python -m pytest -m slow tests/test_readme_commands.py

Both READMEs have the same blocks (tests/test_documents.py), so the English one is run.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = 120
"""Files of the standard library that stand for somebody's notes: 3 MB, so that no study repeats them often."""


def commands(heading: str) -> str:
    """All bash blocks under a heading of README.md."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {heading}\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert section, f"README.md has no heading {heading}"
    return "".join(re.findall(r"^```bash\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL))


def paste(script: str, folder: Path) -> str:
    """Run a script in a folder with this environment's isoflop first; return what it printed."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = ["bash", "-euo", "pipefail", "-c", script]
    done = subprocess.run(shell, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write_notes(folder: Path) -> None:
    folder.mkdir()
    for source in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))[:MODULES]:
        (folder / f"{source.stem}.txt").write_text(source.read_text(encoding="utf-8", errors="replace"))


@pytest.mark.slow
def test_on_ones_own_text(tmp_path: Path) -> None:
    write_notes(tmp_path / "notes")
    said = paste(commands("On your own text"), tmp_path)
    assert "validation loss" in said
    assert "\nThe " in said
    assert "12 of 12 runs complete" in said
    assert re.search(r"approach 3 +a = 0\.\d+ \(", said)
    assert len(list((tmp_path / "notes-study" / "runs").glob("*/record.json"))) == 12


@pytest.mark.slow
def test_on_ones_own_table(tmp_path: Path) -> None:
    said = paste(commands("On your own table"), tmp_path)
    assert re.search(r"approach 2 +a = 0\.\d+ \(", said)
    fitted = json.loads((tmp_path / "runs.fit.json").read_text())
    assert 0.3 < fitted["parameters"]["alpha"]["value"] < 0.8


@pytest.mark.slow
def test_the_start(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "studies", tmp_path / "studies")
    said = paste(commands("Start").replace("make demo\n", ""), tmp_path)
    assert "demo-small: 12 of 12 runs complete" in said
    assert re.search(r"approach 3 +a = 0\.\d+ \(", said)
    assert "forecast  " in said and "measured  " in said
    assert "the page: demo-small/report.html" in said
    assert "90 % interval" in said and "D*/N* = 20.19" in said
