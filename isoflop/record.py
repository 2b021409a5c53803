"""What runs measured: the only bridge between those who train and those who fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isoflop.config import PARTS, part_from
from isoflop.fields import of_their_types
from isoflop.files import read_json, write_json

Floats = NDArray[np.float64]
ParamConvention = Literal["compute", "body", "body+head", "total", "given"]
SYMBOLS: Mapping[str, str] = {
    "N": "params",
    "D": "tokens",
    "C": "flops",
    "L": "loss",
    "U": "unique_tokens",
    "M": "tokens per parameter",
}
"""The papers' letters, and the fields that they stand for; M is D/N."""
LEAST, MOST = 1e-9, 1e40
"""Beyond these a number is a slip of the pen, and its powers no longer fit into a double."""
NUMBERS = ("seconds", "tokens_per_second", "lr", "steps", "seed", "noise_scale")
"""What of the measured is reckoned with, where it is there."""


def of_a_run(named: str, value: float) -> None:
    """Check a number of parameters, tokens or FLOPs that somebody asks about.

    Args:
        named: What is wrong, such as `--flops 0`.
        value: The number.

    Raises:
        ValueError: no run has it.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{named} must be a positive, finite number")
    if not LEAST < value < MOST:
        raise ValueError(f"{named} is of no run; give a number between {LEAST:g} and {MOST:g}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """One training run as measured."""

    id: str
    """Name of the run: its folder, or its row in a table."""
    params: Mapping[str, float]
    """N by convention (`isoflop.flops.params_by_convention`); a table from outside has `given` alone."""
    tokens: float
    """D, training tokens seen, repeats included."""
    flops: float
    """C, training FLOPs by the product's own count, as the table says, or else 6·N·D."""
    loss: float | None
    """L, final validation loss, nats per token; None where the run has none."""
    status: Literal["complete", "diverged", "failed"] = "complete"
    """Only complete runs are fitted."""
    budget: float | None = None
    """FLOPs that the run was asked to spend, where a budget decided its length."""
    group: str | None = None
    """Runs that share a trunk, and so an error, share a group."""
    unique_tokens: float | None = None
    """U, different tokens among those seen; None where nobody counted."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What else was measured: seconds, train_loss, bits_per_byte, perplexity, tokens_per_second, …"""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The run's configuration, where it is one of ours."""

    def write(self, path: Path) -> None:
        """Write as JSON, atomically."""
        write_json(path, asdict(self))

    @classmethod
    def read(cls, path: Path) -> Record:
        """Read what `write` wrote.

        Raises:
            ValueError: the file is no record.
        """
        return cls.of(read_json(path), str(path))

    @classmethod
    def of(cls, value: Any, where: str) -> Record:
        """Take a record from its plain values; `where` names their place.

        Raises:
            ValueError: they are no record.
        """
        names = {f.name for f in fields(cls)}
        if not isinstance(value, dict) or not {"id", "params", "tokens", "flops", "loss"} <= set(value) <= names:
            raise ValueError(f"{where} is not a record of a run; delete it and repeat the run")
        record = cls(**value)
        try:
            of_their_types(record)
            _numbers(record.measured)
            config = _whole(record.config)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}: {error}; delete it and repeat the run") from None
        if record.status == "complete" and not record.params:
            raise ValueError(f"{where}: params={{}} says nothing of the size of the model; repeat the run")
        return record if config is record.config else replace(record, config=config)


def _numbers(measured: Mapping[str, Any]) -> None:
    for name in NUMBERS:
        value = measured.get(name)
        if value is not None and (
            isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MOST
        ):
            raise ValueError(f"measured {name}={value!r} must be a number")


def _whole(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Check the parts of a run's configuration; fields that an older run lacks get their defaults."""
    whole = dict(config)
    for name, kind in PARTS.items():
        if name in config:
            if not isinstance(config[name], Mapping):
                raise ValueError(f"config {name}={config[name]!r} must be named values")
            part = part_from(kind, config[name])
            whole[name] = {f.name: getattr(part, f.name) for f in fields(kind)} | dict(config[name])
    return config if whole == config else whole


@dataclass(frozen=True)
class Records:
    """The runs of one series that may share a law, with N under one convention."""

    runs: tuple[Record, ...]
    source: str
    """Where they come from, for the eye: a path."""
    convention: ParamConvention = "compute"
    """How N is counted."""
    left_out: tuple[str, ...] = ()
    """Runs that are not fitted, each with its reason."""
    notes: tuple[str, ...] = ()
    """How the source was read where that was guessed, and what is odd about it."""

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.runs)

    def _column(self, value: Callable[[Record], float | None]) -> Floats:
        return np.array([value(run) for run in self.runs], dtype=np.float64)

    @cached_property
    def N(self) -> Floats:  # noqa: N802 - the papers' letter
        """Parameters under `convention`."""
        return self._column(lambda run: run.params[self.convention])

    @cached_property
    def D(self) -> Floats:  # noqa: N802
        """Training tokens."""
        return self._column(lambda run: run.tokens)

    @cached_property
    def C(self) -> Floats:  # noqa: N802
        """Training FLOPs."""
        return self._column(lambda run: run.flops)

    @cached_property
    def L(self) -> Floats:  # noqa: N802
        """Final loss, nats per token."""
        return self._column(lambda run: run.loss)

    @cached_property
    def M(self) -> Floats:  # noqa: N802
        """Tokens per parameter."""
        return self.D / self.N

    @cached_property
    def U(self) -> Floats:  # noqa: N802
        """Unique training tokens.

        Raises:
            ValueError: the source does not say them.
        """
        if unknown := [run.id for run in self.runs if run.unique_tokens is None]:
            raise ValueError(
                f"unique_tokens of run {unknown[0]} of {self.source} are not known; add a column unique_tokens, or fit "
                "a law without repeated data"
            )
        return self._column(lambda run: run.unique_tokens)

    def take(self, index: Iterable[Any] | Floats) -> Records:
        """Return the runs at these positions, or those where a mask is true."""
        where = np.asarray(index)
        chosen = np.arange(len(self.runs))[where if len(where) else where.astype(int)]
        return replace(self, runs=tuple(self.runs[i] for i in chosen))

    def under(self, convention: ParamConvention) -> Records:
        """Return the same runs with N counted otherwise.

        Raises:
            ValueError: the source does not say N under this convention.
        """
        missing = [run.id for run in self.runs if convention not in run.params]
        if missing:
            known = ", ".join(self.runs[0].params)
            raise ValueError(
                f"params={convention!r} is not known for run {missing[0]} of {self.source}; it has {known}"
            )
        return replace(self, convention=convention)
