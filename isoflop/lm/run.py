"""A run as the training loop holds it: opened from its folder, resumed from its newest checkpoint, saved into one."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isoflop.config import RunConfig, read_run
from isoflop.data.tokens import BatchStream, Tokens, open_configured, open_stream
from isoflop.flops import train_steps
from isoflop.lm import checkpoint as checkpoints
from isoflop.lm.journal import note
from isoflop.lm.lease import Lease
from isoflop.lm.model import Transformer
from isoflop.lm.optim import build

log = logging.getLogger(__name__)


@dataclass
class State:
    """What the loop carries from step to step besides tensors; a checkpoint keeps it whole."""

    seconds: float = 0.0
    """Spent in steps, evaluations left out."""
    first_loss: float = math.nan
    loss_sum: float = 0.0
    loss_steps: int = 0
    train_loss: float | None = None
    """Mean over the last stretch between log lines."""
    log_bytes: int = 0
    """Length of log.jsonl, so that a resumed run cuts off what came after its checkpoint."""
    memory_bytes: int = 0
    threads: list[int] = field(default_factory=list)
    """Thread counts that the run was trained with; more than one: not bit-exact."""


@dataclass
class Run:
    """A run being trained."""

    folder: Path
    lease: Lease
    config: RunConfig
    tokens: Tokens
    stream: BatchStream
    steps: int
    model: Transformer
    optimizer: torch.optim.Optimizer
    grads: list[Tensor]
    state: State
    device: torch.device


def open_data(config: RunConfig) -> Tokens:
    """Open a run's tokens and make sure that they are the ones that it was made for.

    Raises:
        ValueError: other tokens, or another tokenizer, or the run was imported and has none.
    """
    if not config.data.data:
        raise ValueError("this model was imported and has no tokens of its own; name some with --data")
    tokens = open_configured(config.data, vocab_size=config.model.vocab_size)
    if tokens.fingerprint != config.data_sha256:
        raise ValueError(
            f"{config.data.data} holds other tokens ({tokens.fingerprint[:10]}) than the run was made for "
            f"({config.data_sha256[:10]}); bring the old ones back, or start a run of its own"
        )
    return tokens


def load_model(folder: Path) -> tuple[RunConfig, Transformer]:
    """Return a run's configuration and its model as the newest sound checkpoint has it, in evaluation mode.

    Raises:
        ValueError: the folder holds no run, or no checkpoint yet.
    """
    config = read_run(folder)
    model = Transformer(config.model)
    model.load_state_dict(checkpoints.load_required(folder).tensors["model"])
    return config, model.eval()


def start(folder: Path, config: RunConfig, lease: Lease) -> tuple[Run, int]:
    """Open a run's tokens, build its model and optimizer, go to its newest checkpoint; return it and the steps done."""
    tokens = open_data(config)
    stream = open_stream(config, tokens)
    device = torch.device(_device(config.train.device))
    torch.manual_seed(config.train.seed)
    model = Transformer(config.model, seed=config.train.seed).to(device).train()
    own = config.train.precision == "bf16" and device.type == "cpu"
    optimizer, flats = build(model, config.optim, shape=config.model, fused=own)
    steps = train_steps(config.model, config.train, train_tokens=tokens.train_tokens)
    run = Run(
        folder=folder,
        lease=lease,
        config=config,
        tokens=tokens,
        stream=stream,
        steps=steps,
        model=model,
        optimizer=optimizer,
        grads=[flat.grads for flat in flats],
        state=State(),
        device=device,
    )
    return run, _resume(run)


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no GPU here; use device=cpu or device=auto")
    return wanted


def _resume(run: Run) -> int:
    saved = checkpoints.load_newest(run.folder)
    threads = torch.get_num_threads()
    if saved is None:
        run.state.threads = [threads]
        (run.folder / "log.jsonl").write_bytes(b"")
        return 0
    with torch.no_grad():
        for name, weight in run.model.named_parameters():
            weight.copy_(saved.tensors["model"][name])
    for index, (param, _) in enumerate(_optimized(run.optimizer)):
        moments = {name: saved.tensors["optimizer"][f"{index}.{name}"].to(run.device) for name in ("mean", "square")}
        run.optimizer.state[param] = {"step": saved.step, **moments}
    torch.set_rng_state(saved.tensors["random"]["cpu"])
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(saved.tensors["random"]["cuda"])
    run.state = State(**saved.state)
    if threads not in run.state.threads:
        log.warning("%s goes on with %d threads, not %s: no longer bit-exact", run.folder, threads, run.state.threads)
        run.state.threads.append(threads)
    with (run.folder / "log.jsonl").open("r+b") as file:
        file.truncate(run.state.log_bytes)
    return saved.step


def _optimized(optimizer: torch.optim.Optimizer) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    for group in optimizer.param_groups:
        for param in group["params"]:
            yield param, optimizer.state.get(param, {})


def save(run: Run, step: int) -> None:
    """Publish a checkpoint of everything that the steps after this one depend on."""
    moments = {
        f"{index}.{name}": state[name]
        for index, (_, state) in enumerate(_optimized(run.optimizer))
        for name in ("mean", "square")
    }
    random = {"cpu": torch.get_rng_state()}
    if run.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state()
    model = dict(run.model.named_parameters())
    tensors: Mapping[str, Mapping[str, Tensor]] = {"model": model, "optimizer": moments, "random": random}
    saved = checkpoints.Checkpoint(step=step, tensors=tensors, state=asdict(run.state))
    run.lease.check()
    checkpoints.save(run.folder, saved, keep_last=run.config.train.keep_last)
    note(run.folder, saved=step)
