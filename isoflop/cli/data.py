"""`isoflop data`."""

from __future__ import annotations

import json as json_module
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from isoflop.data.readers import Reading


def data(
    sources: Positional[tuple[str, ...]],
    *,
    out: str,
    tokenizer: str = "bytes",
    vocab_size: int | None = None,
    end_of_text: str | None = None,
    val_fraction: float = 0.1,
    seed: int = 0,
    include: str = "*",
    reading: Reading = Reading(),  # noqa: B008 - frozen
    max_bytes: int | None = None,
    deduplicate: bool = True,
    workers: int = 2,
    force: bool = False,
    json: bool = False,
) -> None:
    """Build a token folder from texts: `isoflop data stdlib --out T`, `isoflop data notes/ "web/*.jsonl.gz" --out T`.

    Text, JSON lines, CSV and Parquet are known by their suffix, with gzip, zstd or xz around them. A text file is one
    document, as is each line or row of the others; whole documents are held out for validation. The same command finds
    the folder done; the folder is written whole or not at all.

    Args:
        sources: Files, folders, quoted globs, - (standard input), hf:NAME (a Hugging Face data set; also
            hf:NAME:SUBSET, hf:NAME@SPLIT), or stdlib, the sources of Python's standard library.
        out: Token folder to make.
        tokenizer: `bytes`, `bpe` (trained on the training documents), or the path of a tokenizer.json.
        vocab_size: Ids of a bpe; None: 4096.
        end_of_text: Token of a tokenizer.json that ends a document; None: <|endoftext|> or another usual spelling.
        val_fraction: Part of the documents held out for validation.
        seed: Decides which documents are held out.
        include: Glob that files in a folder must match, such as "*.py".
        reading: How files are read.
        max_bytes: Stop after so much text, such as 1G; None: read all.
        deduplicate: Keep only the first of equal documents.
        workers: Threads that encode.
        force: Replace a token folder of other text or options.
        json: Print what meta.json says, and nothing else.
    """
    from isoflop.data.build import Recipe, build
    from isoflop.data.corpus import Corpus

    if reading.separator is not None:
        reading = replace(reading, separator=reading.separator.replace("\\n", "\n"))
    corpus = Corpus(sources=sources, include=include, max_bytes=max_bytes, deduplicate=deduplicate, **asdict(reading))
    recipe = Recipe(
        corpus=corpus,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        end_of_text=end_of_text,
        val_fraction=val_fraction,
        seed=seed,
    )
    with _bar() as show:
        built = build(recipe, Path(out), workers=workers, force=force, on_progress=show)
    if json:
        print(json_module.dumps({"folder": out, "fresh": built.fresh, **built.meta}, ensure_ascii=False))
    else:
        print(_summary(out, built.meta, fresh=built.fresh))


FEW = 10_000
"""Validation tokens below which it is said: on so many bytes of Python's sources the loss of a model of 74,000
parameters, 1.565 nats per token, had a standard error over documents of 0.049 (`isoflop evaluate`)."""

MUCH = 2.0
"""Times the share that was asked for, from which a validation part is said to be large."""


@contextmanager
def _bar() -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar a stage on a terminal's standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=console, transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        tasks: dict[str, Any] = {}

        def show(doing: str, done: int, total: int) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(f"{doing:<8}", total=total)
            bar.update(tasks[doing], completed=done, total=total)

        yield show


def _summary(out: str, meta: Mapping[str, Any], *, fresh: bool) -> str:
    from rich.filesize import decimal

    lines = [f"{out}: {'built' if fresh else 'already built from this text with these options; nothing was done'}"]
    width = {"uint16": 2, "uint32": 4}[meta["dtype"]]
    for split in ("train", "val"):
        counts = meta[split]
        lines.append(
            f"  {split:<12}{counts['documents']:>9,} documents {decimal(counts['bytes']):>9} of text "
            f"{counts['tokens']:>15,} tokens {decimal(counts['tokens'] * width):>9} of {meta['dtype']}"
        )
    lines.append(f"  {'vocabulary':<12}{meta['vocab_size']:>9,} ids, {meta['bytes_per_token']:.3f} bytes per token")
    fields = ", ".join(f"{name} ({number:,} rows)" for name, number in meta.get("text_fields", {}).items())
    if fields:
        lines.append(f"  {'text from':<12}{fields}")
    held, asked = meta["val"]["tokens"], meta["options"]["val_fraction"]
    part = held / (held + meta["train"]["tokens"])
    if held < FEW:
        lines.append(
            f"  {'note':<12}{held:,} validation tokens ({part:.1%} of all) are few to measure losses on; a "
            f"--val-fraction above {asked:g} takes more"
        )
    elif part > MUCH * asked:
        lines.append(
            f"  {'note':<12}{part:.0%} of all tokens went to validation, for whole documents do and some are long; a "
            f"--val-fraction below {asked:g} leaves more to train on"
        )
    for what in ("skipped", "repaired"):
        if meta[what]:
            said = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in meta[what].items())
            lines.append(f"  {what:<12}{said}")
    for token, number in meta.get("spelled", {}).items():
        lines.append(f"  {'spelled':<12}{number:,} {token} in the text, encoded by its letters")
    if alike := meta.get("val_like_train"):
        lines.append(
            f"  {'note':<12}{alike:,} validation documents stand in training too, but for white space and case"
        )
    lines.append(f"next: isoflop train --data {shlex.quote(out)} --epochs 1")
    return "\n".join(lines)
