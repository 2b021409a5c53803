"""python -m pytest tests/test_cli_data.py"""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.data import encode
from isoflop.data.tokens import TOKENIZER, open_tokens, read_meta


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine loses its power during these tests, and the disk takes most of their time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for n in range(40):
        (folder / f"{n}.txt").write_text(f"text {n} and no other\n" * 30)
    (folder / "twin.txt").write_text((folder / "0.txt").read_text())
    return folder


def run(*args: object) -> int:
    return main(["data", *map(str, args)])


def test_a_folder_of_text_becomes_tokens(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "T"
    assert run(source, "--out", out) == 0
    said, err = capsys.readouterr()
    meta = read_meta(out)
    assert not err
    assert said.startswith(f"{out}: built\n")
    assert f"{meta['train']['documents']} documents" in said and f"{meta['train']['tokens']:,} tokens" in said
    assert "256 ids, 0.9" in said and "skipped     1 duplicate" in said
    assert said.endswith(f"next: isoflop train --data {out} --epochs 1\n")
    assert run(source, "--out", out) == 0
    assert "already built from this text with these options; nothing was done" in capsys.readouterr().out


def test_every_flag_reaches_the_folder(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "T"
    flags = ["--tokenizer", "bpe", "--vocab_size", "0.27k", "--val-fraction", "0.25", "--seed", "7", "--workers", "1"]
    flags += ["--include", "1*.txt", "--separator", r"other\n", "--no-deduplicate", "--force"]
    assert run(source, "--out", out, *flags) == 0
    assert capsys.readouterr().out.endswith(f"next: isoflop train --data {out} --epochs 1\n")
    meta = read_meta(out)
    assert meta["options"] == {
        "include": "1*.txt",
        "format": None,
        "text_field": None,
        "max_bytes": None,
        "separator": "other\n",
        "deduplicate": False,
        "tokenizer": "bpe",
        "vocab_size": 270,
        "end_of_text": None,
        "val_fraction": 0.25,
        "seed": 7,
    }
    assert meta["sources"][0]["documents"] == 11 * 30
    named = tmp_path / "named"
    again = ["--tokenizer", out / TOKENIZER, "--end-of-text", "<|endoftext|>"]
    assert run(source, "--out", named, *again) == 0
    assert read_meta(named)["tokenizer_sha256"] == meta["tokenizer_sha256"]


def test_json_is_all_that_is_printed(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, "--out", tmp_path / "T", "--json") == 0
    said, err = capsys.readouterr()
    value = json.loads(said)
    assert not err and value["fresh"] is True and value["folder"] == str(tmp_path / "T")
    assert value["train"] == read_meta(tmp_path / "T")["train"]


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["nowhere"], "nowhere does not exist; name a file, a folder, a glob, or one of stdlib"),
        ([], "no source is given; name files, folders, globs, or one of stdlib"),
        (["texts", "--include", "*.md"], "the corpus is empty: texts (left out: 41 not included)"),
        (["texts/0.txt"], "one document cannot be split into training and validation: texts/0.txt"),
        (["texts", "--tokenizer", "bpee"], "tokenizer='bpee' is neither a file nor one of bytes, bpe"),
        (["texts", "--vocab-size", "1000"], "vocab_size=1000 is for bpe; bytes have 256 ids: leave it out"),
        (["texts", "--val-fraction", "2"], "val_fraction=2.0 must lie between 0 and 1"),
        (["texts", "--tokeniser", "bpe"], "has no option '--tokeniser', perhaps you meant '--tokenizer'"),
    ],
)
def test_errors_are_one_sentence(
    args: list[str],
    sentence: str,
    source: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*args, "--out", "T") == 2
    said, err = capsys.readouterr()
    assert not said and sentence in err and err.count("\n") == 1
    assert not Path("T").exists()


def test_other_options_are_named(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "T"
    assert run(source, "--out", out) == 0
    assert run(source, "--out", out, "--seed", 1) == 2
    assert "T was built otherwise: seed=1 (there 0); add --force to replace it" in capsys.readouterr().err
    assert run(source, "--out", out, "--seed", 1, "--force") == 0
    assert open_tokens(out).vocab_size == 256


def test_a_full_disk_is_one_sentence(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(encode._Split, "write", full)
    assert run(source, "--out", tmp_path / "T") == 2
    assert capsys.readouterr().err == "isoflop: the disk is full; free some space and repeat the command\n"
    assert not (tmp_path / "T").exists()


def test_help_needs_no_wing() -> None:
    code = (
        "import sys; from isoflop.cli.app import main\n"
        "try: main(['data', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(any(name in sys.modules for name in ('numpy', 'torch', 'tokenizers', 'isoflop.data.build')))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0 and "--val-fraction" in done.stdout


def test_few_validation_tokens_are_told(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(source, "--out", tmp_path / "T") == 0
    held = read_meta(tmp_path / "T")["val"]["tokens"]
    said = capsys.readouterr().out
    assert f"{held:,} validation tokens (" in said and "a --val-fraction above 0.1 takes more" in said
    (source / "long.txt").write_text("".join(f"line {n}\n" for n in range(20_000)))
    assert run(source, "--out", tmp_path / "U", "--separator", r"9\n") == 0
    assert "few to measure" not in capsys.readouterr().out
    (tmp_path / "two").mkdir()
    for name, lines in (("a", 3_000), ("b", 30_000)):
        (tmp_path / "two" / f"{name}.txt").write_text("".join(f"{name} {n}\n" for n in range(lines)))
    parts = {}
    for seed in range(8):  # which of the two goes to validation is a matter of the seed
        assert run(tmp_path / "two", "--out", tmp_path / f"V{seed}", "--seed", seed) == 0
        meta = read_meta(tmp_path / f"V{seed}")
        parts[meta["val"]["tokens"] > meta["train"]["tokens"]] = capsys.readouterr().out
    assert "of all tokens went to validation" in parts[True] and "below 0.1 leaves more" in parts[True]
    assert "went to validation" not in parts[False]
