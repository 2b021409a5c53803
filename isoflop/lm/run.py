"""A run as the training loop holds it: opened from its folder, resumed from its newest checkpoint, saved into one."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from isoflop.config import RunConfig, Trunk, read_run
from isoflop.data.tokens import BatchStream, Tokens, open_configured, open_stream
from isoflop.flops import train_steps
from isoflop.lm import checkpoint as checkpoints
from isoflop.lm.journal import note
from isoflop.lm.lease import Lease
from isoflop.lm.model import Transformer
from isoflop.lm.optim import Optimizer, build

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
    grad_signal: float = 0.0
    """Running average of |G|², the squared length of the gradient without its noise (`isoflop.lm.noise`)."""
    grad_noise: float = 0.0
    """Running average of S, the trace of the gradient's noise, tokens."""
    threads: list[int] = field(default_factory=list)
    """Thread counts that the run was trained with; more than one: not bit-exact."""


@dataclass
class Run:
    """A run being trained."""

    folder: Path
    config: RunConfig
    tokens: Tokens
    stream: BatchStream
    steps: int
    model: Transformer
    optimizer: Optimizer
    grads: list[Tensor]
    state: State
    device: torch.device
    done: int = 0
    """Steps done when it was opened."""
    lease: Lease | None = None
    """The right to write into the folder; None in a rehearsal, which writes nothing."""


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


def start(folder: Path, config: RunConfig, lease: Lease) -> Run:
    """Open a run, go to its newest checkpoint or to the one of its trunk, and cut its log back to it."""
    run = open_run(folder, config)
    run.lease, run.done = lease, _resume(run)
    return run


def open_run(folder: Path, config: RunConfig) -> Run:
    """Open a run's tokens, and build its model and optimizer as they are before the first step; writes nothing."""
    tokens = open_data(config)
    stream = open_stream(config, tokens)
    device = torch.device(_device(config.train.device))
    torch.manual_seed(config.train.seed)
    model = Transformer(config.model, seed=config.train.seed).to(device).train()
    own = config.train.precision == "bf16" and device.type == "cpu"
    optimizer, flats = build(model, config.optim, shape=config.model, fused=own)
    steps = train_steps(config.model, config.train, train_tokens=tokens.train_tokens)
    return Run(
        folder=folder,
        config=config,
        tokens=tokens,
        stream=stream,
        steps=steps,
        model=model,
        optimizer=optimizer,
        grads=[flat.grads for flat in flats],
        state=State(threads=[torch.get_num_threads()]),
        device=device,
    )


def _device(wanted: str) -> str:
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no GPU here; use device=cpu or device=auto")
    return wanted


def _resume(run: Run) -> int:
    saved = checkpoints.load_newest(run.folder)
    if saved is None:
        (run.folder / "log.jsonl").write_bytes(b"")
        if run.config.trunk is None:
            return 0
        saved = _of_trunk(run.folder, run.config.trunk)
    _restore(run, saved)
    with (run.folder / "log.jsonl").open("r+b") as file:
        file.truncate(run.state.log_bytes)
    return saved.step


def _of_trunk(folder: Path, trunk: Trunk) -> checkpoints.Checkpoint:
    """Read the checkpoint that a branch starts from; what the trunk measured of itself stays with it."""
    source = (folder / trunk.folder).resolve()
    found = read_run(source)
    if found.id != trunk.run:
        raise ValueError(
            f"{folder} is a branch of run {trunk.run}, but {source} holds {found.id}; bring the trunk back, or branch "
            "from this one by --from"
        )
    saved = checkpoints.load_step(source, trunk.step)
    kept = {name: saved.state[name] for name in ("first_loss", "grad_signal", "grad_noise", "threads")}
    return replace(saved, state=kept)


def _restore(run: Run, saved: checkpoints.Checkpoint) -> None:
    """Put a checkpoint's parameters, optimizer state, generators and loop state into a run."""
    with torch.no_grad():
        for name, weight in run.model.named_parameters():
            weight.copy_(saved.tensors["model"][name])
    for name, tensor in saved.tensors["optimizer"].items():
        index, _, kind = name.partition(".")
        param = list(_optimized(run.optimizer))[int(index)]
        run.optimizer.state[param]["step"] = saved.step
        run.optimizer.state[param][kind] = tensor.to(run.device)
    torch.set_rng_state(saved.tensors["random"]["cpu"])
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(saved.tensors["random"]["cuda"])
    (threads,) = run.state.threads
    run.state = State(**saved.state)
    if threads not in run.state.threads:
        log.warning("%s goes on with %d threads, not %s: no longer bit-exact", run.folder, threads, run.state.threads)
        run.state.threads.append(threads)


def _optimized(optimizer: Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def snapshot(run: Run, step: int) -> checkpoints.Checkpoint:
    """Everything that the steps after this one depend on."""
    moments = {
        f"{index}.{name}": value
        for index, param in enumerate(_optimized(run.optimizer))
        for name, value in run.optimizer.state[param].items()
        if isinstance(value, Tensor)
    }
    random = {"cpu": torch.get_rng_state()}
    if run.device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state()
    model = dict(run.model.named_parameters())
    tensors: Mapping[str, Mapping[str, Tensor]] = {"model": model, "optimizer": moments, "random": random}
    return checkpoints.Checkpoint(step=step, tensors=tensors, state=asdict(run.state))


def save(run: Run, step: int) -> None:
    """Publish a checkpoint, if the run is still ours."""
    train = run.config.train
    assert run.lease is not None
    run.lease.check()
    checkpoints.save(run.folder, snapshot(run, step), keep_last=train.keep_last, keep_steps=train.keep_steps)
    note(run.folder, saved=step)
