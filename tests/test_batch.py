"""python -m pytest tests/test_batch.py"""

from dataclasses import replace

import pytest

from isoflop.study.questions.batch import batch, critical_batch
from tests.questions import again, batches, record, records


def test_the_critical_batch_comes_back() -> None:
    answer = batch(batches(2000.0, 1e-3))
    assert answer.decided and "The critical batch is" in answer.verdict
    for row in answer.numbers["targets"]:
        assert row["critical"] == pytest.approx(2000, rel=0.2) and row["known"]
        assert row["low"] < 2100 and row["high"] > 1900
    at = answer.numbers["targets"][0]["tokens"]
    given = critical_batch(answer, at)
    assert given.value == pytest.approx(2000, rel=0.2) and given.low < given.value < given.high
    with pytest.raises(ValueError, match="more than ×4 outside what was measured"):
        critical_batch(answer, 20 * at)


def test_noise_leaves_the_critical_batch_open() -> None:
    answer = batch(batches(2000.0, 0.15))
    assert not answer.decided and answer.verdict.startswith("Not decided")
    with pytest.raises(ValueError, match="fewer than three losses have a known critical batch"):
        critical_batch(answer, 1e6)


def test_batches_that_reach_no_common_loss_are_refused() -> None:
    with pytest.raises(ValueError, match="3 batch sizes of made up cannot contradict"):
        batch(batches(2000.0, 0.0, sizes=(4, 8, 16)))
    far = [replace(run, loss=run.loss + run.config["train"]["batch_size"]) for run in batches(2000.0, 0.0).runs]
    with pytest.raises(ValueError, match="no loss is reached by every batch"):
        batch(records(far))


def test_a_rate_at_the_edge_leaves_the_batch_open() -> None:
    runs = [run for run in batches(2000.0, 1e-3).runs if run.config["optim"]["lr"] < 0.01]
    answer = batch(records(runs))
    assert not answer.decided and "are best at the first or last rate tried" in answer.verdict
    assert answer.numbers["edges"] == [256.0, 512.0, 1024.0, 2048.0, 4096.0]


def test_a_best_rate_at_the_edge_by_noise_alone_is_not_open() -> None:
    flat = [run for run in batches(2000.0, 1e-3).runs if run.config["optim"]["lr"] > 0.003]
    near = [replace(run, loss=run.loss - 0.04 * (run.config["optim"]["lr"] > 0.005)) for run in flat]
    more = [record(run.loss, **again(run, 0.02)) for run in flat if run.config["optim"]["lr"] > 0.005]  # type: ignore[arg-type]
    assert batch(records([*near, *more])).numbers["edges"] == []


def test_a_logged_noise_scale_is_told_along_the_run() -> None:
    runs = []
    for run in batches(2000.0, 1e-3).runs:
        last = 1700.0 + run.config["train"]["batch_size"]
        along = [300.0, 900.0, 1300.0, last if run.config["optim"]["lr"] == 0.005 else 9000.0]
        runs.append(replace(run, measured={**run.measured, "noise_scales": along}))
    answer = batch(records(runs))
    assert (
        "last quarter of runs of 2.62e6 tokens is 1716 tokens (least and greatest of 5 runs: 1704 and 1764)"
        in answer.verdict
    )
    assert answer.measured[-1].endswith(
        "300 (300 to 300), 900 (900 to 900), 1300 (1300 to 1300), 1716 (1704 to 1764) tokens"
    )
    beside = [line.split() for line in answer.measured[-6:-1]]
    assert [row[:3] for row in beside] == [
        [f"{D:.3g}", "5", "1716"] for D in (163840, 327680, 655360, 1310720, 2621440)
    ]
    assert float(beside[2][6]) == pytest.approx(2000, rel=0.2)  # the critical batch of the same D
    cut = {**runs[0].measured, "noise_scales": [1700.0]}
    short = [
        replace(run, measured=cut) if run.config["optim"]["lr"] == 0.005 and not i % 2 else run
        for i, run in enumerate(runs)
    ]
    with pytest.raises(AssertionError, match=r"noise scale at \[1, 4\] points, and must agree in how many"):
        batch(records(short))
    unlogged = [replace(run, measured={**run.measured, "noise_scales": None}) for run in runs]
    assert batch(records(unlogged)).numbers["noise_scale"] is None
