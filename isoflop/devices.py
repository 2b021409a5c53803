"""Accelerators: the most that their matrix products can do, and how much memory they have. No price, no probe.

Every peak is for dense matrices. Makers often print twice that, for matrices half of whose entries are zero ("with
sparsity"); where the number found is such a one, it is halved here in sight.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import NamedTuple

SECONDS_PER_HOUR = 3600.0


class Device(NamedTuple):
    """One accelerator: a GPU (one package, or one card) or a TPU chip."""

    peak: float
    """FLOP/s of dense bf16 matrix products (fp16 for those without bf16, which `source` says)."""
    memory: float
    """Bytes."""
    source: str
    """Where peak and memory are written."""


def device(name: str) -> Device:
    """Return the accelerator of a name; case and spaces do not matter.

    Raises:
        ValueError: the table has no such name.
    """
    key = name.lower().replace(" ", "").replace("_", "-")
    if key in DEVICES:
        return DEVICES[key]
    close = get_close_matches(key, DEVICES, n=1, cutoff=0.5)
    nearest = f", perhaps you meant {close[0]!r}" if close else ""
    raise ValueError(f"device={name!r} is not known{nearest}; choose one of {', '.join(DEVICES)}, or give FLOPs")


def flops_of_hours(name: str, count: int, hours: float, mfu: float) -> float:
    """Return the FLOPs that accelerators do: peak · count · hours · 3600 · MFU (arXiv:2204.02311, section 4.1).

    Args:
        name: Key of DEVICES.
        count: How many work at once.
        hours: Hours on the clock.
        mfu: Part of the peak that training reaches, above 0 and at most 1.

    Raises:
        ValueError: no such accelerator, or a number that cannot be.
    """
    if not 0 < hours < math.inf:
        raise ValueError(f"hours={hours:g} must be positive and finite")
    return rate(name, count, mfu) * hours * SECONDS_PER_HOUR


def hours_of_flops(name: str, count: int, flops: float, mfu: float) -> float:
    """Return the hours on the clock that accelerators need for so many FLOPs, the inverse of `flops_of_hours`.

    Raises:
        ValueError: no such accelerator, or a number that cannot be.
    """
    return flops / rate(name, count, mfu) / SECONDS_PER_HOUR


def rate(name: str, count: int, mfu: float) -> float:
    """Return the FLOP/s that so many accelerators reach together.

    Raises:
        ValueError: no such accelerator, or a number that cannot be.
    """
    if count < 1:
        raise ValueError(f"count={count} must be at least 1")
    if not 0 < mfu <= 1:
        raise ValueError(f"mfu={mfu:g} is the part of the peak that is reached, so give a number above 0 and up to 1")
    return device(name).peak * count * mfu


NANOCHAT = "github.com/karpathy/nanochat harness/runtime.py"
LIGHTNING = "github.com/Lightning-AI/pytorch-lightning src/lightning/fabric/utilities/throughput.py"
TITAN = "github.com/pytorch/torchtitan torchtitan/tools/utils.py"
STAS = "github.com/stas00/ml-engineering compute/accelerator/README.md"
UPGRADE = "github.com/stas00/ml-engineering insights/when-to-upgrade-gpus/README.md"
MODAL = "modal.com GPU documentation"
LAMBDA = "huggingface.co/spaces/lambdabrendan/Lambda-LLM-Calculator data/gpu_specs.csv"
CALWOO = "calwoo.github.io/notes nvidia-gpu-hardware"

DEVICES: Mapping[str, Device] = {
    "v100": Device(125e12, 16e9, f"SXM2, fp16 (no bf16): {LIGHTNING}; memory: {LAMBDA}"),
    "t4": Device(65e12, 16e9, f"fp16 (no bf16): {LIGHTNING}; memory: {MODAL}"),
    "a10": Device(125e12, 24e9, f"{LIGHTNING}, which names NVIDIA's A10 datasheet; memory: {MODAL}"),
    "a100": Device(312e12, 80e9, f"{TITAN}; memory: {STAS}"),
    "a100-40gb": Device(312e12, 40e9, f"{TITAN}; memory: {LAMBDA}"),
    "h100": Device(1979e12 / 2, 80e9, f"SXM, sparse halved as {LIGHTNING} does; memory: {STAS}"),
    "h100-pcie": Device(1513e12 / 2, 80e9, f"sparse halved as {LIGHTNING} does; memory: {STAS}"),
    "h200": Device(1979e12 / 2, 141e9, f"SXM, the H100's chip ({TITAN}: 989e12), sparse halved; memory: {STAS}"),
    "b200": Device(2250e12, 180e9, f"{TITAN}; memory: {UPGRADE}"),
    "l4": Device(242e12 / 2, 24e9, f"sparse halved; {LIGHTNING} and {NANOCHAT}: 121e12; memory: {MODAL}"),
    "l40s": Device(362e12, 48e9, f"{TITAN} (733e12 sparse); memory: {STAS}"),
    "rtx3090": Device(71e12, 24e9, f"fp32 accumulation: {NANOCHAT}; memory: {LAMBDA}"),
    "rtx4090": Device(165.2e12, 24e9, f"fp32 accumulation: {NANOCHAT}; memory: {CALWOO}"),
    "mi250x": Device(383e12, 128e9, f"both dies: {NANOCHAT}, twice {TITAN}'s 191.5e12 a die; memory: {STAS}"),
    "mi300x": Device(1307.4e12, 192e9, f"{NANOCHAT}; memory: {STAS}"),
    "tpu-v4": Device(275e12, 32 * 2**30, "docs.cloud.google.com/tpu/docs/v4"),
    "tpu-v5e": Device(197e12, 16e9, "docs.cloud.google.com/tpu/docs/v5e"),
    "tpu-v5p": Device(459e12, 95e9, "docs.cloud.google.com/tpu/docs/v5p-training"),
    "tpu-v6e": Device(918e12, 32e9, "docs.cloud.google.com/tpu/docs/v6e"),
}
