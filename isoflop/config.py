"""Every choice but the model's own (`isoflop.architecture`): data, optimizer, training, and the run as a whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from isoflop.architecture import ModelConfig as ModelConfig
from isoflop.fields import ADDED, fraction, of_their_types, positive
from isoflop.files import read_json, write_json
from isoflop.places import found, lasting, parse_mix

ScheduleKind = Literal["cosine", "linear", "constant", "wsd", "power"]
OptimizerKind = Literal["adamw", "muon", "sgd"]
Precision = Literal["fp32", "bf16", "autocast"]
Device = Literal["auto", "cpu", "cuda"]
TrackerName = Literal["tensorboard", "wandb"]
Sharding = Literal["none", "fsdp"]
TokenDtype = Literal["int16", "uint16", "int32", "uint32", "int64"]

PASSING: Mapping[str, bool] = {"identity": False}
"""Marks a field that changes where or how often a run writes, not what it computes: left out of the run's id."""


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where a run's tokens come from, and which of them measure it."""

    data: str = field(default="", metadata=PASSING)
    """Token folder made by `isoflop data`, or a raw file of token ids; the folder in which a mixture's lie."""
    mix: str | None = field(default=None, metadata=PASSING)  # data_sha256 knows it
    """Token folders to draw sequences from, with their weights: web=0.7,code=0.3."""
    dtype: TokenDtype = "int32"
    """Type of a raw file's ids, little-endian (a token folder says its own)."""
    val: str | None = field(default=None, metadata=PASSING)
    """Raw file of validation ids; None: the last 1 % of a raw training file."""
    end_of_text: int | None = None
    """Id that ends a document in a raw file, so that the hold-out starts with a document."""
    tokenizer_file: str | None = field(default=None, metadata=PASSING)
    """The tokenizer.json of a raw file, which gives its vocabulary and end of text."""
    train_tokens: int | None = field(default=None, metadata=ADDED)
    """Train on so many of the training tokens, evenly spread, over and over where the run is longer; None: on all."""
    val_tokens: int = 262_144
    """Validation tokens of one evaluation, strided over the whole validation file."""

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "val_tokens", "train_tokens")
        parse_mix(self.mix)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    optimizer: OptimizerKind = "adamw"
    """AdamW (arXiv:1711.05101); Muon for the matrices inside blocks and AdamW for the rest, at AdamW's rates
    (arXiv:2502.16982); or SGD with momentum, which needs a rate of its own."""
    lr: float = 5e-3
    """Peak learning rate, at width lr_width where that is given."""
    lr_width: int | None = 64
    """Scale the peak rate as lr·lr_width/d_model, so that one rate serves every width; None: use lr as it is."""
    beta1: float = 0.9
    """Decay of the gradient's running mean."""
    beta2: float = 0.95
    """Decay of the squared gradient's running mean."""
    momentum: float = field(default=0.95, metadata=ADDED)
    """Decay of what muon and sgd sum up of the gradients (arXiv:2502.16982)."""
    eps: float = 1e-8
    """Added to the root of the squared gradient's mean."""
    weight_decay: float = 0.1
    """Decoupled decay of matrices inside blocks, times the learning rate."""
    decay_all: bool = False
    """Decay embeddings, read-out, norms and biases too."""
    grad_clip: float | None = 1.0
    """Longest global gradient norm; None: no clipping."""
    schedule: ScheduleKind = "cosine"
    """Learning rate after the warm-up."""
    warmup_steps: int = 50
    """Shortest linear warm-up, steps (never more than a quarter of the run)."""
    warmup_fraction: float = 0.02
    """Linear warm-up as a fraction of the run; the longer of the two counts."""
    final_lr_fraction: float = 0.0
    """Rate at the last step over the peak rate."""
    decay_fraction: float = 0.2
    """Part of the run in which schedules wsd and power decay to the end (arXiv:2405.18392)."""
    rate_rule: str | None = field(default=None, metadata=PASSING)
    """Where a study took lr and batch_size from, for the record; None: they were given as they are."""
    power: float = field(default=0.51, metadata=ADDED)
    """Rate ∝ step^-power from the end of the warm-up with schedule=power (arXiv:2408.13359, section 4)."""

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "lr", "lr_width", "eps", "grad_clip")
        positive(self, "power")
        fraction(self, "beta1", "beta2", "momentum", "warmup_fraction", "decay_fraction")
        if not 0 <= self.weight_decay < math.inf or self.warmup_steps < 0:
            raise ValueError(
                f"weight_decay={self.weight_decay} and warmup_steps={self.warmup_steps} must not be negative "
                "or infinite"
            )
        if not 0 <= self.final_lr_fraction <= 1:
            raise ValueError(f"final_lr_fraction={self.final_lr_fraction} must lie between 0 and 1")

    @property
    def rule(self) -> str:
        """Where the peak rate comes from, in words."""
        return self.rate_rule or f"lr={self.lr:g}" + (f"·{self.lr_width}/d_model" if self.lr_width else "")

    def peak_lr(self, d_model: int) -> float:
        """Peak learning rate of a model of this width (`ModelConfig.rate_width`)."""
        return self.lr if self.lr_width is None else self.lr * self.lr_width / d_model


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Length, batch and bookkeeping of a run; exactly one of epochs, tokens, flops and steps decides the length."""

    epochs: float | None = None
    """Length in passes over the training tokens."""
    tokens: int | None = None
    """Length in tokens."""
    flops: float | None = None
    """Length in training FLOPs, by the product's own count."""
    steps: int | None = None
    """Length in optimizer steps."""
    batch_size: int = 16
    """Sequences in one optimizer step."""
    grad_accum: int = 1
    """Parts into which a step's batch is cut to save memory."""
    precision: Precision = "fp32"
    """Arithmetic of the matrix products; weights and optimizer stay in fp32. bf16: on a CPU by kernels of our own;
    autocast: by torch's autocast and attention, which is also what bf16 means on a GPU."""
    compile: bool = field(default=False, metadata=ADDED)
    """Run the loss through torch's compiler, by its own attention, bf16 by autocast; without one, say so and go on."""
    seed: int = 0
    """Seed of initial weights, data order and dropout."""
    device: Device = field(default="auto", metadata=PASSING)
    """Where to train; auto: a GPU if there is one."""
    devices: int = field(default=1, metadata=PASSING)
    """Devices that train the run together, each on its part of every batch, by a process of its own (torchrun)."""
    sharding: Sharding = field(default="none", metadata=PASSING)
    """fsdp: each device holds a part of the parameters and of the optimizer's state, for models over one's memory."""
    recompute: bool = field(default=False, metadata=PASSING)
    """Keep no activations inside blocks and compute them again in the backward pass: a third slower, less memory."""
    eval_every: int | None = field(default=None, metadata=PASSING)
    """Steps between evaluations; None: ten in a run."""
    log_every: int | None = field(default=None, metadata=PASSING)
    """Steps between lines of log.jsonl; None: two hundred in a run."""
    checkpoint_every: int | None = field(default=None, metadata=PASSING)
    """Steps between checkpoints; None: every epoch, or five in a run shorter than two epochs."""
    keep_last: int = field(default=2, metadata=PASSING)
    """Checkpoints kept."""
    keep_steps: tuple[int, ...] = field(default=(), metadata=PASSING)
    """Steps whose checkpoints are written and kept besides, for branches that decay from there."""
    trackers: tuple[TrackerName, ...] = field(default=(), metadata=PASSING)
    """Trackers that are shown the log beside log.jsonl: tensorboard (event files), wandb (offline)."""

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "epochs", "tokens", "flops", "steps", "batch_size", "grad_accum", "devices")
        positive(self, "eval_every", "log_every", "checkpoint_every", "keep_last")
        if self.batch_size % self.grad_accum:
            raise ValueError(
                f"batch_size={self.batch_size} does not split into grad_accum={self.grad_accum} equal parts; "
                f"try batch_size={max(1, round(self.batch_size / self.grad_accum)) * self.grad_accum}"
            )
        if self.batch_size % (parts := self.grad_accum * self.devices):
            raise ValueError(
                f"batch_size={self.batch_size} does not split over devices={self.devices} in grad_accum="
                f"{self.grad_accum} equal parts each; try batch_size={max(1, round(self.batch_size / parts)) * parts}, "
                "or fewer devices"
            )

    @property
    def length(self) -> tuple[str, float]:
        """The field that decides the length, and its value.

        Raises:
            ValueError: none or several are given.
        """
        given = {name: getattr(self, name) for name in LENGTHS if getattr(self, name) is not None}
        if len(given) != 1:
            said = " and ".join(f"{name}={value:g}" for name, value in given.items())
            said = f"{said} were given" if said else "nothing was given"
            raise ValueError(f"say how long a run is by exactly one of {', '.join(LENGTHS)}; {said}")
        return next(iter(given.items()))


