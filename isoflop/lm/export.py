"""Models that other programs open: a run as a folder of the `transformers` library, and such a folder as a run."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from isoflop.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.data.tokenizer import Tokenizer, load_tokenizer
from isoflop.files import read_json, sha256, write_bytes, write_json
from isoflop.flops import count_params
from isoflop.lm import checkpoint as checkpoints
from isoflop.lm.families import Family, family_of, names_in, read_config, write_config
from isoflop.lm.generate import open_tokenizer
from isoflop.lm.model import Transformer
from isoflop.lm.run import load_model

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


def export(run: Path, out: Path) -> tuple[Family, Tokenizer | None]:
    """Write the newest checkpoint of a run as a folder that `transformers` loads; logits are the same in fp32.

    Returns:
        The family that it was written as, and its tokenizer, where the run has one.

    Raises:
        ValueError: no family has such a model, the run has no checkpoint, or `out` holds something.
    """
    config, model = load_model(run)
    shape = replace(config.model.carried_over("standard", config.model), alpha_in=1.0, alpha_out=1.0)
    family, tokenizer = family_of(shape), open_tokenizer(run, config.data)
    value = write_config(family, shape)
    model = _folded(model, shape)
    end = config.data.end_of_text if tokenizer is None else tokenizer.end_of_text
    with _publishing(out) as work:
        # texts are told apart by one token, which therefore also stands before a text
        write_json(work / CONFIG, {**value, "bos_token_id": end, "eos_token_id": end})
        tensors = {name: part.contiguous() for name, part in _parts(model, family)}
        write_bytes(work / WEIGHTS, safetensors.torch.save(tensors, metadata={"format": "pt"}))
        if tokenizer is not None:
            tokenizer.save(work / TOKENIZER)
            write_json(work / TOKENIZER_CONFIG, _tokenizer_config(tokenizer, config.model.context_length))
    return family, tokenizer


@torch.no_grad()
def _folded(model: Transformer, shape: ModelConfig) -> Transformer:
    """Return a standard model that computes the same: every factor of the forward pass goes into weights beside it."""
    if model.config == shape:
        return model
    factors, queries = model.factors, shape.heads * shape.head_size
    plain = Transformer(shape).eval()
    plain.load_state_dict(model.state_dict())
    for name, parameter in plain.named_parameters():
        if name in ("embed", "position"):
            parameter.mul_(factors.embedding)
        elif name.startswith("final_norm."):
            # a tied read-out has the embedding's factor already
            parameter.mul_(factors.logits / (factors.embedding if shape.tied_head else 1.0))
        elif ".attn.out." in name or ".mlp.down." in name:
            parameter.mul_(factors.residual)
        elif ".attn.qkv." in name and factors.attention is not None:
            parameter[:queries].mul_(factors.attention * shape.head_size**0.5)
    return plain


def _tokenizer_config(tokenizer: Tokenizer, context_length: int) -> dict[str, Any]:
    end = None if tokenizer.end_of_text is None else tokenizer.spelling(tokenizer.end_of_text)
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "clean_up_tokenization_spaces": False,
        **({} if end is None else {"bos_token": end, "eos_token": end}),
    }


@contextmanager
def _publishing(out: Path) -> Iterator[Path]:
    """Give a folder to write in that becomes `out` when the block ends, and leaves nothing behind when it fails."""
    out = Path(os.path.abspath(out))
    if out.exists() and not (out.is_dir() and next(out.iterdir(), None) is None):
        raise ValueError(f"{out} exists already and is not an empty folder; choose another, or delete it")
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield work
        work.chmod(0o755)
        os.replace(work, out)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


@torch.no_grad()
def _parts(model: Transformer, family: Family) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights as views under the family's names and in its layout, to be read or written through."""
    config = model.config
    for name, parameter in model.named_parameters():
        view = parameter.detach()
        if family.transposed and view.ndim == 2 and name.startswith("blocks."):
            view = view.T
        theirs = names_in(family, name)
        if len(theirs) == 1:
            yield theirs[0], view
        else:
            rows = [heads * config.head_size for heads in (config.heads, config.kv_heads, config.kv_heads)]
            yield from zip(theirs, torch.split(view, rows), strict=True)


def import_model(folder: Path, out: Path) -> tuple[Family, RunConfig]:
    """Turn a folder with a Llama or GPT-2 model into a run folder that can be measured, sampled and exported.

    Nothing in the folder is run: config.json and the tokenizer are data, and weights are safetensors alone.

    Raises:
        ValueError: a file is missing, damaged, or not what config.json says; something is asked for that no model
            here does; or `out` holds something.
    """
    family, shape = _read_config(folder)
    tokenizer, end = _read_tokenizer(folder, shape.vocab_size)
    with _publishing(out) as work, ExitStack() as stack:
        files = _weight_files(folder)
        handles = [stack.enter_context(_open(path)) for path in files]
        tensors = _named(family, handles)
        held = sum(_elements(handle, key) for handle, key in tensors.values())
        # a model is made before its weights are looked at, so a few bytes must not ask for more than there is
        if (told := count_params(shape).total) > 2 * held:
            raise ValueError(f"{folder / CONFIG} describes {told:,} parameters, but the weights hold {held:,}")
        model = Transformer(shape)
        _fill(model, family, tensors)
        digests = [*(sha256(path) for path in files), tokenizer.sha256]
        config = RunConfig(
            model=shape,
            data=DataConfig(end_of_text=end),
            optim=OptimConfig(),
            train=TrainConfig(),
            data_sha256=hashlib.sha256(json.dumps(digests).encode()).hexdigest(),
        )
        whole = {"model": dict(model.named_parameters())}
        checkpoints.save(work, checkpoints.Checkpoint(step=0, tensors=whole, state={}), keep_last=1)
        tokenizer.save(work / TOKENIZER)
        write_json(work / CONFIG, config.to_dict())
    return family, config


