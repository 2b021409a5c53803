"""Validation loss: the same tokens every time, every token once, no dropout, the mean over tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int, Integer

from isoflop.lm.model import Transformer

Windows = Int[np.ndarray, " windows"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A validation loss and what it was measured on."""

    loss: float
    """Nats per token."""
    tokens: int
    """Tokens predicted."""
    bytes_per_token: float | None = None
    """UTF-8 bytes of the text per token; None where only token ids are known."""

    @property
    def perplexity(self) -> float:
        """e^loss."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def bits_per_byte(self) -> float | None:
        """Loss / (ln 2 · bytes per token), comparable across tokenizers; None where bytes are unknown."""
        return None if self.bytes_per_token is None else self.loss / math.log(2) / self.bytes_per_token


def evaluate(
    model: Transformer,
    ids: Integer[np.ndarray, " ids"],
    windows: Windows,
    *,
    bytes_per_token: float | None = None,
    batch_size: int = 32,
) -> Evaluation:
    """Mean loss of the tokens in the windows that start at `windows`, each as long as the model's context."""
    length = model.config.context_length
    device = model.embed.device
    was_training = model.training
    model.eval()
    total, tokens = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(windows), batch_size):
            offsets = windows[start : start + batch_size, None] + np.arange(length + 1)
            block = torch.from_numpy(ids[offsets].astype(np.int64)).to(device)
            total += model.loss(block[:, :-1], block[:, 1:]).item() * block[:, 1:].numel()
            tokens += block[:, 1:].numel()
    model.train(was_training)
    return Evaluation(loss=total / tokens, tokens=tokens, bytes_per_token=bytes_per_token)