LENGTHS = ("epochs", "tokens", "flops", "steps")


@dataclass(frozen=True, kw_only=True)
class Trunk:
    """The run that a branch shares its first steps with, and takes them over from."""

    run: str
    """Its name."""
    step: int
    """Steps taken over."""
    folder: str = field(metadata=PASSING)
    """Its folder, from the branch's."""

    def __post_init__(self) -> None:
        of_their_types(self)
        positive(self, "step")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run, whole."""

    model: ModelConfig
    data: DataConfig
    optim: OptimConfig
    train: TrainConfig
    data_sha256: str
    """Fingerprint of the token files and tokenizer, so that the same run on other text is another run."""
    trunk: Trunk | None = None
    """Where the first steps come from; None: they are trained here."""

    @property
    def first_step(self) -> int:
        """Steps that another run has done already."""
        return 0 if self.trunk is None else self.trunk.step

    @cached_property
    def id(self) -> str:
        """Name of the run's folder: width, depth, and ten digits of the hash of everything that decides its result."""
        known = {part: _hashed(getattr(self, part)) for part in PARTS} | {"data_sha256": self.data_sha256}
        known |= {} if self.trunk is None else {"trunk": _identity(self.trunk)}
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()
        return f"d{self.model.d_model}-l{self.model.num_layers}-{digest[:10]}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for config.json."""
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RunConfig:
        """Read what `to_dict` wrote.

        Raises:
            ValueError: a field is missing or unknown.
        """
        try:
            parts = {name: part_from(part, value[name]) for name, part in PARTS.items()}
            trunk = value.get("trunk")
            return cls(**parts, data_sha256=value["data_sha256"], trunk=trunk and Trunk(**trunk))
        except (KeyError, TypeError) as error:
            said = f"this is not a run's configuration ({error}); was it written by another version?"
            raise ValueError(said) from error

    def differences(self, other: RunConfig) -> list[str]:
        """Fields that decide the result and differ, as `name=mine (other's)`."""
        out = [
            f"{name}={mine!r} (there {theirs!r})"
            for part in PARTS
            for (name, mine), theirs in zip(
                _identity(getattr(self, part)).items(), _identity(getattr(other, part)).values(), strict=True
            )
            if mine != theirs
        ]
        if self.data_sha256 != other.data_sha256:
            out.append(f"data_sha256={self.data_sha256[:10]} (there {other.data_sha256[:10]})")
        if (self.trunk and _identity(self.trunk)) != (other.trunk and _identity(other.trunk)):
            out.append(f"trunk={self.trunk} (there {other.trunk})")
        return out


