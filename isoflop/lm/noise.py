"""The gradient noise scale: the batch from which on more tokens a step buy less and less (arXiv:1812.06162)."""

from __future__ import annotations

HORIZON = 50
"""Steps that the running averages look back on: of single steps of the small preset one in five gives no number, and
the others scatter over a factor of twenty (benchmarks/noise.py)."""


def split(small: float, big: float, *, small_batch: float, big_batch: float) -> tuple[float, float]:
    """Squared length of the true gradient and trace of its noise, from the squared lengths of two batches' gradients.

    |G|² = (B_b·|G_b|² − B_s·|G_s|²)/(B_b − B_s) and S = (|G_s|² − |G_b|²)/(1/B_s − 1/B_b), both without bias
    (arXiv:1812.06162, appendix A); batches and S in tokens.
    """
    signal = (big_batch * big - small_batch * small) / (big_batch - small_batch)
    noise = (small - big) / (1 / small_batch - 1 / big_batch)
    return signal, noise


def average(before: float, new: float) -> float:
    """Move a running average towards a new value; started at 0, its bias is the same in signal and noise."""
    return before + (new - before) / HORIZON


def scale(signal: float, noise: float) -> float | None:
    """B_simple = S/|G|² of averages, tokens; None where they have not left the scatter about 0."""
    return noise / signal if signal > 0 and noise > 0 else None
