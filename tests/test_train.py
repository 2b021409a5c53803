"""python -m pytest tests/test_train.py"""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import filelock
import numpy as np
import pytest
import torch

from isoflop.config import OptimizerKind, Precision, read_run
from isoflop.files import read_json, write_json
from isoflop.flops import compute
from isoflop.lm import train as training
from isoflop.lm.checkpoint import load_required
from isoflop.lm.evaluate import evaluate
from isoflop.lm.model import Transformer
from isoflop.lm.run import load_model
from isoflop.lm.train import rehearse, train
from isoflop.record import Record

MakeRun = Callable[..., Path]


def lines(folder: Path) -> list[dict[str, Any]]:
    """The log without its clock."""
    read = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read]


def stop_before(*steps: int) -> Callable[[], bool]:
    asked = iter(range(1000))
    return lambda: next(asked) in steps


def test_a_run_learns_and_its_record_adds_up(make_run: MakeRun) -> None:
    folder = make_run(steps=40, optim={"lr": 0.01, "warmup_steps": 5})
    seen = []
    record = train(folder, on_progress=seen.append)
    assert record is not None and record == Record.read(folder / "record.json")
    config = read_run(folder)
    assert record.tokens == 40 * 4 * 16
    assert record.flops == record.tokens * compute(config.model)
    assert record.loss < 4.0 < math.log(256) and record.measured["train_loss"] < 4.0
    assert record.measured["bits_per_byte"] == pytest.approx(record.loss / math.log(2), rel=0.01)
    assert record.measured["bit_exact"] is True
    assert [line["step"] for line in lines(folder) if "val_loss" in line] == [*range(4, 40, 4), 40]
    assert (seen[-1].step, seen[-1].steps) == (40, 40)
    assert train(folder) == record  # done is done


@pytest.mark.parametrize(
    "settings",
    [
        {"model": {"attn_pdrop": 0.1, "residual_pdrop": 0.1}},
        {"precision": "bf16"},
        {"precision": "bf16", "grad_accum": 2, "model": {"attn_pdrop": 0.1, "residual_pdrop": 0.1, "mlp": "gelu"}},
        {"precision": "autocast"},
        {"grad_accum": 2},
        {"optim": {"optimizer": "muon"}},
        {"optim": {"optimizer": "sgd"}, "precision": "bf16"},
        {"model": {"norm": "rmsnorm", "norm_gain": True, "mlp": "swiglu", "tied_head": False, "position": "learned"}},
        {"model": {"parametrization": "completep", "base_width": 8, "base_depth": 1, "norm_bias": True}},
    ],
    ids=["dropout", "bf16", "bf16 dropout", "autocast", "accumulation", "muon", "sgd", "llama-like", "completep"],
)
def test_a_resumed_run_equals_an_unbroken_one_bit_for_bit(make_run: MakeRun, settings: dict) -> None:
    whole, broken = make_run(out="whole", steps=8, **settings), make_run(out="broken", steps=8, **settings)
    record = train(whole)
    assert train(broken, should_stop=stop_before(4)) is None
    assert train(broken, should_stop=stop_before(1)) is None
    resumed = train(broken)
    assert record is not None and resumed is not None
    assert resumed.loss == record.loss
    assert lines(broken) == lines(whole)
    for file, tensors in load_required(whole).tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, load_required(broken).tensors[file][name]), (file, name)


def test_a_killed_run_goes_on_from_its_last_checkpoint(make_run: MakeRun, monkeypatch) -> None:
    whole, killed = make_run(out="whole", steps=8), make_run(out="killed", steps=8)
    train(whole)
    step = training._step

    def die(run: Any, number: int, *batch: Any) -> Any:
        if number == 5:
            raise RuntimeError("killed")
        return step(run, number, *batch)

    monkeypatch.setattr(training, "_step", die)
    with pytest.raises(RuntimeError, match="killed"):
        train(killed)
    monkeypatch.undo()
    train(killed)
    assert lines(killed) == lines(whole)


def test_every_precision_learns_the_same_by_other_roundings(make_run: MakeRun) -> None:
    losses = {}
    for precision in get_args(Precision):
        record = train(make_run(steps=20, precision=precision, model={"mlp": "gelu", "context_length": 40}))
        assert record is not None
        losses[precision] = record.loss
    assert len(set(losses.values())) == 3
    assert max(losses.values()) - min(losses.values()) < 0.02


def test_accumulation_changes_memory_and_not_the_mathematics(make_run: MakeRun) -> None:
    whole, parts = train(make_run(steps=6)), train(make_run(steps=6, grad_accum=4))
    assert whole is not None and parts is not None
    assert parts.loss == pytest.approx(whole.loss, abs=1e-5)


def test_a_run_that_explodes_ends_as_diverged_and_keeps_its_last_checkpoint(make_run: MakeRun) -> None:
    folder = make_run(
        steps=200, checkpoint_every=1, optim={"lr": 1e4, "lr_width": None, "warmup_steps": 20, "grad_clip": None}
    )
    record = train(folder)
    assert record is not None
    assert (record.status, record.loss) == ("diverged", None)
    assert record.measured["diverged"].startswith("loss ")
    assert all(tensor.isfinite().all() for tensor in load_required(folder).tensors["model"].values())