PARTS: Mapping[str, Any] = {"model": ModelConfig, "data": DataConfig, "optim": OptimConfig, "train": TrainConfig}


def part_from(part: Any, values: Mapping[str, Any]) -> Any:
    """Build a part of a configuration from what JSON holds of it, where a tuple is a list."""
    return part(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _identity(part: Any) -> dict[str, Any]:
    return {f.name: getattr(part, f.name) for f in fields(part) if f.metadata.get("identity", True)}


_HASHED = "_hashed"


def _hashed(part: Any) -> dict[str, Any]:
    """What of a part decides a run's id, kept with the part: thousands of a study's runs share a few."""
    if _HASHED in (kept := vars(part)):
        return dict(kept[_HASHED])
    unchanged = {f.name for f in fields(part) if f.metadata.get("added") and getattr(part, f.name) == f.default}
    kept[_HASHED] = {name: value for name, value in _identity(part).items() if name not in unchanged}
    return dict(kept[_HASHED])


def write_run(config: RunConfig, out: Path) -> Path:
    """Make the run's folder `out/<id>` with its config.json, or find it, to go on as `spread_run` lets it; return it.

    Raises:
        ValueError: the folder holds another run.
    """
    folder = out / config.id
    if (folder / "config.json").exists():
        if differences := config.differences(read_run(folder)):
            raise ValueError(f"{folder} holds another run: {', '.join(differences)}; choose another --out")
        spread_run(folder, config.train)
        return folder
    write_json(folder / "config.json", lasting(config.to_dict(), folder))
    return folder


SPREAD = ("devices", "sharding", "recompute")
"""Fields of a TrainConfig by which a run may go on elsewhere: who holds what, and what is computed twice."""


def spread_run(folder: Path, train: TrainConfig) -> None:
    """Let a run go on by other choices of `SPREAD`, and no others.

    Raises:
        ValueError: the folder holds no run.
    """
    config = read_run(folder)
    chosen = replace(config.train, **{name: getattr(train, name) for name in SPREAD})
    if chosen != config.train:
        write_json(folder / "config.json", lasting(replace(config, train=chosen).to_dict(), folder))


def read_run(folder: Path) -> RunConfig:
    """Read the configuration of a run folder.

    Raises:
        ValueError: the folder holds no run.
    """
    if not (folder / "config.json").exists():
        study = "it is a study, whose runs lie in its folder runs/; " if (folder / "study.json").exists() else ""
        raise ValueError(f"{folder} holds no run (no config.json); {study}`isoflop train --data T` starts one")
    return RunConfig.from_dict(found(read_json(folder / "config.json"), folder))
