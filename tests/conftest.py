"""Shared by the tests: a tiny token folder, and runs on it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest

from isoflop.config import DataConfig, OptimConfig, RunConfig, TrainConfig, write_run
from isoflop.data.build import Recipe, build
from isoflop.data.corpus import Corpus
from isoflop.data.tokens import open_tokens
from isoflop.presets import preset

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as `isoflop train` does; before torch is imported


@pytest.fixture(scope="session")
def token_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bytes of 40 short documents that are easy to learn."""
    root = tmp_path_factory.mktemp("data")
    (root / "texts").mkdir()
    for n in range(40):
        lines = [f"{n} times {k} is {n * k}; that is no news to anyone.\n" for k in range(20)]
        (root / "texts" / f"{n}.txt").write_text("".join(lines))
    return build(Recipe(corpus=Corpus(sources=(str(root / "texts"),))), root / "tokens", workers=1).folder


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing but the product check types, as for a user: here the checker of the tests would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def make_run(token_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """Make a run folder: `make_run(out="a", steps=8, model={...}, optim={...})`; other words go to TrainConfig."""

    def make(
        *, out: str = "runs", model: dict[str, Any] | None = None, optim: dict[str, Any] | None = None, **train: Any
    ) -> Path:
        shape = preset("small", **{"d_model": 16, "context_length": 16, **(model or {})})
        config = RunConfig(
            model=shape,
            data=DataConfig(data=str(token_folder), val_tokens=1024),
            optim=OptimConfig(**(optim or {})),
            train=replace(TrainConfig(batch_size=4, checkpoint_every=3, eval_every=4), **train),
            data_sha256=open_tokens(token_folder).fingerprint,
        )
        return write_run(config, tmp_path / out)

    return make
