"""The one training loop: `train(run_dir) -> Record`, resumable bit for bit at any step."""

from __future__ import annotations

import hashlib
import json
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from isoflop.config import RunConfig, read_run
from isoflop.data.tokens import validation_windows
from isoflop.flops import FLOPS, compute, params_by_convention
from isoflop.lm import checkpoint as checkpoints
from isoflop.lm import noise
from isoflop.lm.evaluate import BATCH_TOKENS, Evaluation, evaluate
from isoflop.lm.journal import note
from isoflop.lm.kernels import keep_freed_memory
from isoflop.lm.lease import hold
from isoflop.lm.optim import clip_by_global_norm
from isoflop.lm.ranks import joined
from isoflop.lm.run import Run, open_run, save, snapshot, start
from isoflop.lm.schedule import multiplier
from isoflop.lm.tracker import tracking
from isoflop.record import Record

INTERIM_SHARE = 16
"""Evaluations along the way use one in this many of the validation tokens; the final one uses all."""
EXPLODED = 3.0
"""A loss of this many times the first step's has left for good: initial losses lie near ln V, the worst guess."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands, for those who watch."""

    run: str
    step: int
    steps: int
    loss: float
    """Training loss since the last report, nats per token."""
    tokens_per_second: float
    memory_bytes: int
    """Resident memory, or the GPU's peak."""

    @property
    def perplexity(self) -> float:
        """e^loss."""
        return math.exp(min(self.loss, 700))


def train(
    folder: Path,
    *,
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[Run], None] = lambda run: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Record | None:
    """Train the run of a folder to its end, from its newest checkpoint if it has one, and write its record.

    Under torchrun all processes train it together: the first owns it and writes, the others hold their part.

    Args:
        folder: Run folder with config.json (`isoflop.config.write_run`).
        on_progress: Called at every line of the log.
        on_start: Called with the run before its first step, for those who hang hooks on its model.
        should_stop: Asked before every step; when true, the run saves a checkpoint and ends.

    Returns:
        The record, or None where the run was stopped before its end.

    Raises:
        ValueError: the data is not what the run was made for, or another process trains the run.
    """
    with joined() as ranks, ExitStack() as stack:
        if ranks.any((folder / "record.json").exists()):
            return Record.read(folder / "record.json")
        config = ranks.agreed(lambda: read_run(folder))
        keep_freed_memory()
        lease = ranks.agreed(lambda: stack.enter_context(hold(folder)) if ranks.first else None)
        run = start(folder, config, lease, ranks)
        if ranks.first:
            note(folder, began=run.done)
        on_start(run)
        return _loop(run, run.done, on_progress, should_stop)


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What some steps of a run took here."""

    step_seconds: float
    """One optimizer step."""
    evaluation_seconds: float
    """One validation token."""
    save_seconds: float
    """One checkpoint, without the disk."""
    memory_bytes: int
    """Peak of the process, or of the GPU."""


def rehearse(config: RunConfig, *, seconds: float) -> Rehearsal:
    """Take some steps of a run, evaluate a little and pack a checkpoint, all of it in memory; write nothing.

    Args:
        config: The run.
        seconds: Time for steps, of which there are at least three; the first is not timed.
    """
    keep_freed_memory()
    run = open_run(Path(config.id), config)
    times = list[float]()
    while len(times) < 3 or sum(times) < seconds:
        began = time.perf_counter()
        _step(run, len(times), *_batch(run, len(times)))
        times.append(time.perf_counter() - began)
    began = time.perf_counter()
    measured = _evaluate(run, min(config.data.val_tokens, 2 * BATCH_TOKENS))
    evaluated = time.perf_counter()
    digest = hashlib.sha256()
    for _, pieces in checkpoints.packed(snapshot(run, len(times))):
        for piece in pieces:
            digest.update(piece)
    packed = time.perf_counter()
    return Rehearsal(
        step_seconds=statistics.median(times[1:]),
        evaluation_seconds=(evaluated - began) / measured.tokens,
        save_seconds=packed - evaluated,
        memory_bytes=_peak(run.device),
    )


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # bytes there, kibibytes elsewhere: getrusage(2)


def _loop(
    run: Run,
    step: int,
    on_progress: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool],
) -> Record | None:
    train, state = run.config.train, run.state
    eval_every = train.eval_every or max(1, run.steps // 10)
    log_every = train.log_every or max(1, run.steps // 200)
    checkpoint_every = train.checkpoint_every or _default_interval(run)
    with _open_log(run) as write:
        while step < run.steps:
            if run.ranks.any(should_stop()):
                if step > 0:
                    save(run, step)
                return None
            began = time.perf_counter()
            loss, norm, lr = _step(run, step, *_batch(run, step))
            state.seconds += time.perf_counter() - began
            step += 1
            if step == 1:
                state.first_loss = loss
            if reason := _divergence(loss, norm, state.first_loss):
                write({"step": step, "diverged": reason})
                return _finish(run, step, None, reason)
            state.loss_sum, state.loss_steps = state.loss_sum + loss, state.loss_steps + 1
            if step % log_every == 0 or step == run.steps:
                _report(run, step, lr, norm, write, on_progress)
            if step % eval_every == 0 and step < run.steps:
                write(_evaluation_line(step, _evaluate(run, run.config.data.val_tokens // INTERIM_SHARE)))
            if (step % checkpoint_every == 0 or step in train.keep_steps) and step < run.steps:
                save(run, step)
        final = _evaluate(run, run.config.data.val_tokens)
        write(_evaluation_line(step, final))
        save(run, step)
        return _finish(run, step, final, None)


def _default_interval(run: Run) -> int:
    epoch = run.tokens.train_tokens // (run.config.train.batch_size * run.config.model.context_length)
    return max(1, epoch if run.steps >= 2 * epoch else run.steps // 5)


@contextmanager
def _open_log(run: Run) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    if not run.ranks.first:
        yield lambda line: None
        return
    with tracking(run.folder, run.config) as tell, (run.folder / "log.jsonl").open("ab") as file:

        def write(line: Mapping[str, Any]) -> None:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            run.state.log_bytes = file.tell()
            tell(line)

        yield write


def _batch(run: Run, step: int) -> tuple[Tensor, Tensor]:
    """Return this rank's part of a step's batch, on its device."""
    x, y = run.cut(step) if run.ahead is None else run.ahead.take(step)
    return x.to(run.device, non_blocking=True), y.to(run.device, non_blocking=True)


def _parts(run: Run) -> int:
    """Gradients that are summed to a step's: of each part of a batch, and of each rank where these are its own."""
    return run.config.train.grad_accum * run.weights.parts


