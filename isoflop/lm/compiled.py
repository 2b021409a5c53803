"""A model's loss through torch's compiler, where there is one that works; else as it is, which is said.

What is compiled is the plain path: torch's own attention and matrix products, in bf16 by autocast. Dropout draws the
masks that it would draw uncompiled. Two compilations need not sum in the same order, so no compiled run is called exact
to the bit.
"""

from __future__ import annotations

import logging

import torch

from isoflop.lm.model import Transformer

log = logging.getLogger(__name__)


def compile_loss(model: Transformer, *, rows: int, device: torch.device, precision: str) -> bool:
    """Put torch.compile around a model's loss, and say whether it worked, by a trial of one batch of ids 0.

    The trial adds to the gradients, and leaves the generators of random numbers as they were.

    Args:
        model: The model, in training.
        rows: Sequences that it will be given at a time; another number is compiled anew.
        device: Where they lie.
        precision: Of the products: fp32, or another name for bf16 by autocast.
    """
    eager = model.loss
    devices = [device] if device.type == "cuda" else []
    try:
        ids = torch.zeros(rows, model.config.context_length, dtype=torch.int64, device=device)
        with torch.random.fork_rng(devices):
            model.loss = torch.compile(  # type: ignore[method-assign]
                eager, dynamic=False, options={"fallback_random": True}
            )
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision != "fp32"):
                trial = model.loss(ids, ids, torch.float32)
            trial.backward()  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a compiler, a linker or a driver may lack: the run goes without
        model.loss = eager  # type: ignore[method-assign]
        log.warning(
            "compile: torch finds no compiler that works here (%s); the run goes on without", _first_line(error)
        )
        return False
    return True


def _first_line(error: Exception) -> str:
    said = str(error).strip().splitlines()
    return f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
