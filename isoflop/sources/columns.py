"""Which column of a table means what: said by the reader of the table, or guessed from usual names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from isoflop.record import SYMBOLS, ParamConvention
from isoflop.sources.cells import Row

SHORTEST, LONGEST = 0.1, 1000.0
"""Bytes of a token: one of a byte, less where bytes are escaped; more than a page is none."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What is said about a table beyond what its names tell."""

    params_column: str | None = None
    """Column of N; None: guessed from usual names, as for the others."""
    tokens_column: str | None = None
    """Of D, training tokens."""
    flops_column: str | None = None
    """Of C, training FLOPs."""
    loss_column: str | None = None
    """Of the loss, nats per token."""
    budget_column: str | None = None
    """Of the FLOPs that a run was to spend (approach 2)."""
    group_column: str | None = None
    """Of the trunk that a run shares with others."""
    series_column: str | None = None
    """Of the series, whose runs share a law."""
    unique_tokens_column: str | None = None
    """Of U, different tokens among those seen."""
    bytes_per_token: float | None = None
    """Turns a loss in bits per byte into nats per token."""

    def __post_init__(self) -> None:
        width = self.bytes_per_token
        if width is not None and not SHORTEST <= width <= LONGEST:
            raise ValueError(f"--bytes-per-token {width:g} is of no tokenizer; it is a number such as 4.2")

    @property
    def given(self) -> dict[str, str]:
        """Columns by meaning, those that are named."""
        named = {f.name.removesuffix("_column"): getattr(self, f.name) for f in fields(self) if f.name in NAMED}
        return {meaning: name for meaning, name in named.items() if name is not None}

    @property
    def flags(self) -> str:
        """The flags that were given, for a sentence."""
        return ", ".join(f"--{f.name.replace('_', '-')}" for f in fields(self) if getattr(self, f.name) is not None)


NAMED = frozenset(f.name for f in fields(Columns) if f.name.endswith("_column"))
GUESSED = Columns()


def find(rows: Sequence[Row], path: Path, said: Columns) -> dict[str, str]:
    """Find the column of each meaning; a column serves one meaning, but a compute_budget is both flops and budget.

    Raises:
        ValueError: a column that is named is not there, or the loss or two of N, D and C are missing.
    """
    names = dict.fromkeys(str(name) for row in rows for name in row if name is not None)
    spelt: dict[str, list[str]] = {}
    for name in names:
        spelt.setdefault(re.sub(r"[\s/.-]+", "_", name.strip().lower()), []).append(name)
    present = {alias: written[0] for alias, written in spelt.items()}
    found = {
        meaning: next(present[alias] for alias in aliases if alias in present)
        for meaning, aliases in ALIASES.items()
        if not present.keys().isdisjoint(aliases)
    }
    for meaning, name in found.items():
        alike = next(written for written in spelt.values() if name in written)
        if len(alike) > 1 and meaning not in said.given:
            raise ValueError(f"{path} has the columns {' and '.join(alike)} for its {meaning}; rename or remove one")
    stripped = {name.strip(): name for name in names}
    for meaning, name in said.given.items():
        name = stripped.get(name.strip(), name)
        if name not in names:
            raise ValueError(f"{path} has no column {name!r} to be its {meaning}; it has {', '.join(names)}")
        found[meaning] = name
    if "params" not in found and (count := next((count for count in COUNTS if f"params {count}" in found), None)):
        found["params"] = found[f"params {count}"]
    _find_loss(found, path, said)
    sizes = [name for name in ("params", "tokens", "flops") if name not in found]
    missing = ["loss"] if "loss" not in found else sizes if len(sizes) > 1 else []
    if missing:
        other = next((f"; {name} {NO_LOSS[kind]}" for name in names if (kind := _kind(name))), "")
        raise ValueError(
            f"{path} has no column {' or '.join(missing)}; it has {', '.join(present.values())}, "
            "and needs loss and two of params, tokens, flops (name them with --params-column and so on)"
            + (other if missing == ["loss"] else "")
        )
    return found


