"""Builds that meet each other, a full disk or a kill: python -m pytest tests/test_build_faults.py"""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from isoflop.data import build as module
from isoflop.data.build import BUILDING, build
from isoflop.data.tokens import META, open_tokens
from tests.texts import content, no_sync, recipe, texts

__all__ = ["no_sync"]  # a fixture for every test here


def test_two_builds_of_one_folder_do_not_mix(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    (tmp_path / "T").mkdir()
    other = os.open(tmp_path / "T", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="T is being built by another process; wait for it or stop it"):
        build(recipe(source), tmp_path / "T")
    os.close(other)
    assert build(recipe(source), tmp_path / "T").fresh


def test_text_that_changes_while_it_is_read_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = texts(tmp_path / "texts")

    def make(*args, **options):
        (source / "000.txt").write_text("changed")
        return real(*args, **options)

    real = module.make_tokenizer
    monkeypatch.setattr(module, "make_tokenizer", make)
    with pytest.raises(ValueError, match="the text changed while it was read; repeat the command"):
        build(recipe(source), tmp_path / "T")
    assert not (tmp_path / "T").exists()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """No file of the command may grow beyond 4 kB, the nearest to a full disk that every machine has."""
    source = texts(tmp_path / "texts", words=50)
    # in a process of its own: the limit would also cut short what pytest writes into a file
    done = subprocess.run(
        [sys.executable, "-m", "isoflop", "data", str(source), "--out", str(tmp_path / "new" / "T")],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)),
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "File too large" in done.stderr.splitlines()[-1]
    assert not (tmp_path / "new" / "T").exists()


def test_a_write_that_fails_keeps_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = texts(tmp_path / "texts")
    build(recipe(source), tmp_path / "T")
    before = content(tmp_path / "T")

    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    with monkeypatch.context() as patch:  # everything but meta.json is written by then
        patch.setattr(module, "write_json", full)
        with pytest.raises(OSError, match="No space left"):
            build(recipe(source, seed=1), tmp_path / "T", force=True)
    assert content(tmp_path / "T") == before
    assert not (tmp_path / "T" / BUILDING).exists()
    assert build(recipe(source, seed=1), tmp_path / "T", force=True).fresh


KILLER = """
import os, signal, sys
from pathlib import Path
from isoflop.data.build import Recipe, build
from isoflop.data.corpus import Corpus

source, out, last, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
left = last

def deadly(function):
    def call(*args, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **options)
    return call

for owner, name in ((os, "replace"), (os, "fsync"), (Path, "unlink"), (Path, "mkdir"), (Path, "rmdir"), (Path, "open")):
    setattr(owner, name, deadly(getattr(owner, name)))
build(Recipe(corpus=Corpus(sources=(source,)), seed=seed), Path(out), force=True)
"""


def killed(source: Path, out: Path, *, after: int, seed: int) -> bool:
    """Build in a process that is killed after so many calls to the file system; tell whether it was."""
    command = [sys.executable, "-c", KILLER, str(source), str(out), str(after), str(seed)]
    code = subprocess.run(command, check=False, capture_output=True).returncode
    assert code in (0, -9)
    return code == -9


def survives(source: Path, tmp_path: Path, after: int) -> bool:
    """Kill a build and a rebuild at one point and look at what is there; tell whether there was such a point."""
    wanted = {seed: content(tmp_path / f"whole{seed}") for seed in (0, 1)}
    new, old = tmp_path / f"new{after}", tmp_path / f"old{after}"
    died = killed(source, new, after=after, seed=0)
    assert content(new) == wanted[0] if (new / META).exists() else died
    build(recipe(source), old)
    died = killed(source, old, after=after, seed=1)
    assert content(old) in (wanted[0], wanted[1]) if (old / META).exists() else died
    for folder in (new, old):
        build(recipe(source, seed=1), folder, force=True)
        assert content(folder) == wanted[1] and not (folder / BUILDING).exists()
        open_tokens(folder)
    return died


@pytest.fixture
def wholes(tmp_path: Path) -> Path:
    source = texts(tmp_path / "texts", 4, words=20)
    for seed in (0, 1):
        build(recipe(source, seed=seed), tmp_path / f"whole{seed}")
    return source


@pytest.mark.parametrize("after", [10, 22])
def test_a_kill_leaves_no_wrong_folder(after: int, wholes: Path, tmp_path: Path) -> None:
    assert survives(wholes, tmp_path, after)


@pytest.mark.slow
def test_a_kill_at_any_point_leaves_no_wrong_folder(wholes: Path, tmp_path: Path) -> None:
    after = 0
    while survives(wholes, tmp_path, after):
        after += 1
    assert after > 20  # 30 when this was written
