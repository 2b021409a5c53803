"""The one training loop: `train(run_dir) -> Record`, resumable bit for bit at any step."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from isoflop.config import read_run
from isoflop.data.tokens import validation_windows
from isoflop.flops import FLOPS, compute, params_by_convention
from isoflop.lm.evaluate import Evaluation, evaluate
from isoflop.lm.journal import note
from isoflop.lm.kernels import keep_freed_memory
from isoflop.lm.lease import hold
from isoflop.lm.optim import clip_by_global_norm
from isoflop.lm.run import Run, save, start
from isoflop.lm.schedule import multiplier
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
    if (folder / "record.json").exists():
        return Record.read(folder / "record.json")
    config = read_run(folder)
    keep_freed_memory()
    with hold(folder) as lease:
        run, step = start(folder, config, lease)
        note(folder, began=step)
        on_start(run)
        return _loop(run, step, on_progress, should_stop)


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
            if should_stop():
                if step > 0:
                    save(run, step)
                return None
            began = time.perf_counter()
            loss, norm, lr = _step(run, step, *run.stream.batch(step))
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
            if step % checkpoint_every == 0 and step < run.steps:
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
    with (run.folder / "log.jsonl").open("ab") as file:

        def write(line: Mapping[str, Any]) -> None:
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            run.state.log_bytes = file.tell()

        yield write


def _step(run: Run, step: int, inputs: Any, targets: Any) -> tuple[float, float, float]:
    """One optimizer step: loss (nats per token), gradient norm before clipping, learning rate."""
    train, optim = run.config.train, run.config.optim
    for grads in run.grads:
        grads.zero_()
    x, y = (torch.from_numpy(ids).to(run.device) for ids in (inputs, targets))
    own = train.precision == "bf16" and run.device.type == "cpu"
    autocast = train.precision != "fp32" and not own
    loss = 0.0
    for part_x, part_y in zip(x.chunk(train.grad_accum), y.chunk(train.grad_accum), strict=True):
        with torch.autocast(run.device.type, dtype=torch.bfloat16, enabled=autocast):
            part = run.model.loss(part_x, part_y, torch.bfloat16 if own else torch.float32) / train.grad_accum
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
    norm = clip_by_global_norm(run.grads, optim.grad_clip if optim.grad_clip is not None else math.inf).item()
    lr = optim.peak_lr(run.config.model.rate_width) * multiplier(step, steps=run.steps, optim=optim)
    for group in run.optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]
    if math.isfinite(loss) and math.isfinite(norm):
        run.optimizer.step()
    return loss, norm, lr


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
    speed = tokens / state.seconds
    state.memory_bytes = max(state.memory_bytes, _memory(run.device))
    write(
        {
            "step": step,
            "tokens": tokens,
            "flops": tokens * compute(run.config.model),
            "train_loss": state.train_loss,
            "grad_norm": norm,
            "lr": lr,
            "seconds": round(state.seconds, 3),
        }
    )
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
    return evaluate(run.model, run.tokens.val, windows, bytes_per_token=run.tokens.bytes_per_token)


def _evaluation_line(step: int, measured: Evaluation) -> dict[str, Any]:
    return {"step": step, "val_loss": measured.loss, "val_tokens": measured.tokens}


def _finish(run: Run, steps: int, final: Evaluation | None, reason: str | None) -> Record:
    """Write the record, last of all: its existence means that the run is done."""
    config, state = run.config, run.state
    tokens = steps * config.train.batch_size * config.model.context_length
    measured: dict[str, Any] = {
        "steps": steps,
        "train_loss": None if final is None else state.train_loss,
        "perplexity": None if final is None else final.perplexity,
        "bits_per_byte": None if final is None else final.bits_per_byte,
        "val_tokens": None if final is None else final.tokens,
        "train_tokens": run.tokens.train_tokens,
        "sources": run.stream.seen(steps),
        "seconds": round(state.seconds, 3),
        "tokens_per_second": round(tokens / state.seconds, 1),
        "peak_memory_bytes": state.memory_bytes,
        "device": run.device.type,
        "threads": state.threads,
        "bit_exact": len(state.threads) == 1,
        "torch": torch.__version__,
        "flops_by_convention": {name: tokens * count(config.model) for name, count in FLOPS.items()},
    }
    record = Record(
        id=run.folder.name,
        params=params_by_convention(config.model),
        tokens=tokens,
        flops=tokens * compute(config.model),
        loss=None if final is None else final.loss,
        status="complete" if final is not None else "diverged",
        budget=config.train.flops,
        unique_tokens=sum(source["unique_tokens"] for source in run.stream.seen(steps).values()),
        measured=measured if reason is None else measured | {"diverged": reason},
        config=config.to_dict(),
    )
    run.lease.check()
    record.write(run.folder / "record.json")
    note(run.folder, done=steps)
    return record