def test_a_loss_that_is_not_a_number_ends_the_run_in_that_step(make_run: MakeRun, monkeypatch) -> None:
    folder = make_run(steps=9)
    step = training._step
    monkeypatch.setattr(training, "_step", lambda r, n, *b: (math.nan, 1.0, 0.1) if n == 4 else step(r, n, *b))
    record = train(folder)
    assert record is not None and record.status == "diverged" and record.measured["steps"] == 5
    assert load_required(folder).step == 3


def test_other_tokens_are_refused_before_any_compute(make_run: MakeRun) -> None:
    folder = make_run(steps=3)
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "data_sha256": "0" * 64})
    with pytest.raises(ValueError, match="holds other tokens"):
        train(folder)
    assert not (folder / "log.jsonl").exists()


def test_two_processes_on_one_run_have_one_winner(make_run: MakeRun) -> None:
    folder = make_run(steps=3)
    with filelock.FileLock(folder / "lock"), pytest.raises(ValueError, match="is being trained by another process"):
        train(folder)


def test_another_thread_count_goes_on_and_says_so(make_run: MakeRun) -> None:
    folder = make_run(steps=6)
    threads = torch.get_num_threads()
    train(folder, should_stop=stop_before(3))
    try:
        torch.set_num_threads(threads + 1)
        record = train(folder)
    finally:
        torch.set_num_threads(threads)
    assert record is not None and record.measured["bit_exact"] is False


def test_a_gpu_that_is_not_there_is_refused(make_run: MakeRun) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, so device=cuda is right here")
    with pytest.raises(ValueError, match="device=cuda, but torch finds no GPU here"):
        train(make_run(steps=3, device="cuda"))


def test_evaluation_takes_every_token_once_whatever_the_batch(make_run: MakeRun) -> None:
    folder = make_run(steps=3, model={"residual_pdrop": 0.5})
    train(folder)
    _, model = load_model(folder)
    ids = np.random.default_rng(0).integers(0, 256, 1000).astype(np.uint16)
    windows = np.arange(60, dtype=np.int64) * 16
    results = [evaluate(model.train(), ids, windows, batch_size=size) for size in (1, 7, 60)]
    assert {result.tokens for result in results} == {960}
    assert max(r.loss for r in results) - min(r.loss for r in results) < 1e-6
    assert model.training
    block = torch.from_numpy(ids[:961].astype(np.int64))
    plain = torch.nn.functional.cross_entropy(model.eval()(block[:960].view(60, 16)).flatten(0, 1), block[1:])
    assert results[0].loss == pytest.approx(plain.item(), abs=1e-5)
    assert replace(results[0], bytes_per_token=None).bits_per_byte is None


def test_a_model_comes_back_from_its_checkpoint(make_run: MakeRun) -> None:
    folder = make_run(steps=3)
    train(folder)
    config, model = load_model(folder)
    fresh = Transformer(config.model)
    assert not torch.equal(model.embed, fresh.embed)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_model(folder)


def test_a_stop_before_the_first_report_leaves_a_checkpoint(make_run: MakeRun) -> None:
    settings = {"steps": 12, "log_every": 12, "checkpoint_every": 2}
    whole, broken = make_run(out="whole", **settings), make_run(out="broken", **settings)
    assert train(broken, should_stop=stop_before(5)) is None
    record, expected = train(broken), train(whole)
    assert record is not None and expected is not None and record.loss == expected.loss


@pytest.mark.parametrize("optimizer", get_args(OptimizerKind))
def test_every_optimizer_learns(make_run: MakeRun, optimizer: str) -> None:
    record = train(make_run(steps=30, optim={"optimizer": optimizer, "warmup_steps": 5, "lr": 0.02}))
    assert record is not None and record.loss < 4.5 < math.log(256)


def test_the_noise_scale_is_logged_where_a_batch_has_parts(make_run: MakeRun) -> None:
    parts, whole = make_run(steps=9, grad_accum=4, log_every=1), make_run(steps=9, log_every=1)
    records = [train(folder) for folder in (parts, whole)]
    logged = [line["noise_scale"] for line in lines(parts) if "lr" in line]
    assert len(logged) == 9 and all(value is None or value > 0 for value in logged)
    assert records[0] is not None and records[0].measured["noise_scale"] == logged[-1]
    assert all("noise_scale" not in line for line in lines(whole))
    assert records[1] is not None and records[1].measured["noise_scale"] is None


def test_a_rehearsal_trains_in_memory_and_writes_nothing(make_run: MakeRun, tmp_path: Path) -> None:
    config = read_run(make_run(steps=3))
    before = sorted(tmp_path.rglob("*"))
    tried = rehearse(config, seconds=0.01)
    assert min(tried.step_seconds, tried.evaluation_seconds, tried.save_seconds) > 0 and tried.memory_bytes > 1e7
    assert sorted(tmp_path.rglob("*")) == before


def test_a_record_tells_unique_tokens(make_run: MakeRun) -> None:
    record = train(make_run(steps=3))
    assert record is not None and record.unique_tokens == record.tokens == 3 * 4 * 16


def test_choices_that_do_nothing_or_do_harm_are_told(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    alone = make_run(steps=2, sharding="fsdp")
    bound = make_run(steps=2, optim={"optimizer": "sgd"}, model={"parametrization": "mup", "base_width": 8})
    train(alone)
    train(bound)
    train(make_run(steps=2, optim={"optimizer": "sgd", "lr": 0.01}))
    assert [record.getMessage() for record in caplog.records] == [
        "sharding=fsdp spreads nothing over one device; give --devices N, or leave it out",
        "SGD's rates carry over widths only without a bound on the gradient's norm; give --grad-clip None",
    ]
