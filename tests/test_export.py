"""Both ways between runs and folders of transformers: python -m pytest tests/test_export.py"""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from isoflop.config import ModelConfig, read_run
from isoflop.data.tokenizer import ByteTokenizer, make_tokenizer
from isoflop.flops import count_params
from isoflop.lm.export import export, import_model
from isoflop.lm.generate import generate
from isoflop.lm.run import load_model
from isoflop.presets import preset
from tests.exported import TINY, change, exported, rewrite, save_run, wordy

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, tied, grouped queries, biases": (
        "llama",
        {"num_kv_heads": 2, "tied_head": True, "attn_bias": True, "mlp_bias": True, "rope_theta": 5e5, "d_ff": 40},
    ),
    "gpt2": ("gpt", {"residual_pdrop": 0.1}),
    "gpt2, untied, one head": ("gpt", {"tied_head": False, "num_heads": 1, "d_ff": 40}),
}
TEXT = "def f(x):\n\treturn 'Ünïcode  中文 🎉' # ok  \r\n"


@pytest.fixture(scope="module")
def hf() -> Any:
    return pytest.importorskip("transformers", reason="transformers is not installed: pip install 'isoflop[hf]'")


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        out = model(ids)
    return out if isinstance(out, torch.Tensor) else out.logits


def random_ids(shape: ModelConfig) -> torch.Tensor:
    size = (3, shape.context_length)
    return torch.randint(0, shape.vocab_size, size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_computes_the_same(name: str, hf: Any, tmp_path: Path) -> None:
    kind, changes = SHAPES[name]
    shape = preset(kind, **{**TINY, **changes})
    model = save_run(tmp_path / "run", shape)
    family, _ = export(tmp_path / "run", tmp_path / "out")
    theirs, info = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info.values()), info
    assert type(theirs).__name__ == family.architecture
    assert sum(weight.numel() for weight in theirs.parameters()) == count_params(shape).total
    ids = random_ids(shape)
    torch.testing.assert_close(logits(theirs.eval(), ids), logits(model, ids), rtol=0, atol=1e-5)
    prompt, more = ids[0, :6], shape.context_length - 6
    greedy = theirs.generate(prompt[None], max_new_tokens=more, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert greedy[0, 6:].tolist() == generate(model, prompt, max_tokens=more, temperature=0)


CARRIED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama, grown heads": (
        "llama",
        {"parametrization": "mup", "base_width": 8, "base_head_size": 2, "num_kv_heads": 2},
    ),
    "llama, tied": ("llama", {"tied_head": True, "parametrization": "mup", "base_width": 8, "alpha_in": 3.0}),
    "gpt2, deep": ("gpt", {"parametrization": "completep", "base_width": 8, "base_depth": 1, "alpha_out": 2.0}),
    "gpt2, untied": ("gpt", {"tied_head": False, "alpha_in": 2.0, "alpha_out": 0.5}),
}
"""Models with factors in the forward pass."""


