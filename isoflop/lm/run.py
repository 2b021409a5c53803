"""A run as the training loop holds it: opened from its folder, resumed from its newest checkpoint, saved into one."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from isoflop.config import RunConfig, Trunk, read_run
from isoflop.data.tokens import BatchStream, Tokens, open_configured, open_stream
from isoflop.flops import train_steps
from isoflop.lm import checkpoint as checkpoints
from isoflop.lm.ahead import Ahead
from isoflop.lm.compiled import compile_loss
from isoflop.lm.journal import note
from isoflop.lm.lease import Lease
from isoflop.lm.model import Transformer
from isoflop.lm.optim import SGD_UNBOUND, bounded_sgd
from isoflop.lm.ranks import Ranks
from isoflop.lm.weights import Weights, hold_weights

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
    """Thread counts of each process that the run was trained with; more than one: not bit-exact."""
    devices: list[str] = field(default_factory=list)
    """Number and kind of the devices that the run was trained on; more than one entry: not bit-exact."""


@dataclass
class Run:
    """A run being trained."""

    folder: Path
    config: RunConfig
    tokens: Tokens
    stream: BatchStream
    steps: int
    model: Transformer
    weights: Weights
    """Parameters, gradients and moments, and who of the ranks holds what."""
    state: State
    device: torch.device
    ranks: Ranks
    ahead: Ahead | None = None
    """Who makes the next batch while this one is computed; None: each is cut when it is needed."""
    compiled: bool = False
    """Whether the loss goes through torch's compiler."""
    done: int = 0
    """Steps done when it was opened."""
    lease: Lease | None = None
    """The right to write into the folder; None in a rehearsal, and on all ranks but the first: they write nothing."""

    def cut(self, step: int) -> tuple[Tensor, Tensor]:
        """Return this rank's part of a step's batch, on the CPU."""
        inputs, targets = self.stream.batch(step, part=self.ranks.rank, parts=self.ranks.world)
        return torch.from_numpy(inputs), torch.from_numpy(targets)


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


def start(folder: Path, config: RunConfig, lease: Lease | None, ranks: Ranks) -> Run:
    """Open a run, go to its newest checkpoint or to the one of its trunk, and cut its log back to it.

    Raises:
        ValueError: the ranks do not see the same newest checkpoint.
    """
    run = open_run(folder, config, ranks)
    run.lease, run.done = lease, ranks.agreed(lambda: _resume(run))
    if len(found := {int(step) for (step,) in ranks.gather(run.done)}) > 1:
        raise ValueError(
            f"the processes found checkpoints of different steps in {folder} ({', '.join(map(str, sorted(found)))}); "
            "it must lie on a disk that all of them see alike"
        )
    return run


def open_run(folder: Path, config: RunConfig, ranks: Ranks = Ranks()) -> Run:  # noqa: B008 - frozen
    """Open a run's tokens, and build its model and optimizer as they are before the first step; writes nothing.

    Raises:
        ValueError: other tokens, no such device, or a batch that the ranks cannot share.
    """
    tokens, stream, device = ranks.agreed(lambda: _opened(config, ranks))
    _seed(config.train.seed, ranks)
    model = Transformer(config.model, seed=config.train.seed).train()
    model.recompute = config.train.recompute
    weights = hold_weights(
        model,
        config.optim,
        ranks,
        fused=device.type == "cuda" or config.train.precision == "bf16",
        device=device,
        sharding=config.train.sharding,
    )
    compiled = config.train.compile and _compiled(model, config, weights, device)
    steps = train_steps(config.model, config.train, train_tokens=tokens.train_tokens)
    spread = f"{ranks.world} {device.type}{' fsdp' if weights.sharded else ''}{' compiled' if compiled else ''}"
    run = Run(
        folder=folder,
        config=config,
        tokens=tokens,
        stream=stream,
        steps=steps,
        model=model,
        weights=weights,
        state=State(threads=[torch.get_num_threads()], devices=[spread]),
        device=device,
        ranks=ranks,
        compiled=compiled,
    )
    run.ahead = Ahead(run.cut) if device.type == "cuda" else None
    return run


def _compiled(model: Transformer, config: RunConfig, weights: Weights, device: torch.device) -> bool:
    """Compile the loss for the part of a batch that a rank takes at once; say whether all ranks could."""
    train = config.train
    rows = train.batch_size // (train.grad_accum * weights.ranks.world)
    here = compile_loss(model, rows=rows, device=device, precision=train.precision)
    weights.zero()
    if weights.ranks.any(not here):  # all of them, or none
        model.__dict__.pop("loss", None)
        return False
    return True


