"""The rules of the house, held by a test: python -m pytest tests/test_house.py"""

import ast
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest

import isoflop
from isoflop import config, presets
from isoflop.config import PARTS
from isoflop.lm.optim import OPTIMIZERS
from isoflop.lm.schedule import SCHEDULES
from isoflop.lm.tracker import TRACKERS
from isoflop.study.design import DESIGNS
from isoflop.study.launch import EXECUTORS, ExecutorName
from isoflop.study.study import DesignKind, Study

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "isoflop").rglob("*.py"))
FUNCTION_LINES, FILE_LINES = 60, 400


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= FILE_LINES
    for function in functions(path):
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < FUNCTION_LINES, function.name


def test_every_field_of_a_config_is_read_somewhere() -> None:
    text = "\n".join(path.read_text() for path in MODULES)
    for owner in (*PARTS.values(), Study):
        for field in fields(owner):
            assert re.search(rf"\.{field.name}\b|\"{field.name}\"", text), f"nothing reads {field.name}"


@pytest.mark.parametrize(
    ("names", "table"),
    [
        (presets.PresetName, presets.PRESETS),
        (config.ScheduleKind, SCHEDULES),
        (config.OptimizerKind, OPTIMIZERS),
        (DesignKind, DESIGNS),
        (ExecutorName, EXECUTORS),
        (config.TrackerName, TRACKERS),
    ],
)
def test_the_command_line_knows_what_the_tables_hold(names: object, table: dict) -> None:
    assert set(get_args(names)) == set(table)


def test_no_file_names_a_path_of_one_machine() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split("\n")
    for name in listed:
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".html", ".txt"} and path.is_file():
            assert not re.search(r"(?<![\w.])/(root|home)/\w", path.read_text()), name


def test_the_changelog_knows_this_version() -> None:
    assert f"## [{isoflop.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, isoflop; assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
