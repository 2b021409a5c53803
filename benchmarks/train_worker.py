"""One process of `benchmarks/train.py`: builds a contestant, takes its first steps, waits for a line, trains, reports.

python benchmarks/train_worker.py PEER SETTING SHAPE THREADS CORE SECONDS
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable

import torch
from peers import PEERS, SHAPES, Loss, Shape
from torch import Tensor, nn

CLIP = 1.0
LR, BETAS, WEIGHT_DECAY = 1e-3, (0.9, 0.95), 0.1
PEAK_SIZE = 2048
"""Square products of this size measure the peak, as large as a step's."""


def our_step(model: nn.Module, loss_of: Loss, bf16: bool) -> Callable[[Tensor, Tensor], float]:
    """What `isoflop.lm.train` does in a step."""
    from isoflop.config import ModelConfig, OptimConfig
    from isoflop.lm.kernels import keep_freed_memory
    from isoflop.lm.optim import build, clip_by_global_norm

    keep_freed_memory()
    optim = OptimConfig(lr=LR, lr_width=None, beta1=BETAS[0], beta2=BETAS[1], weight_decay=WEIGHT_DECAY)
    optimizer, flats = build(model, optim, shape=ModelConfig(), fused=bf16)
    grads = [flat.grads for flat in flats]
    products = torch.bfloat16 if bf16 else torch.float32

    def step(ids: Tensor, targets: Tensor) -> float:
        for grad in grads:
            grad.zero_()
        loss = loss_of(ids, targets, products)
        loss.backward()
        clip_by_global_norm(grads, CLIP).item()
        optimizer.step()
        return loss.item()

    return step


def usual_step(model: nn.Module, loss_of: Loss, bf16: bool, compiled: bool) -> Callable[[Tensor, Tensor], float]:
    """The step that everyone writes; AdamW as it comes in plain fp32, fused in every other setting."""
    decayed = [param for param in model.parameters() if param.ndim >= 2]
    rest = [param for param in model.parameters() if param.ndim < 2]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=BETAS, fused=True if bf16 or compiled else None)
    run = torch.compile(loss_of) if compiled else loss_of

    def step(ids: Tensor, targets: Tensor) -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = run(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return loss.item()

    return step


def peak(dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Best FLOP/s of a square product on this process's threads."""
    a, b = (torch.rand(PEAK_SIZE, PEAK_SIZE).to(dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - start)
    return 2 * PEAK_SIZE**3 / best


def batch(shape: Shape, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random tokens; what they say does not change what they cost."""
    ids = torch.randint(0, shape.vocab, (shape.batch, shape.context + 1), generator=generator)
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def main() -> None:
    """Build, step twice, say so, wait, train for the time given, report one line of JSON."""
    peer, setting, name, threads, core, seconds = sys.argv[1:]
    if core != "-":
        os.sched_setaffinity(0, {int(core)})
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    shape, bf16, compiled = SHAPES[name], "bf16" in setting, "compiled" in setting
    started = time.perf_counter()
    model, loss_of = PEERS[peer](shape)
    model.train()
    step = our_step(model, loss_of, bf16) if peer == "ours" else usual_step(model, loss_of, bf16, compiled)
    generator = torch.Generator().manual_seed(0)
    built = time.perf_counter()
    first_loss = step(*batch(shape, generator))
    first_step = time.perf_counter() - built
    step(*batch(shape, generator))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print("ready", flush=True)
    sys.stdin.readline()
    peaks = {str(dtype)[6:]: peak(dtype) for dtype in (torch.float32, torch.bfloat16)}
    steps, began, cpu = 0, time.perf_counter(), time.process_time()
    while steps < 2 or time.perf_counter() - began < float(seconds):
        loss = step(*batch(shape, generator))
        steps += 1
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    print(
        json.dumps(
            {
                "tokens_per_second": steps * shape.tokens / elapsed,
                "tokens_per_cpu_second": steps * shape.tokens / cpu,
                "cpu_share": cpu / elapsed / int(threads),
                "peak_flops": peaks,
                "first_step_seconds": first_step,
                "build_seconds": built - started,
                "peak_memory_bytes": memory,
                "params": sum(param.numel() for param in model.parameters()),
                "losses": [first_loss, loss],
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    main()