def _opened(config: RunConfig, ranks: Ranks) -> tuple[Tokens, BatchStream, torch.device]:
    tokens, train = open_data(config), config.train
    parts = ranks.world * train.grad_accum
    if train.batch_size % parts:
        raise ValueError(
            f"batch_size={train.batch_size} does not split over {ranks.world} devices in grad_accum={train.grad_accum} "
            f"equal parts each; try batch_size={max(1, round(train.batch_size / parts)) * parts}, or fewer devices"
        )
    sharded = train.sharding == "fsdp"
    if sharded and train.compile and ranks.world > 1:
        raise ValueError("compile=True takes whole models, and sharding=fsdp leaves them in parts; leave one out")
    if sharded and train.devices == ranks.world == 1:
        log.warning("sharding=fsdp spreads nothing over one device; give --devices N, or leave it out")
    if bounded_sgd(config.optim) and config.model.parametrization != "standard":
        log.warning("%s", SGD_UNBOUND)
    return tokens, open_stream(config, tokens), _device(train.device, ranks)


def _device(wanted: str, ranks: Ranks) -> torch.device:
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ValueError("device=cuda, but torch finds no GPU here; use device=cpu or device=auto")
    if ranks.world == 1:
        return torch.device("cuda")
    if ranks.local >= torch.cuda.device_count():
        raise ValueError(
            f"process {ranks.local} of this machine has no GPU of its own: it sees {torch.cuda.device_count()}; start "
            "one process a GPU, or use device=cpu"
        )
    torch.cuda.set_device(ranks.local)
    return torch.device("cuda", ranks.local)


def _seed(seed: int, ranks: Ranks, step: int = 0) -> None:
    """Seed dropout: a generator of its own for each rank, and anew where ranks join a run that had fewer."""
    mixed = np.random.SeedSequence([seed, ranks.rank, step]).generate_state(1, np.uint64)
    torch.manual_seed(int(mixed[0]) if ranks.rank else seed)


def _resume(run: Run) -> int:
    saved = checkpoints.load_newest(run.folder)
    log_file = run.folder / "log.jsonl"
    if saved is None:
        if run.ranks.first:
            log_file.write_bytes(b"")
        if run.config.trunk is None:
            return 0
        saved = _of_trunk(run.folder, run.config.trunk)
    _restore(run, saved)
    if run.ranks.first:
        with log_file.open("r+b") as file:
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
    kept = {"first_loss", "grad_signal", "grad_noise", "threads", "devices"}
    return replace(saved, state={name: value for name, value in saved.state.items() if name in kept})


def _restore(run: Run, saved: checkpoints.Checkpoint) -> None:
    """Put a checkpoint's parameters, optimizer state, generators and loop state into a run."""
    run.weights.restore(saved.tensors["model"], saved.tensors["optimizer"], step=saved.step)
    _restore_random(run, saved)
    (threads,), (spread,) = run.state.threads, run.state.devices
    run.state = State(**saved.state)
    if not run.state.devices:  # of a version that knew one process
        run.state.devices.append(f"1 {run.device.type}")
    if threads not in run.state.threads:
        _say_inexact(run, f"{threads} threads, not {run.state.threads}")
        run.state.threads.append(threads)
    if spread not in run.state.devices:
        _say_inexact(run, f"{spread}, not {', '.join(run.state.devices)}")
        run.state.devices.append(spread)


def _say_inexact(run: Run, what: str) -> None:
    if run.ranks.first:
        log.warning("%s goes on with %s: no longer bit-exact", run.folder, what)


def _random_name(device: str, rank: int) -> str:
    return f"{device}.{rank}" if rank else device


def _restore_random(run: Run, saved: checkpoints.Checkpoint) -> None:
    random, rank = saved.tensors["random"], run.ranks.rank
    if rank and _random_name("cpu", rank) not in random:
        return _seed(run.config.train.seed, run.ranks, saved.step)
    torch.set_rng_state(random[_random_name("cpu", rank)])
    if run.device.type == "cuda" and (name := _random_name("cuda", rank)) in random:
        torch.cuda.set_rng_state(random[name])


def snapshot(run: Run, step: int) -> checkpoints.Checkpoint:
    """Everything that the steps after this one depend on; all ranks must ask for it, since each adds its part."""
    mine = {"cpu": torch.get_rng_state()}
    if run.device.type == "cuda":
        mine["cuda"] = torch.cuda.get_rng_state()
    random = {
        _random_name(device, rank): state
        for device, own in mine.items()
        for rank, state in enumerate(run.ranks.tensors(own))
    }
    model, moments = run.weights.tensors()
    tensors: Mapping[str, Mapping[str, Tensor]] = {"model": model, "optimizer": moments, "random": random}
    return checkpoints.Checkpoint(step=step, tensors=tensors, state=asdict(run.state))


def save(run: Run, step: int) -> None:
    """Publish a checkpoint, if the run is still ours; the first rank writes, the others give it their part."""
    train, whole = run.config.train, snapshot(run, step)
    if run.ranks.first:
        assert run.lease is not None
        run.lease.check()
        checkpoints.save(run.folder, whole, keep_last=train.keep_last, keep_steps=train.keep_steps)
        note(run.folder, saved=step)