@pytest.mark.parametrize("name", CARRIED)
def test_factors_of_a_parametrization_go_into_the_weights(name: str, tmp_path: Path) -> None:
    kind, changes = CARRIED[name]
    model = save_run(tmp_path / "run", preset(kind, **{**TINY, **changes}))
    export(tmp_path / "run", tmp_path / "out")
    import_model(tmp_path / "out", tmp_path / "back")
    config, plain = load_model(tmp_path / "back")
    assert config.model.parametrization == "standard" and config.model.alpha_in == 1.0
    ids = random_ids(config.model)
    torch.testing.assert_close(logits(plain, ids), logits(model, ids), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
def test_there_and_back_is_the_same_run(name: str, tmp_path: Path) -> None:
    kind, changes = SHAPES[name]
    shape = preset(kind, **{**TINY, **changes})
    model = save_run(tmp_path / "run", shape)
    export(tmp_path / "run", tmp_path / "out")
    import_model(tmp_path / "out", tmp_path / "back")
    config, again = load_model(tmp_path / "back")
    assert count_params(config.model) == count_params(shape)
    assert (config.model.attn_pdrop, config.model.residual_pdrop) == (shape.attn_pdrop, shape.residual_pdrop)
    for (name, mine), (other, theirs) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other and torch.equal(mine, theirs)
    export(tmp_path / "back", tmp_path / "out again")
    for file in (tmp_path / "out").iterdir():
        assert (tmp_path / "out again" / file.name).read_bytes() == file.read_bytes(), file.name


def test_what_transformers_saves_is_read(hf: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # matrices of 0.2 would put logits so far out that both programs are 1e-5 from the same sum in fp64
    drawn = {"initializer_range": 0.1, "bos_token_id": 0, "eos_token_id": 0}
    llama = hf.LlamaConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        **drawn,
    )
    gpt2 = hf.GPT2Config(vocab_size=256, n_positions=40, n_embd=24, n_layer=2, n_head=3, **drawn)
    for number, (theirs, size) in enumerate([(llama, "10GB"), (llama, "20KB"), (gpt2, "10GB"), (gpt2, "9KB")]):
        model = hf.AutoModelForCausalLM.from_config(theirs).eval()
        folder, run = tmp_path / f"hf{number}", tmp_path / f"run{number}"
        model.save_pretrained(folder, max_shard_size=size)
        ByteTokenizer().save(folder / "tokenizer.json")
        assert (len(list(folder.glob("*.safetensors"))) > 1) == ("KB" in size)
        import_model(folder, run)
        config, ours = load_model(run)
        assert sum(weight.numel() for weight in model.parameters()) == count_params(config.model).total
        ids = random_ids(config.model)
        torch.testing.assert_close(logits(ours, ids), logits(model, ids), rtol=0, atol=1e-5)


def test_half_precision_and_files_of_the_bare_model_are_read(hf: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    bare = hf.GPT2Model(
        hf.GPT2Config(vocab_size=256, n_positions=40, n_embd=24, n_layer=2, n_head=3, bos_token_id=0, eos_token_id=0)
    )
    bare.to(torch.bfloat16).save_pretrained(tmp_path / "hf")
    weights = safetensors.torch.load_file(tmp_path / "hf" / "model.safetensors")
    assert "wte.weight" in weights
    # buffers that transformers wrote years ago
    weights |= {"h.0.attn.bias": torch.ones(1, 1, 40, 40), "h.0.attn.masked_bias": torch.tensor(-1e4)}
    safetensors.torch.save_file(weights, tmp_path / "hf" / "model.safetensors")
    ByteTokenizer().save(tmp_path / "hf" / "tokenizer.json")
    import_model(tmp_path / "hf", tmp_path / "run")
    _, ours = load_model(tmp_path / "run")
    assert ours.embed.dtype == torch.float32
    assert torch.equal(ours.embed, bare.wte.weight.float())


def test_a_tied_read_out_may_be_stored_twice(tmp_path: Path) -> None:
    folder = exported(tmp_path, tied_head=True)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    rewrite(folder, **{"lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    import_model(folder, tmp_path / "back")
    assert load_model(tmp_path / "back")[1].head is None


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_as_models_are_published_is_read(tied: bool, tmp_path: Path) -> None:
    """Grouped queries, bf16, shards with an index, and a config.json as transformers 4 wrote it."""
    folder = exported(tmp_path, num_kv_heads=2, tied_head=tied)
    weights = {name: w.bfloat16() for name, w in safetensors.torch.load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    where = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(weights)}
    for shard in set(where.values()):
        part = {name: weight for name, weight in weights.items() if where[name] == shard}
        safetensors.torch.save_file(part, folder / shard, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    old = {"rope_parameters": ..., "rope_scaling": None, "rope_theta": 10_000.0, "head_dim": None}
    change(folder, **old, pretraining_tp=1, torch_dtype="bfloat16", transformers_version="4.46.0", use_cache=True)
    _, config = import_model(folder, tmp_path / "back")
    assert (config.model.kv_heads, config.model.tied_head) == (2, tied)
    again, whole = load_model(tmp_path / "back")[1], load_model(tmp_path / "run")[1]
    assert all(
        torch.equal(mine, theirs.bfloat16().float())
        for mine, theirs in zip(again.parameters(), whole.parameters(), strict=True)
    )


# tokenizers


def test_the_bytes_tokenizer_opens_elsewhere(hf: Any, tmp_path: Path) -> None:
    ByteTokenizer().save(tmp_path / "tokenizer.json")
    save_run(tmp_path / "run", preset("llama", **TINY))
    export(tmp_path / "run", tmp_path / "out")
    direct = hf.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))
    auto = hf.AutoTokenizer.from_pretrained(tmp_path / "out")
    every = "".join(map(chr, [*range(1, 0x180), 0x7FF, 0x800, 0xFFFD, 0x1F600, 0x10FFFF]))
    for tokenizer in (direct, auto):
        for text in (TEXT, every, " ", "two  spaces .", "a\u0301", ""):
            ids = tokenizer(text)["input_ids"]
            assert ids == ByteTokenizer().encode(text).tolist() == list(text.encode())
            assert tokenizer.decode(ids) == text
    assert isinstance(auto, hf.PreTrainedTokenizerFast)
    assert (auto.eos_token_id, auto.bos_token_id, auto.model_max_length) == (0, 0, TINY["context_length"])
    assert auto("<|endoftext|>")["input_ids"] == [0]


def test_a_trained_tokenizer_opens_elsewhere(hf: Any, tmp_path: Path) -> None:
    bpe = make_tokenizer("bpe", [Path(__file__).read_text()], vocab_size=400)
    save_run(tmp_path / "run", preset("gpt", **{**TINY, "vocab_size": 400}))
    bpe.save(tmp_path / "run" / "tokenizer.json")
    export(tmp_path / "run", tmp_path / "out")
    theirs = hf.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(TEXT)["input_ids"] == bpe.encode(TEXT).tolist()
    assert theirs.decode(bpe.encode(TEXT).tolist()) == TEXT
    assert theirs.eos_token_id == bpe.end_of_text == 0


def test_an_unusual_end_of_text_goes_along_both_ways(tmp_path: Path) -> None:
    save_run(tmp_path / "run", preset("llama", **TINY), end_of_text=3)
    wordy(tmp_path / "run", ["a", "b", "?", "STOP"])
    _, tokenizer = export(tmp_path / "run", tmp_path / "out")
    assert tokenizer is not None and tokenizer.end_of_text == 3
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["eos_token"] == "STOP"
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 3
    import_model(tmp_path / "out", tmp_path / "back")
    assert read_run(tmp_path / "back").data.end_of_text == 3
    change(tmp_path / "out", eos_token_id=[3, 2])
    import_model(tmp_path / "out", tmp_path / "list")
    assert read_run(tmp_path / "list").data.end_of_text == 3
    change(tmp_path / "out", eos_token_id=999)
    import_model(tmp_path / "out", tmp_path / "none")
    assert read_run(tmp_path / "none").data.end_of_text is None


def test_a_run_on_bare_ids_has_no_tokenizer_to_share(tmp_path: Path) -> None:
    save_run(tmp_path / "run", preset("llama", **TINY), end_of_text=7)
    (tmp_path / "run" / "tokenizer.json").unlink()
    _, tokenizer = export(tmp_path / "run", tmp_path / "out")
    assert tokenizer is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]
    assert json.loads((tmp_path / "out" / "config.json").read_text())["eos_token_id"] == 7
