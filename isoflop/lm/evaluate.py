"""Loss on text: the same tokens every time, each once, no dropout, the mean over tokens, an error over documents."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int, Integer
from torch import Tensor

from isoflop.data.corpus import Document
from isoflop.data.tokenizer import Tokenizer
from isoflop.lm.kernels import CHUNK_TOKENS
from isoflop.lm.model import Transformer, linear

Ids = Integer[np.ndarray, " ids"]
Windows = Int[np.ndarray, " windows"]
Ends = Integer[np.ndarray, " ends"]
PerDocument = Float64[np.ndarray, " documents"]
Slots = Float64[np.ndarray, " slots"]
"""One number for each document, and one for what stands after the last end of text."""
BATCH_TOKENS = 8192
"""Tokens in a batch, so that a long context costs no more memory than a short one, and a short one no more calls: of
the preset `small`, 2,048 took a fifth more time (docs/log.md)."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A loss and what it was measured on."""

    loss: float
    """Nats per token."""
    tokens: int
    """Tokens predicted."""
    bytes_per_token: float | None = None
    """UTF-8 bytes of the text per token; None where only token ids are known."""
    documents: int | None = None
    """Documents that the tokens come from; None where their ends are unknown."""
    loss_error: float | None = None
    """Standard error of the loss over documents, nats per token; None with fewer than two documents."""
    bits_per_byte_error: float | None = None
    """Standard error of the bits per byte over documents."""

    @property
    def perplexity(self) -> float:
        """e^loss."""
        return math.exp(self.loss) if self.loss < 700 else math.inf

    @property
    def perplexity_error(self) -> float | None:
        """Standard error of the perplexity, to first order: perplexity times the loss's."""
        return None if self.loss_error is None else self.perplexity * self.loss_error

    @property
    def bits_per_byte(self) -> float | None:
        """Loss / (ln 2 · bytes per token), comparable across tokenizers; None where bytes are unknown."""
        return None if self.bytes_per_token is None else self.loss / math.log(2) / self.bytes_per_token