def _step(run: Run, step: int, inputs: Tensor, targets: Tensor) -> tuple[float, float, float]:
    """One optimizer step: loss (nats per token), gradient norm before clipping, learning rate."""
    optim, weights, optimizer = run.config.optim, run.weights, run.weights.optimizer
    weights.zero()
    loss, first = _backward(run, inputs, targets)
    longest = optim.grad_clip if optim.grad_clip is not None else math.inf
    norm = clip_by_global_norm(weights.reduced(), longest, joint=weights.joint_norm).item()
    lr = optim.peak_lr(run.config.model.rate_width) * multiplier(step, steps=run.steps, optim=optim)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]
    if math.isfinite(loss) and math.isfinite(norm):
        if _parts(run) > 1:
            _measure_noise(run, first, norm**2)
        optimizer.step()
    return loss, norm, lr


def _backward(run: Run, x: Tensor, y: Tensor) -> tuple[float, float]:
    """Add up the gradients of a step; return its loss, and the mean squared length of the ranks' first gradients."""
    train, parts = run.config.train, _parts(run)
    own = train.precision == "bf16" and run.device.type == "cpu" and not run.compiled
    autocast = train.precision != "fp32" and not own
    first, losses = 0.0, list[Tensor]()
    halves = zip(x.chunk(train.grad_accum), y.chunk(train.grad_accum), strict=True)
    for index, (part_x, part_y) in enumerate(halves):
        with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=autocast):
            part = run.model.loss(part_x, part_y, torch.bfloat16 if own else torch.float32) / parts
        part.backward()  # type: ignore[no-untyped-call]
        if index == 0 and parts > 1:
            first = run.weights.own_square() * parts**2
        losses.append(part.detach())
    loss = sum(part.item() for part in losses)  # read at last, for a GPU goes on meanwhile
    told = run.ranks.gather(loss, first)
    share = run.weights.parts / run.ranks.world
    return sum(row[0] for row in told) * share, sum(row[1] for row in told) / run.weights.parts


def _measure_noise(run: Run, first: float, whole: float) -> None:
    """Average what the squared gradients of a step's first part and of its whole batch say of the noise.

    The first part alone, since the others lie in its sum: their own would cost a buffer and two passes a part. Of ranks
    that sum their gradients, the mean over their first parts.
    """
    batch = run.config.train.batch_size * run.config.model.context_length
    part = batch / _parts(run)
    signal, spread = noise.split(first, whole, small_batch=part, big_batch=batch)
    state = run.state
    state.grad_signal = noise.average(state.grad_signal, signal)
    state.grad_noise = noise.average(state.grad_noise, spread)


def _divergence(loss: float, norm: float, first_loss: float) -> str | None:
    if not math.isfinite(loss) or not math.isfinite(norm):
        return f"loss {loss:g} with gradient norm {norm:g}"
    if loss > EXPLODED * first_loss:
        return f"loss {loss:.3g} is {loss / first_loss:.1f} times the first step's"
    return None


