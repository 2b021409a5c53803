"""Runs as if trained and their exported folders, for the tests of export and import."""

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from isoflop.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig, read_run, write_run
from isoflop.data.tokenizer import ByteTokenizer
from isoflop.lm import checkpoint as checkpoints
from isoflop.lm.export import export
from isoflop.lm.model import Transformer
from isoflop.presets import preset

TINY = {"vocab_size": 256, "context_length": 48, "d_model": 32, "num_layers": 2, "num_heads": 4}


def save_run(folder: Path, shape: ModelConfig, **data: Any) -> Transformer:
    """Make a run folder with a checkpoint and a tokenizer, as if trained; gains and biases are not 1 and 0 either."""
    model = Transformer(shape, seed=1).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)
    config = RunConfig(
        model=shape, data=DataConfig(**data), optim=OptimConfig(), train=TrainConfig(steps=1), data_sha256="0"
    )
    write_run(config, folder.parent).rename(folder)
    tensors = {"model": dict(model.named_parameters())}
    checkpoints.save(folder, checkpoints.Checkpoint(step=1, tensors=tensors, state={}), keep_last=1)
    ByteTokenizer().save(folder / "tokenizer.json")
    return model


def made_run(tmp_path: Path) -> Path:
    config = read_run(tmp_path / "run")
    return write_run(config, tmp_path / "untrained")


def exported(tmp_path: Path, kind: str = "llama", **changes: Any) -> Path:
    save_run(tmp_path / "run", preset(kind, **{**TINY, **changes}))
    export(tmp_path / "run", tmp_path / "out")
    return tmp_path / "out"


def wordy(folder: Path, words: list[str]) -> None:
    import tokenizers

    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?")).save(str(folder / "tokenizer.json"))


def change(folder: Path, **values: Any) -> None:
    """Set keys of config.json; a value of ... takes one out."""
    value = json.loads((folder / "config.json").read_text()) | values
    (folder / "config.json").write_text(json.dumps({key: v for key, v in value.items() if v is not ...}))


def rewrite(folder: Path, **tensors: Any) -> None:
    """Set tensors of model.safetensors; a value of ... takes one out."""
    value = safetensors.torch.load_file(folder / "model.safetensors") | tensors
    kept = {key: tensor for key, tensor in value.items() if tensor is not ...}
    safetensors.torch.save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