def _find_loss(found: dict[str, str], path: Path, said: Columns) -> None:
    """Take bits per byte where no other loss is there or where they are named; refuse what is no loss by its name."""
    named = said.given.get("loss")
    if named is not None and (kind := _kind(named)):
        raise ValueError(f"{path}: the column {named!r} {NO_LOSS[kind]}")
    if named is not None and re.search(BITS, named.lower()):
        found["bits_per_byte"] = named
    if "bits_per_byte" not in found or found.get("loss", found["bits_per_byte"]) != found["bits_per_byte"]:
        return
    if said.bytes_per_token is None and "bytes_per_token" not in found:
        raise ValueError(
            f"{path} has its loss in bits per byte ({found['bits_per_byte']}); give --bytes-per-token, or a column "
            "bytes_per_token, to turn it into nats per token"
        )
    found["loss"] = found["bits_per_byte"]


def _kind(name: str) -> str | None:
    """Return the pattern of NO_LOSS that a column's name matches."""
    low = name.lower()
    return None if "loss" in low else next((pattern for pattern in NO_LOSS if re.search(pattern, low)), None)


def reading(columns: Mapping[str, str]) -> str | None:
    """Say which column was taken for what; None where all have this product's own names, so nothing was guessed."""
    main = {letter: meaning for letter, meaning in SYMBOLS.items() if letter in "NDCL"}
    taken = {letter: columns.get(meaning) for letter, meaning in main.items()}
    if all(name is None or name.lower() in (letter.lower(), main[letter]) for letter, name in taken.items()):
        return None
    missing = {"N": "N = C/6D", "D": "D = C/6N", "C": "C = 6ND"}
    parts = [missing[letter] if name is None else f"{letter} from column {name}" for letter, name in taken.items()]
    return ", ".join(parts)


COUNTS: tuple[ParamConvention, ...] = ("total", "body")
"""Counts of N that may have a column of their own, the one used first where none is called params."""
BITS = r"bpb|bits.per.byte"
"""A column of this name holds bits per byte."""
NO_LOSS: Mapping[str, str] = {
    r"ppl|perplexity": "seems to be a perplexity; its logarithm is the loss in nats per token: give a column of that",
    r"(^|_|\W)acc($|_|\W)|accuracy|score|error_rate": "seems to be a score, which no law here describes; give a "
    "column of the loss in nats per token",
}
"""Names of what people put beside the loss, and what to do with it."""
ALIASES: Mapping[str, tuple[str, ...]] = {
    "params": (
        "params",
        "n",
        "parameters",
        "n_params",
        "num_params",
        "num_scaling_params",
        "model_size",
        "model_params",
        "nparams",
        "size",
    ),
    "tokens": (
        "tokens",
        "d",
        "n_tokens",
        "num_tokens",
        "tokens_trained",
        "tokens_seen",
        "training_tokens",
        "train_tokens",
        "dataset_size",
    ),
    "flops": (
        "flops",
        "c",
        "compute",
        "training_flop",
        "training_flops",
        "train_flops",
        "compute_budget",
        "flops_budget",
    ),
    # a table of a training log may have both, and forecasts are of the validation loss
    "loss": ("val_loss", "validation_loss", "eval_loss", "final_loss", "loss", "l", "test_loss"),
    "budget": ("budget", "compute_budget", "flops_budget"),
    "group": ("group", "trunk"),
    "unique_tokens": ("unique_tokens", "u", "unique", "data_size"),
    "epochs": ("epochs", "num_epochs", "n_epochs"),
    "is_final": ("is_final", "final"),
    "status": ("status", "state"),
    "seed": ("seed",),
    "lr": ("lr", "learning_rate", "peak_lr", "max_lr"),
    "steps": ("steps", "num_steps", "n_steps", "train_steps"),
    "seconds": ("seconds", "train_seconds"),
    "convention": ("param_convention", "params_convention", "convention"),
    "params total": ("params_total", "total_params", "num_total_params"),
    "params body": ("params_transformer", "params_no_embed", "params_non_embedding", "non_embedding_params"),
    "bits_per_byte": ("val_bpb", "bpb", "bits_per_byte", "val_bits_per_byte"),
    "bytes_per_token": ("bytes_per_token",),
    "series": ("series",),
    "id": ("id", "run_id", "run", "name"),
}
"""Names of columns by meaning, preferred first; letter case, spaces and hyphens do not matter."""
