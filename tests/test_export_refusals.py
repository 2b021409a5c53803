"""What is no model of ours or theirs is refused, both ways: python -m pytest tests/test_export_refusals.py"""

import inspect
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from isoflop.lm import checkpoint as checkpoints
from isoflop.lm import export as module
from isoflop.lm.export import export, import_model
from isoflop.lm.families import family_of
from isoflop.lm.model import layer_norm, rms_norm
from isoflop.presets import preset
from tests.exported import TINY, change, exported, made_run, rewrite, save_run, wordy


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("llama", {"mlp": "relu2"}, r"Llama, the nearest, cannot express mlp='relu2' \(only 'swiglu'\); share"),
        ("gpt", {"mlp": "relu2"}, r"GPT-2, the nearest, cannot express mlp='relu2' \(only 'gelu'\)"),
        ("llama", {"norm_gain": False}, r"norm_gain=False \(only True\)"),
        ("gpt", {"norm_gain": False}, r"norm_gain=False \(only True\)"),
        ("llama", {"norm_bias": True}, r"norm_bias=True \(only False\)"),
        (
            "gpt",
            {"attn_bias": False, "mlp_bias": False},
            r"attn_bias=False \(only True\), mlp_bias=False \(only True\)",
        ),
        ("gpt", {"num_kv_heads": 2}, r"num_kv_heads=2 \(only 4\)"),
        ("llama", {"norm": "layernorm"}, r"norm='layernorm' \(only 'rmsnorm'\)"),
        (
            "small",
            {},
            r"neither a Llama nor GPT-2.*; share .*, or train with --preset llama or gpt, which can be exported",
        ),
        ("70M", {}, r"cannot express mlp='gelu'"),
    ],
)
def test_what_no_family_has_is_refused(kind: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    save_run(tmp_path / "run", preset(kind, **{**TINY, **changes}))
    with pytest.raises(ValueError, match=said):
        export(tmp_path / "run", tmp_path / "out")
    assert os.listdir(tmp_path) == ["run"]


def test_norms_add_what_the_families_say() -> None:
    for norm, key in ((rms_norm, "rms_norm_eps"), (layer_norm, "layer_norm_epsilon")):
        family = family_of(preset("llama" if norm is rms_norm else "gpt"))
        assert inspect.signature(norm).parameters["eps"].default == family.fixed[key].written


def test_a_folder_with_something_in_it_is_kept(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    for write in (lambda: export(tmp_path / "run", folder), lambda: import_model(folder, tmp_path / "run")):
        with pytest.raises(ValueError, match="exists already and is not an empty folder"):
            write()
    (tmp_path / "empty").mkdir()
    export(tmp_path / "run", tmp_path / "empty")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        export(made_run(tmp_path), tmp_path / "more")


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = exported(tmp_path)
    before = sorted(os.listdir(tmp_path))

    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(module, "write_bytes", full)
    monkeypatch.setattr(checkpoints, "write_bytes", full)
    for write in (lambda: export(tmp_path / "run", tmp_path / "x"), lambda: import_model(folder, tmp_path / "y")):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert sorted(os.listdir(tmp_path)) == before


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def index(value: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder.parent / "secret.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(value))

    return write


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def lying_header(folder: Path) -> None:
    head = json.dumps({"model.norm.weight": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(head)) + head + bytes(4))


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def config_of(**values: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder, **values)


def weights_of(**values: Any) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder, **values)


Q, NORM = "model.layers.0.self_attn.q_proj.weight", "model.norm.weight"
HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), "has no config.json; name a folder"),
    "config that is no JSON": (text("config.json", "{"), "is not valid JSON"),
    "config that is a list": (text("config.json", "[]"), "has no model_type"),
    "config nested without end": (text("config.json", "[" * 100_000), "is not valid JSON"),
    "another architecture": (config_of(model_type="mamba"), "model_type='mamba' is not known; choose a model of llama"),
    "quantized": (config_of(quantization_config={"bits": 4}), "quantization_config is given"),
    "a size missing": (config_of(hidden_size=...), "does not say hidden_size"),
    "a size that is text": (config_of(hidden_size="32"), "hidden_size='32' has to be of type int"),
    "a size that is true": (config_of(num_hidden_layers=True), "num_hidden_layers=True has to be of type int"),
    "a size below zero": (config_of(num_hidden_layers=-1), "num_layers=-1 must be positive"),
    "a flag that is text": (config_of(attention_bias="no"), "attention_bias='no' has to be of type bool"),
    "a wavelength that is none": (
        config_of(rope_theta=float("inf"), rope_parameters=None),
        "rope_theta=inf has to be of type float",
    ),
    "heads that do not divide": (config_of(num_attention_heads=5), "does not split into num_heads=5"),
    "heads of another size": (config_of(head_dim=16), "head_dim=16 is not hidden_size"),
    "another activation": (config_of(hidden_act="relu2"), "hidden_act='relu2' cannot be computed here"),
    "another epsilon": (config_of(rms_norm_eps=1e-6), "rms_norm_eps=1e-06 cannot be computed here"),
    "no epsilon": (config_of(rms_norm_eps=...), "rms_norm_eps is missing, which means 1e-06"),
    "stretched RoPE": (
        config_of(rope_parameters={"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}),
        "rope_type='llama3' in rope_parameters cannot be computed here; rope_type has to be 'default'",
    ),
    "stretched RoPE of old": (
        config_of(rope_scaling={"type": "linear", "factor": 2.0}, rope_parameters=None),
        "rope_type='linear' in rope_scaling cannot be computed here",
    ),
    "RoPE that is a number": (config_of(rope_parameters=3), "rope_parameters=3 has to be an object"),
    "a context that fills the memory": (config_of(max_position_embeddings=10**15), "is more than 1048576 positions"),
    "a model that fills the memory": (config_of(hidden_size=2**40), "parameters, but the weights hold"),
    "layers without end": (config_of(num_hidden_layers=10**12), "parameters, but the weights hold"),
    "one layer more": (config_of(num_hidden_layers=3), "the weights lack model.layers.2.input_layernorm.weight"),
    "one layer less": (config_of(num_hidden_layers=1), "the weights hold model.layers.1.input_layernorm.weight"),
    "a wrong shape": (config_of(num_key_value_heads=2), r"k_proj.weight has the shape \[32, 32\], but .* \[16, 32\]"),
    "weights as a pickle": (only_pickle, "has no model.safetensors; weights are read from safetensors alone"),
    "a shard outside": (index({"weight_map": {NORM: "../secret.safetensors"}}), "no safetensors file in this folder"),
    "a shard that is a pickle": (index({"weight_map": {NORM: "model.bin"}}), "names 'model.bin'"),
    "a shard that is not there": (index({"weight_map": {NORM: "a.safetensors"}}), "has no a.safetensors"),
    "an index without a map": (index([]), "has no weight_map of names"),
    "an index of numbers": (index({"weight_map": {NORM: 3}}), "has no weight_map of names"),
    "weights cut short": (cut, "is no sound safetensors file"),
    "a header that lies": (lying_header, "is no sound safetensors file"),
    "no weights but text": (text("model.safetensors", "hello"), "is no sound safetensors file"),
    "a weight missing": (weights_of(**{NORM: ...}), f"the weights lack {NORM}"),
    "a weight too many": (weights_of(**{"model.evil.weight": torch.ones(2)}), "the weights hold model.evil.weight"),
    "a weight of whole numbers": (weights_of(**{Q: torch.ones(32, 32, dtype=torch.int8)}), "is of type torch.int8"),
    "a weight that is no number": (weights_of(**{Q: torch.full((32, 32), float("nan"))}), "holds numbers that are not"),
    "a read-out that is not tied": (config_of(tie_word_embeddings=True), "lm_head.weight differs from the embedding"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json; make one"),
    "a tokenizer that is none": (text("tokenizer.json", "{}"), "this is no tokenizer.json"),
    "a tokenizer of another model": (lambda f: wordy(f, [*map(str, range(300)), "?"]), "belongs to another model"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_folders_are_refused(name: str, tmp_path: Path) -> None:
    folder = exported(tmp_path)
    harm, said = HOSTILE[name]
    harm(folder)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match=said) as caught:
        import_model(folder, tmp_path / "back")
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == before
