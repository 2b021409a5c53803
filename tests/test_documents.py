"""The documents agree with each other and with the code: python -m pytest tests/test_documents.py

With -m slow also the tutorial itself.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import isoflop
from isoflop.cli.app import VERBS

ROOT = Path(__file__).parents[1]
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
TUTORIALS = (ROOT / "examples" / "tutorial.py", ROOT / "examples" / "tutorial.zh-CN.py")
CHINESE = sorted([READMES[1], TUTORIALS[1], *(ROOT / "docs").rglob("*.zh-CN.md")])
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


def cells(path: Path) -> list[tuple[str, str]]:
    """Kind and content of each cell; code without comments and docstrings, texts as they stand."""
    parts = re.split(r"^# %%(.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = [("", parts[0]), *zip((kind.strip() for kind in parts[1::2]), parts[2::2], strict=True)]
    return [(kind, text if kind else code_alone(text)) for kind, text in found]


def code_alone(text: str) -> str:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def test_both_tutorials_have_the_same_cells_and_the_same_code() -> None:
    english, chinese = (cells(path) for path in TUTORIALS)
    assert [kind for kind, _ in english] == [kind for kind, _ in chinese]
    assert [text for kind, text in english if not kind] == [text for kind, text in chinese if not kind]
    for (kind, text), (_, translated) in zip(english, chinese, strict=True):
        levels = [re.findall(r"^# (#+|-) ", words, re.MULTILINE) for words in (text, translated) if kind]
        assert levels[:1] == levels[1:]


@pytest.mark.parametrize("path", CHINESE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_english_sentence_is_left_in_the_chinese_documents(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    prose = FENCED.sub("", text) if path.suffix == ".md" else "".join(words for kind, words in cells(path) if kind)
    assert re.search("[\u4e00-\u9fff]", prose)
    prose = re.sub(r"`[^`]*`|“[^”]*”|\]\([^)]*\)", "", prose)
    assert not re.search(r"(?:\b[A-Za-z][a-z'’-]*[ ,]+){3}[a-z]+", prose)


def test_the_index_links_every_document() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", index.read_text("utf-8"))}
    missing = {*(ROOT / "docs").rglob("*.md"), *READMES, *TUTORIALS} - {index} - linked
    assert not missing, f"docs/README.md does not link {sorted(path.name for path in missing)}"


@pytest.mark.slow
def test_the_tutorial_goes_the_whole_way(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(TUTORIALS[0])], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert re.search(r"N\* at 1e24 FLOPs: \d", said) and "have the same params=1e+09" in said
    assert "tutorial: 12 of 12 runs complete" in said
    assert "forecast  " in said and re.search(r"measured  .* the interval, a (hit|miss)", said)
    assert (tmp_path / "tutorial" / "report.html").exists()
    spread = [abs(float(percent)) for percent in re.findall(r"([+-]\d+\.\d\d) %$", said, re.MULTILINE)]
    assert len(spread) == 12 and max(spread) < 5


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
