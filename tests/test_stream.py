"""python -m pytest tests/test_stream.py"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.data.stream import BLOCK, BatchStream, Epochs, cut_windows, stream_of


def epoch_of(source: Epochs, epoch: int) -> list[int]:
    """Window starts of one epoch."""
    return source.starts(epoch * source.windows, source.windows).tolist()


def starts(stream: BatchStream, step: int) -> list[int]:
    """Where the sequences of a batch start, in ids that say where they stand."""
    return stream.batch(step)[0][:, 0].tolist()


@settings(deadline=None)
@given(st.data())
def test_an_epoch_takes_every_window_once(data: st.DataObject) -> None:
    context = data.draw(st.integers(1, 9), "context_length")
    tokens = data.draw(st.integers(context + 1, 200), "tokens")
    source = Epochs(np.arange(tokens, dtype=np.uint16), context, data.draw(st.integers(0, 9), "seed"))
    for epoch in range(3):
        starts = sorted(epoch_of(source, epoch))
        assert len(starts) == source.windows
        assert np.all(np.diff(starts) == context)
        # nothing is read outside the file, and less than one window is lost before the first
        assert 0 <= starts[0] < context and starts[-1] + context < tokens
    # less than two windows are left out in all
    assert tokens - source.windows * context < 2 * context or source.windows == 1


def test_sequences_run_on_from_epoch_to_epoch() -> None:
    source = Epochs(np.arange(50, dtype=np.uint16), 10, 0)
    whole = [start for epoch in range(5) for start in epoch_of(source, epoch)]
    assert [int(at) for first in range(0, 18, 9) for at in source.starts(first, 9)] == whole[:18]


def test_epochs_differ_in_order_and_offset() -> None:
    source = Epochs(np.zeros(10_000, dtype=np.uint16), 16, 0)
    epochs = [epoch_of(source, epoch) for epoch in range(20)]
    assert len({tuple(starts) for starts in epochs}) == 20
    assert len({min(starts) for starts in epochs}) > 8
    assert all(starts != sorted(starts) for starts in epochs)


def mixed(seed: int = 0, *, lengths: tuple[int, ...] = (4000, 700, 90), batch_size: int = 7) -> BatchStream:
    """Three sources whose ids tell them apart and say where they stand."""
    ids = [np.arange(length, dtype=np.int64) + 10_000 * number for number, length in enumerate(lengths)]
    sources = {name: Epochs(part, 8, seed) for name, part in zip("abc", ids, strict=False)}
    return BatchStream(sources, (0.6, 0.3, 0.1)[: len(lengths)], batch_size, seed)


@pytest.mark.parametrize("make", [lambda: stream_of(np.arange(1000), batch_size=7, context_length=8, seed=3), mixed])
def test_a_batch_is_a_function_of_seed_and_step(make) -> None:
    stream = make()
    for step in [*range(400), 12, 399, 3, 40, 0]:  # over several epochs and blocks, and back
        for mine, other in zip(stream.batch(step), make().batch(step), strict=True):
            assert np.array_equal(mine, other)
        if step > 60 and step % 40:
            break
    assert not np.array_equal(mixed(0).batch(0)[0], mixed(1).batch(0)[0])


def test_far_steps_are_found_at_once_and_exactly() -> None:
    stream = mixed(lengths=(9000, 900, 900), batch_size=BLOCK)
    near = [sum((stream.batch(step)[0][:, 0] // 10_000 == n).sum() for step in range(9)) for n in range(3)]
    assert near == stream.drawn(9 * BLOCK)
    far = 10**9 + 7  # a loop over the steps before would not end
    before, after = (np.array(stream.drawn(steps * BLOCK)) for steps in (far, far + 1))
    here = stream.batch(far)[0][:, 0] // 10_000
    assert [(here == n).sum() for n in range(3)] == (after - before).tolist()


def test_a_mixture_reads_each_source_as_a_run_on_it_alone_would() -> None:
    stream = mixed()
    rows = np.concatenate([stream.batch(step)[0] for step in range(300)])
    for number, source in enumerate(stream.sources.values()):
        mine = rows[rows[:, 0] // 10_000 == number]
        alone, _ = cut_windows(source.ids, source.starts(0, len(mine)), context_length=8)
        assert np.array_equal(mine, alone)


def test_every_block_holds_the_shares_and_every_batch_is_mixed() -> None:
    stream = mixed(batch_size=64)
    sources = np.concatenate([stream.batch(step)[0][:, 0] // 10_000 for step in range(10 * BLOCK // 64)])
    for block in sources.reshape(-1, BLOCK):
        shares = np.bincount(block, minlength=3) / BLOCK
        assert np.abs(shares - stream.weights).max() <= 2 / BLOCK
    counts = (sources.reshape(-1, 64) == 0).sum(1)
    # drawn without replacement from the block: the spread of the hypergeometric distribution
    assert counts.std() == pytest.approx(np.sqrt(64 * 0.6 * 0.4 * (BLOCK - 64) / (BLOCK - 1)), rel=0.2)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.integers(0, 10**7))
def test_no_block_takes_back_what_was_drawn(weights: list[float], block: int) -> None:
    total = sum(weights)
    sources = {str(n): Epochs(np.zeros(100, dtype=np.uint8), 8, 0) for n in range(len(weights))}
    if min(weights) / total * BLOCK < 2:
        return
    stream = BatchStream(sources, tuple(weight / total for weight in weights), 4, 0)
    whole = [np.array(stream.drawn(number * BLOCK)) for number in (block, block + 1)]
    assert (whole[1] >= whole[0]).all() and [drawn.sum() for drawn in whole] == [block * BLOCK, (block + 1) * BLOCK]
    drawn = (block + 1) * BLOCK
    # what stands below both ends of a part is rounded down, and the ends themselves to 32 bits
    assert np.abs(whole[1] - np.array(stream.weights) * drawn).max() <= 1 + 1e-3 + drawn / 2**32


def test_what_was_seen_is_told_by_source() -> None:
    seen = mixed().seen(1000)
    assert sum(source["tokens"] for source in seen.values()) == 1000 * 7 * 8
    assert seen["a"]["unique_tokens"] == 4000 and seen["c"]["unique_tokens"] == 90
    assert seen["a"]["epochs"] == pytest.approx(0.6 * 1000 * 7 * 8 / 4000, rel=0.01)
    few = stream_of(np.zeros(1000, dtype=np.uint8), batch_size=2, context_length=8, seed=0).seen(3)
    assert few == {"train": {"tokens": 48, "unique_tokens": 48, "epochs": 0.048}}


def test_the_order_is_the_one_of_every_run_so_far() -> None:
    # frozen: a change here makes every saved run go on with other batches than it began with
    stream = stream_of(np.arange(1000, dtype=np.uint16), batch_size=4, context_length=10, seed=0)
    assert starts(stream, 0) == [816, 366, 206, 56]
    assert starts(stream, 25) == [450, 690, 500, 180]


def test_targets_are_one_token_further() -> None:
    ids = np.arange(1000, dtype=np.uint16)
    inputs, targets = stream_of(ids, batch_size=5, context_length=20, seed=0).batch(2)
    assert inputs.shape == targets.shape == (5, 20)
    assert inputs.dtype == targets.dtype == np.int64
    assert np.array_equal(inputs + 1, targets)
    assert inputs.flags.c_contiguous and targets.flags.c_contiguous and inputs.flags.writeable


def test_only_the_epochs_and_blocks_in_use_are_kept() -> None:
    stream = mixed(batch_size=100)
    for step in range(100):
        stream.batch(step)
        assert len(stream._blocks) <= 2
        assert all(len(source._orders) <= 2 for source in stream.sources.values())


@pytest.mark.parametrize(
    ("tokens", "batch_size", "seed", "sentence"),
    [
        (64, 1, 0, "the training split has 64 tokens, less than one context of 64 and the token after it"),
        (0, 1, 0, "the training split has 0 tokens"),
        (650, 10, 0, "batch_size=10 is more than the 9 windows of 64 tokens in the training split; try batch_size=9"),
        (650, 1, -1, "seed=-1 must not be negative"),
    ],
)
def test_batches_that_cannot_be_made_are_refused(tokens: int, batch_size: int, seed: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        stream_of(np.zeros(tokens, dtype=np.uint16), batch_size=batch_size, context_length=64, seed=seed)


def test_a_source_that_is_hardly_drawn_is_refused() -> None:
    sources = {name: Epochs(np.zeros(100, dtype=np.uint8), 8, 0) for name in ("web", "code")}
    with pytest.raises(ValueError, match=r"code has 0.001 of the mixture, too little to be drawn evenly; give it at"):
        BatchStream(sources, (0.999, 0.001), 4, 0)