@dataclass(frozen=True)
class Encoded:
    """Documents as one stream of ids, as a token file holds them."""

    ids: Ids
    """Each document and its end of text; one more end of text leads, so that the first token is predicted too."""
    ends: Ends
    """Where the last id of each document stands."""
    num_bytes: PerDocument
    """UTF-8 bytes of each document."""

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes over the tokens that are predicted."""
        return float(self.num_bytes.sum()) / (len(self.ids) - 1)


def encode(documents: Iterable[Document], tokenizer: Tokenizer) -> Encoded:
    """Turn documents into the stream of ids that a model is measured on.

    A tokenizer without end of text leaves nothing between them, and the very first token unmeasured.

    Raises:
        ValueError: there are fewer than two ids.
    """
    mark = [] if tokenizer.end_of_text is None else [tokenizer.end_of_text]
    pieces, sizes, num_bytes = [np.array(mark, dtype=np.uint32)], [len(mark)], []
    for document in documents:
        ids = np.append(tokenizer.encode(document.text), mark).astype(np.uint32)
        pieces.append(ids)
        sizes.append(len(ids))
        num_bytes.append(float(document.num_bytes))
    stream = np.concatenate(pieces)
    if len(stream) < 2:
        raise ValueError("the text holds no token that could be predicted; name files, folders or globs that hold text")
    return Encoded(stream, np.cumsum(sizes)[1:] - 1, np.array(num_bytes))


def every_window(ids: Ids, *, context_length: int) -> Windows:
    """Return where the windows start that predict every token but the first once; the last may be shorter."""
    return np.arange(0, len(ids) - 1, context_length, dtype=np.int64)


def evaluate(
    model: Transformer,
    ids: Ids,
    windows: Windows,
    *,
    context_length: int | None = None,
    bytes_per_token: float | None = None,
    ends: Ends | None = None,
    num_bytes: PerDocument | None = None,
    batch_size: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Mean loss of the tokens in windows of `ids`.

    Args:
        model: What is measured, as it is in evaluation: without dropout.
        ids: Stream of documents.
        windows: Where windows start; each is as long as the context, or as what is left.
        context_length: Length of a window, tokens; None: the model's.
        bytes_per_token: UTF-8 bytes of the text per token.
        ends: Where the last id of each document stands in `ids`, for the errors.
        num_bytes: UTF-8 bytes of each document, if all of it is measured; else bytes per token are taken as exact.
        batch_size: Windows at a time; decides speed and memory alone. None: as many as 8,192 tokens hold.
        on_progress: Called with the windows done and their number.
    """
    length = context_length or model.config.context_length
    marks = np.empty(0, dtype=np.int64) if ends is None else ends
    sums, counts = np.zeros(len(marks) + 1), np.zeros(len(marks) + 1)
    was_training, done = model.training, 0
    model.eval()
    for offsets in _batches(len(ids), windows, length, batch_size or max(1, BATCH_TOKENS // length)):
        block = torch.from_numpy(ids[offsets].astype(np.int64)).to(model.embed.device)
        losses = token_losses(model, block[:, :-1], block[:, 1:]).flatten().cpu().numpy().astype(np.float64)
        document = np.searchsorted(marks, offsets[:, 1:].ravel())
        np.add.at(sums, document, losses)
        np.add.at(counts, document, 1.0)
        on_progress(done := done + len(offsets), len(windows))
    model.train(was_training)
    loss, tokens = sums.sum() / counts.sum(), int(counts.sum())
    measured = Evaluation(loss=float(loss), tokens=tokens, bytes_per_token=bytes_per_token)
    return measured if ends is None else _with_errors(measured, sums, counts, num_bytes)


def _batches(
    num_ids: int, windows: Windows, length: int, batch_size: int
) -> Iterator[Integer[np.ndarray, "batch offsets"]]:
    """Cut windows into batches of positions; a window that ends with the ids is a batch of its own."""
    whole = windows + length < num_ids
    full = windows[whole]
    for start in range(0, len(full), batch_size):
        yield full[start : start + batch_size, None] + np.arange(length + 1)
    for start in windows[~whole]:
        yield np.arange(start, num_ids)[None]


@torch.no_grad()
def token_losses(
    model: Transformer, ids: Int[Tensor, "batch seq"], targets: Int[Tensor, "batch seq"]
) -> Float[Tensor, "batch seq"]:
    """−log softmax(logits)[target] of each token, nats; the logits never exist as a whole."""
    hidden, wanted = model.hidden(ids).flatten(0, 1).float(), targets.flatten()
    losses = torch.empty(len(wanted), device=hidden.device)
    for start in range(0, len(wanted), CHUNK_TOKENS):
        part = slice(start, start + CHUNK_TOKENS)
        logits = linear(hidden[part], model.readout.float())
        losses[part] = F.cross_entropy(logits, wanted[part], reduction="none")
    return losses.view(targets.shape)


def _with_errors(measured: Evaluation, sums: Slots, counts: Slots, num_bytes: PerDocument | None) -> Evaluation:
    seen = counts > 0
    error, bits_error = ratio_error(sums[seen], counts[seen]), None
    if num_bytes is not None:
        here = seen[: len(num_bytes)]
        bits_error = ratio_error(sums[: len(num_bytes)][here] / math.log(2), num_bytes[here])
    elif error is not None and measured.bytes_per_token is not None:
        bits_error = error / math.log(2) / measured.bytes_per_token
    return Evaluation(
        loss=measured.loss,
        tokens=measured.tokens,
        bytes_per_token=measured.bytes_per_token,
        documents=int(seen.sum()),
        loss_error=error,
        bits_per_byte_error=bits_error,
    )


def ratio_error(sums: PerDocument, sizes: PerDocument) -> float | None:
    """Standard error of R = Σ sums / Σ sizes over n documents: √(n/(n−1) · Σ (sum − R·size)²) / Σ sizes.

    Documents are the independent draws, not their tokens (clustered errors, arXiv:2411.00640).
    None where n < 2.
    """
    n = len(sums)
    if n < 2:
        return None
    left = sums - sums.sum() / sizes.sum() * sizes
    return float(np.sqrt(n / (n - 1) * (left**2).sum()) / sizes.sum())
