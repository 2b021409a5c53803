"""Folders of short made-up texts, and what a build makes of them."""

import hashlib
import os
import random
from pathlib import Path

import numpy as np
import pytest

from isoflop.data.build import Recipe
from isoflop.data.corpus import Corpus
from isoflop.data.tokenizer import load_tokenizer
from isoflop.data.tokens import META, TOKENIZER, TRAIN, VAL, open_tokens

WORDS = ["the", "of", "and", "def", "return", "import", "self", "for", "in", "if", "else", "class", "x", "y", "i"]


@pytest.fixture(autouse=True)
def no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """No machine loses its power during these tests, and the disk takes most of their time."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def texts(folder: Path, number: int = 60, *, words: int = 200) -> Path:
    folder.mkdir(parents=True)
    draw = random.Random(0)
    for n in range(number):
        (folder / f"{n:03}.txt").write_text(f"{n} " + " ".join(draw.choices(WORDS, k=words)))
    return folder


def recipe(*sources: Path, deduplicate: bool = True, **options) -> Recipe:
    return Recipe(corpus=Corpus(sources=tuple(map(str, sources)), deduplicate=deduplicate), **options)


def content(folder: Path) -> dict[str, str]:
    names = (META, TRAIN, VAL, TOKENIZER)
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def documents(folder: Path) -> dict[str, list[str]]:
    tokens, tokenizer = open_tokens(folder), load_tokenizer(folder)
    out = {}
    for split, ids in (("train", tokens.train), ("val", tokens.val)):
        ends = np.flatnonzero(ids == tokens.end_of_text)
        assert ends[-1] == len(ids) - 1
        out[split] = [tokenizer.decode(piece) for piece in np.split(np.asarray(ids), ends + 1)[:-1]]
    return out