def _read_config(folder: Path) -> tuple[Family, Any]:
    path = folder / CONFIG
    if not path.is_file():
        raise ValueError(f"{folder} has no {CONFIG}; name a folder that save_pretrained of transformers wrote")
    try:
        return read_config(read_json(path))
    except ValueError as error:
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error


def _read_tokenizer(folder: Path, vocab_size: int) -> tuple[Tokenizer, int | None]:
    """Read the tokenizer and the id that ends a text: as usually spelled, or as config.json says."""
    if not (folder / TOKENIZER).is_file():
        raise ValueError(
            f"{folder} has no {TOKENIZER}; make one: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
        )
    tokenizer = load_tokenizer(folder / TOKENIZER)
    if tokenizer.vocab_size > vocab_size:
        raise ValueError(
            f"{folder / TOKENIZER} has {tokenizer.vocab_size} ids, more than the model's vocab_size={vocab_size}; "
            "it belongs to another model"
        )
    said = read_json(folder / CONFIG).get("eos_token_id")
    end = said[0] if isinstance(said, list) and said else said
    known = isinstance(end, int) and not isinstance(end, bool) and 0 <= end < tokenizer.vocab_size
    return tokenizer, end if known and tokenizer.end_of_text is None else tokenizer.end_of_text


def _weight_files(folder: Path) -> list[Path]:
    names = [WEIGHTS]
    if not (folder / WEIGHTS).exists() and (folder / INDEX).is_file():
        listed = read_json(folder / INDEX)
        shards = listed.get("weight_map") if isinstance(listed, dict) else None
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise ValueError(f"{folder / INDEX} has no weight_map of names; save the model again with save_pretrained")
        names = sorted(set(shards.values()))
        if outside := [name for name in names if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name)]:
            raise ValueError(f"{folder / INDEX} names {outside[0]!r}, which is no safetensors file in this folder")
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ValueError(
            f"{folder} has no {missing[0]}; weights are read from safetensors alone, since other formats can run code: "
            "save_pretrained of transformers writes it"
        )
    return [folder / name for name in names]


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safetensors.safe_open(path, framework="pt") as handle:
            yield handle
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no sound safetensors file ({error}); get it anew") from error


Found = Mapping[str, tuple[Any, str]]
"""By the name in the whole model: an open file, and the name in it."""


def _named(family: Family, handles: list[Any]) -> Found:
    found = {
        key: (handle, key)
        for handle in handles
        for key in sorted(handle.keys())
        if not re.search(family.leftovers, key)
    }
    if any(key.startswith(family.prefix) for key in found):
        return found
    return {key if key.startswith("lm_head.") else family.prefix + key: where for key, where in found.items()}


def _elements(handle: Any, key: str) -> int:
    count = 1
    for side in handle.get_slice(key).get_shape():
        count *= side
    return count


def _fill(model: Transformer, family: Family, tensors: Found) -> None:
    """Copy every weight into the model, and make sure that nothing is missing, misshapen, or left over."""
    left = dict(tensors)
    for name, view in _parts(model, family):
        if name not in left:
            raise ValueError(f"the weights lack {name}, which config.json asks for")
        handle, key = left.pop(name)
        view.copy_(_tensor(handle, key, list(view.shape)))
    if model.head is None and "lm_head.weight" in left:
        handle, key = left.pop("lm_head.weight")
        if not torch.equal(_tensor(handle, key, list(model.embed.shape)), model.embed.detach()):
            raise ValueError("lm_head.weight differs from the embedding, but config.json says tie_word_embeddings")
    if left:
        raise ValueError(f"the weights hold {min(left)}, which a {family.name} of this config.json has not")


def _tensor(handle: Any, key: str, shape: list[int]) -> Tensor:
    if (found := list(handle.get_slice(key).get_shape())) != shape:
        raise ValueError(f"{key} has the shape {found}, but config.json asks for {shape}")
    tensor: Tensor = handle.get_tensor(key)
    if not tensor.is_floating_point():
        raise ValueError(
            f"{key} is of type {tensor.dtype}, but weights are floating-point numbers; save it unquantized"
        )
    if not tensor.float().isfinite().all():
        raise ValueError(f"{key} holds numbers that are not finite; get the file anew")
    return tensor.float()
