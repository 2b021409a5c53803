"""The documents agree with each other and with the code: python -m pytest tests/test_documents.py"""

import re
import subprocess
from pathlib import Path

import pytest

import isoflop
from isoflop.cli.app import VERBS

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCED = re.compile(r"^```\w+\n.*?^```$", re.MULTILINE | re.DOTALL)


def code_blocks(path: Path) -> list[str]:
    return FENCED.findall(path.read_text(encoding="utf-8"))


def headings(path: Path) -> list[str]:
    prose = FENCED.sub("", path.read_text(encoding="utf-8"))
    return re.findall(r"^#+ .+$", prose, re.MULTILINE)


def anchor(heading: str) -> str:
    """GitHub's: lower case, punctuation dropped, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower()).replace(" ", "-")


def commands_in(path: Path) -> list[str]:
    """Each `isoflop …` that a reader might type: a line of a bash block, or code within a sentence."""
    text = path.read_text(encoding="utf-8")
    blocks = [line for block in code_blocks(path) if block.startswith("```bash") for line in block.splitlines()]
    return [code for code in [*blocks, *re.findall(r"`([^`\n]+)`", text)] if code.startswith("isoflop ")]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_are_alive(path: Path) -> None:
    prose = FENCED.sub("", path.read_text(encoding="utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", prose)
    tracked = set(subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines())
    for target in (either for pair in targets for either in pair if either):
        if target.startswith("https://"):
            continue
        file, _, fragment = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{path.name} links to {target}, which does not exist"
        name = found.relative_to(ROOT).as_posix()
        assert not tracked or name in tracked or found.is_dir(), (
            f"{path.name} links to {target}, which is not committed"
        )
        if fragment:
            assert fragment in map(anchor, headings(found)), (
                f"{path.name} links to {target}, a heading that is not there"
            )


def test_both_readmes_have_the_same_code_and_the_same_headings() -> None:
    english, chinese = READMES
    assert code_blocks(english) == code_blocks(chinese)
    levels = [[heading.split(" ")[0] for heading in headings(path)] for path in READMES]
    assert levels[0] == levels[1]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.name)
def test_the_readme_names_every_command(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    missing = [verb for verb in VERBS if not re.search(rf"\bisoflop {verb}\b", text)]
    assert not missing, f"{path.name} does not mention {missing}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_names_a_command_that_is_not_there(path: Path) -> None:
    for command in commands_in(path):
        words = [word for word in command.split()[1:] if word != "COMMAND" and not word.startswith("-")]
        name = " ".join(words[:2]) if words[:1] == ["study"] else " ".join(words[:1])
        assert not name or name in VERBS, f"{path.name} says `{command}`"


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for path in DOCUMENTS:
        for block in [*code_blocks(path), *re.findall(r"`(make \w+)`", path.read_text(encoding="utf-8"))]:
            assert set(re.findall(r"^make (\w+)", block, re.MULTILINE)) <= targets, path.name


def test_the_changelog_and_the_citation_give_this_version() -> None:
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[0] == isoflop.__version__
    assert f"\nversion: {isoflop.__version__}\n" in (ROOT / "CITATION.cff").read_text()