def _report(
    run: Run,
    step: int,
    lr: float,
    norm: float,
    write: Callable[[Mapping[str, Any]], None],
    on_progress: Callable[[Progress], None] | None,
) -> None:
    state = run.state
    state.train_loss = mean = state.loss_sum / state.loss_steps
    state.loss_sum, state.loss_steps = 0.0, 0
    tokens = step * run.config.train.batch_size * run.config.model.context_length
    speed = (step - run.config.first_step) / step * tokens / state.seconds
    state.memory_bytes = max(state.memory_bytes, _memory(run.device))
    line: dict[str, Any] = {
        "step": step,
        "tokens": tokens,
        "flops": tokens * compute(run.config.model),
        "train_loss": state.train_loss,
        "grad_norm": norm,
        "lr": lr,
        "seconds": round(state.seconds, 3),
    }
    if _parts(run) > 1:
        line["noise_scale"] = noise.scale(state.grad_signal, state.grad_noise)
    write(line)
    if on_progress:
        where: dict[str, Any] = {"run": run.folder.name, "step": step, "steps": run.steps, "loss": mean}
        on_progress(Progress(**where, tokens_per_second=speed, memory_bytes=state.memory_bytes))


def _memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def _evaluate(run: Run, val_tokens: int) -> Evaluation:
    length = run.config.model.context_length
    windows = validation_windows(run.tokens.val, context_length=length, val_tokens=max(val_tokens, length))
    measured = partial(evaluate, run.model, run.tokens.val, bytes_per_token=run.tokens.bytes_per_token)
    if run.ranks.world == 1:
        return measured(windows)
    # equal parts, since sharded ranks compute together; what is left over all do, and the first counts it
    rank, each = run.ranks.rank, len(windows) // run.ranks.world
    own, rest = windows[rank * each : (rank + 1) * each], windows[run.ranks.world * each :]
    loss = tokens = 0.0
    for part, counted in ((own, True), (rest, run.ranks.first)):
        if len(part) and (here := measured(part)) and counted:
            loss, tokens = loss + here.loss * here.tokens, tokens + here.tokens
    run.weights.settle()
    told = run.ranks.gather(loss, tokens)
    total = sum(tokens for _, tokens in told)
    mean = sum(loss for loss, _ in told) / total
    return Evaluation(loss=mean, tokens=int(total), bytes_per_token=run.tokens.bytes_per_token)


def _evaluation_line(step: int, measured: Evaluation) -> dict[str, Any]:
    return {"step": step, "val_loss": measured.loss, "val_tokens": measured.tokens}


def _finish(run: Run, steps: int, final: Evaluation | None, reason: str | None) -> Record:
    """Write the record, last of all: its existence means that the run is done."""
    record = _record(run, steps, final, reason)

    def write() -> None:
        if run.ranks.first:
            assert run.lease is not None
            run.lease.check()
            record.write(run.folder / "record.json")
            note(run.folder, done=steps)

    run.ranks.agreed(write)
    return record if run.ranks.first else Record.read(run.folder / "record.json")


def _record(run: Run, steps: int, final: Evaluation | None, reason: str | None) -> Record:
    config, state = run.config, run.state
    per_step = config.train.batch_size * config.model.context_length
    tokens, spent = steps * per_step, (steps - config.first_step) * per_step
    measured: dict[str, Any] = {
        "steps": steps,
        "spent_tokens": spent,
        "spent_flops": spent * compute(config.model),
        "is_final": config.optim.schedule != "constant",
        "learning_rate": config.optim.peak_lr(config.model.rate_width),
        "rate_rule": config.optim.rule,
        "train_loss": None if final is None else state.train_loss,
        "perplexity": None if final is None else final.perplexity,
        "bits_per_byte": None if final is None else final.bits_per_byte,
        "val_tokens": None if final is None else final.tokens,
        "train_tokens": run.tokens.train_tokens,
        "sources": run.stream.seen(steps),
        "seconds": round(state.seconds, 3),
        "tokens_per_second": round(spent / state.seconds, 1),
        "noise_scale": noise.scale(state.grad_signal, state.grad_noise),
        "peak_memory_bytes": state.memory_bytes,
        "device": run.device.type,
        "threads": state.threads,
        "devices": state.devices,
        "compiled": run.compiled,
        "bit_exact": not run.compiled and len(state.threads) == len(state.devices) == 1,
        "torch": torch.__version__,
        "flops_by_convention": {name: tokens * count(config.model) for name, count in FLOPS.items()},
    }
    return Record(
        id=run.folder.name,
        params=params_by_convention(config.model),
        tokens=tokens,
        flops=tokens * compute(config.model),
        loss=None if final is None else final.loss,
        status="complete" if final is not None else "diverged",
        budget=config.train.flops,
        group=run.folder.name if config.trunk is None else config.trunk.run,
        unique_tokens=sum(source["unique_tokens"] for source in run.stream.seen(steps).values()),
        measured=measured if reason is None else measured | {"diverged": reason},
        config=config.to_dict(),
    )
