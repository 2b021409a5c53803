"""What is done with trained models: `isoflop generate`, `evaluate`, `export`, `import`."""

from __future__ import annotations

import json as json_module
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from isoflop.cli.train import place
from isoflop.config import RunConfig

if TYPE_CHECKING:
    from isoflop.data.tokenizer import Tokenizer
    from isoflop.lm.evaluate import Evaluation


def generate(
    run: Positional[str],
    prompt: Positional[str] = "",
    *,
    max_tokens: int = 200,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Continue a prompt with a trained model: `isoflop generate runs/ID "def main("`.

    Args:
        run: Run folder.
        prompt: Text to go on from; empty: a new document.
        max_tokens: Longest continuation, tokens.
        temperature: Divides the logits; 0 takes the likeliest token each time.
        top_k: Draw from the k likeliest tokens only.
        top_p: Draw from the fewest tokens whose probabilities reach p.
        seed: Seed of the draws.
        json: Print the text as JSON, prompt and continuation apart.
    """
    if prompt and (Path(prompt) / "config.json").exists():
        raise ValueError(f"{run} and {prompt} are two runs, but a text goes on from one; name one, then the prompt")
    import torch

    from isoflop.lm.generate import generate as continue_from
    from isoflop.lm.run import load_model

    config, model = load_model(Path(run))
    tokenizer = _tokenizer(Path(run), config)
    ids = tokenizer.encode(prompt).tolist()
    if not ids and tokenizer.end_of_text is not None:
        ids = [tokenizer.end_of_text]
    new = continue_from(
        model,
        torch.tensor(ids, dtype=torch.long),
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        end_of_text=tokenizer.end_of_text,
        seed=seed,
    )
    text = tokenizer.decode([i for i in new if i != tokenizer.end_of_text])
    if json:
        ended = bool(new) and new[-1] == tokenizer.end_of_text
        print(
            json_module.dumps({"prompt": prompt, "text": text, "tokens": len(new), "ended": ended}, ensure_ascii=False)
        )
        return
    print(prompt + text)


def evaluate(
    run: Positional[str],
    *,
    data: str | None = None,
    separator: str | None = None,
    val_tokens: int | None = None,
    context_length: int | None = None,
    threads: int | None = None,
    json: bool = False,
) -> None:
    """Measure a trained model on its validation tokens, or on any text: `isoflop evaluate runs/ID --data notes/`.

    Text is turned into tokens by the model's own tokenizer and measured whole. The standard errors are over documents.

    Args:
        run: Run folder.
        data: Text (a file, a folder, a quoted glob, or `stdlib`) or a token folder of the same tokenizer, whose
            validation split is measured; None: the run's own tokens.
        separator: Text between the documents of a file, \\n for a line end; None: a file is one document.
        val_tokens: Validation tokens of a token folder to measure on; None: as many as the run's own evaluation.
        context_length: Most tokens that a token is predicted from; None: the model's context.
        threads: CPU threads; None: all cores.
        json: Print the result as JSON.
    """
    place(threads)
    from isoflop.data.tokens import META
    from isoflop.lm.evaluate import evaluate as measure
    from isoflop.lm.run import load_model

    config, model = load_model(Path(run))
    length = context_length or config.model.context_length
    if not 1 <= length <= config.model.context_length:
        raise ValueError(f"context_length={length} must lie between 1 and the model's {config.model.context_length}")
    if data is None or (Path(data) / META).exists():
        if separator is not None:
            raise ValueError(f"separator={separator!r} is for text, but tokens are measured; leave it out")
        stream = _tokens(Path(run), config, data, val_tokens=val_tokens or config.data.val_tokens, length=length)
    else:
        if val_tokens is not None:
            raise ValueError(f"val_tokens={val_tokens} is for a token folder, but {data} is text; leave it out")
        stream = _text(Path(run), config, data, separator=separator, length=length)
    with _bar() as show:
        result = measure(model, **stream, context_length=length, on_progress=show)
    if json:
        derived = {name: getattr(result, name) for name in ("bits_per_byte", "perplexity", "perplexity_error")}
        print(json_module.dumps({**asdict(result), **derived}))
    else:
        print(_said(result))


def _tokens(run: Path, config: RunConfig, data: str | None, *, val_tokens: int, length: int) -> dict[str, Any]:
    """Return the validation tokens of a folder as arguments of the measurement."""
    import numpy as np

    from isoflop.data.tokenizer import run_tokenizer
    from isoflop.data.tokens import open_other, validation_windows
    from isoflop.lm.run import open_data

    known = run_tokenizer(run, config.data)
    tokens = open_data(config) if data is None else open_other(Path(data), tokenizer=known)
    return {
        "ids": tokens.val,
        "windows": validation_windows(tokens.val, context_length=length, val_tokens=val_tokens),
        "bytes_per_token": tokens.bytes_per_token,
        "ends": None if tokens.end_of_text is None else np.flatnonzero(tokens.val == tokens.end_of_text),
    }


def _text(run: Path, config: RunConfig, data: str, *, separator: str | None, length: int) -> dict[str, Any]:
    """Return all tokens of a text as arguments of the measurement."""
    from isoflop.data.corpus import Corpus, Tally
    from isoflop.lm.evaluate import encode, every_window

    # a raw file of ids would be read as text that nobody wrote
    if Path(data).is_file() and b"\0" in Path(data).read_bytes()[:_SNIFFED]:
        raise ValueError(f"{data} holds NUL bytes, so it is no text; name text, or a token folder made by isoflop data")
    cut_at = None if separator is None else separator.replace("\\n", "\n")
    corpus = Corpus(sources=(data,), separator=cut_at, deduplicate=False)
    stream = encode(corpus.documents(Tally()), _tokenizer(run, config))
    return {
        "ids": stream.ids,
        "windows": every_window(stream.ids, context_length=length),
        "bytes_per_token": stream.bytes_per_token,
        "ends": stream.ends,
        "num_bytes": stream.num_bytes,
    }


# git calls a file binary when its first 8,000 bytes hold a NUL (buffer_is_binary in xdiff-interface.c)
_SNIFFED = 8000


def _tokenizer(run: Path, config: RunConfig) -> Tokenizer:
    from isoflop.lm.generate import open_tokenizer

    tokenizer = open_tokenizer(run, config.data)
    if tokenizer is None:
        raise ValueError(
            f"{run} was trained on bare ids, so no text can be turned into them; train with --tokenizer-file next time"
        )
    return tokenizer


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """Show one bar on a terminal's standard error."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("measuring")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _said(result: Evaluation) -> str:
    def number(value: float, error: float | None, digits: int) -> str:
        return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"

    bits = result.bits_per_byte
    parts = [f"{number(result.loss, result.loss_error, 4)} nats per token"]
    parts += [] if bits is None else [f"{number(bits, result.bits_per_byte_error, 4)} bits per byte"]
    parts += [f"perplexity {number(result.perplexity, result.perplexity_error, 3)}"]
    where = f"{result.tokens:,} tokens"
    if result.documents is not None:
        where += f" of {result.documents:,} document{'' if result.documents == 1 else 's'}"
        where += " (±: standard error over documents)" if result.loss_error is not None else ""
    return ", ".join(parts) + f"; {where}"


def export(run: Positional[str], *, out: str, format: Literal["hf"] = "hf", json: bool = False) -> None:
    """Write a trained model so that other programs open it: `isoflop export runs/ID --format hf --out FOLDER`.

    hf is a folder of config.json, model.safetensors and tokenizer files for Hugging Face's transformers, of the Llama
    or the GPT-2 family. A model that is neither, down to its last parameter, is refused.

    Args:
        run: Run folder.
        out: Folder to make.
        format: What to write.
        json: Print what was written as JSON.
    """
    from isoflop.config import read_run
    from isoflop.flops import count_params
    from isoflop.lm.export import export as write

    family, tokenizer = write(Path(run), Path(out))
    params = count_params(read_run(Path(run)).model).total
    if json:
        told = {"folder": out, "format": format, "model_type": family.model_type, "params": params}
        print(json_module.dumps({**told, "tokenizer": tokenizer is not None}))
        return
    without = "" if tokenizer else ", without a tokenizer, since the run was trained on bare ids"
    print(f"{out}: a {family.name} of {params:,} parameters{without}")
    print(f"open: transformers.AutoModelForCausalLM.from_pretrained({out!r})")


def import_model(folder: Positional[str], *, out: str, json: bool = False) -> None:
    """Make a run of a model from elsewhere: `isoflop import FOLDER --out DIR`; generate, evaluate and export read it.

    FOLDER holds config.json, safetensors and tokenizer.json of a Llama or GPT-2, as transformers' save_pretrained
    writes them. Nothing in it is run.

    Args:
        folder: Folder of the model.
        out: Run folder to make.
        json: Print what was made as JSON.
    """
    from isoflop.flops import count_params
    from isoflop.lm.export import import_model as read

    family, config = read(Path(folder), Path(out))
    params = count_params(config.model).total
    if json:
        print(json_module.dumps({"folder": out, "model_type": family.model_type, "params": params}))
        return
    shape = config.model
    print(
        f"{out}: a {family.name} of {params:,} parameters (d_model {shape.d_model}, {shape.num_layers} layers, "
        f"{shape.vocab_size:,} ids, context {shape.context_length:,})"
    )
    print(f"next: isoflop evaluate {shlex.quote(out)} --data TEXT")
