"""python -m pytest tests/test_ranks.py, and with -m slow the long ones and those through torchrun"""

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch

from isoflop.config import read_run, spread_run
from isoflop.lm.checkpoint import load_required
from isoflop.lm.ranks import Ranks, is_echo, joined, named
from isoflop.lm.run import _device, _opened, open_run, start
from isoflop.lm.train import train
from isoflop.record import Record
from tests.ranks import together
from tests.test_train import lines, stop_before

MakeRun = Callable[..., Path]
GENTLE = {"lr": 1e-3, "lr_width": None}
"""At the small presets' own rate roundings grow by themselves."""


def spread(folder: Path, **choices: Any) -> Path:
    spread_run(folder, replace(read_run(folder).train, **choices))
    return folder


def losses(folder: Path) -> list[float]:
    return [line.get("train_loss", line.get("val_loss")) for line in lines(folder)]


def far(one: Path, other: Path) -> float:
    """How far the losses of two runs lie apart at most."""
    return max(abs(a - b) for a, b in zip(losses(one), losses(other), strict=True))


def equal(one: Path, other: Path) -> bool:
    mine, theirs = load_required(one).tensors, load_required(other).tensors
    assert {name: set(tensors) for name, tensors in mine.items()} == {name: set(t) for name, t in theirs.items()}
    return lines(one) == lines(other) and all(
        torch.equal(tensor, theirs[file][name]) for file, tensors in mine.items() for name, tensor in tensors.items()
    )


def fail(sentence: str) -> None:
    raise OSError(sentence)


def meet() -> None:
    with joined() as ranks, joined() as again:
        assert ranks == again == Ranks(int(os.environ["RANK"]), 2, ranks.rank) and ranks.first is (ranks.rank == 0)
        assert ranks.gather(ranks.rank, 0.1) == [(0.0, 0.1), (1.0, 0.1)]
        assert ranks.any(ranks.rank == 1) and not ranks.any(False)
        ranks.sum_into(total := torch.tensor([1.0 + ranks.rank]))
        assert total.item() == 3.0
        assert ranks.told("heard" if ranks.first else None) == "heard"
        assert ranks.agreed(lambda: ranks.rank) == ranks.rank
        with pytest.raises((ValueError, OSError), match=r"no disk$" if ranks.rank else r"no disk \(rank 1\)$"):
            ranks.agreed(lambda: None if ranks.first else fail("no disk"))
        if ranks.first:
            os._exit(3)
        ranks.gather(1.0)


def test_ranks_hear_and_agree() -> None:
    first, second = together(meet)
    assert first == "exit code 3"
    assert second == "ChildProcessError: another process of this run has ended, and with it this one"
    assert is_echo(ChildProcessError()) and not is_echo(ValueError("another"))


def test_who_a_process_is_stands_in_its_environment() -> None:
    assert named({}) == named({"WORLD_SIZE": "1"}) == Ranks()
    assert named({"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}) == Ranks(3, 4, 1)
    with pytest.raises(ValueError, match=r"not which of them this is \('RANK'\); start them by torchrun, or unset it"):
        named({"WORLD_SIZE": "4"})
    alone = Ranks()
    assert alone.told("x") == "x" and alone.agreed(lambda: 3) == 3 and alone.gather(1, 2) == [(1.0, 2.0)]


def train_whole_and_broken(whole: Path, broken: Path) -> None:
    asked = stop_before(4) if os.environ["RANK"] == "1" else lambda: False
    assert train(broken, should_stop=asked) is None  # one asks, both stop
    done, resumed = train(whole), train(broken)
    assert done == Record.read(whole / "record.json") and resumed == Record.read(broken / "record.json")


def train_before(folder: Path, stop: int) -> None:
    train(folder, should_stop=stop_before(stop))


@pytest.mark.parametrize("sharding", ["none", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_ranks_train_as_one_and_as_exactly(make_run: MakeRun, sharding: str) -> None:
    settings: dict[str, Any] = {"steps": 6, "grad_accum": 2, "optim": GENTLE, "model": {"num_layers": 1}}
    one, two, broken = (make_run(out=out, **settings) for out in ("one", "two", "broken"))
    for folder in (two, broken):
        spread(folder, sharding=sharding)
    record = train(one)
    assert together(train_whole_and_broken, two, broken) == ["", ""]
    assert far(one, two) < 2e-6 and equal(two, broken)
    found = Record.read(two / "record.json")
    assert record is not None and found.loss == pytest.approx(record.loss, abs=1e-6)
    kind = "2 cpu" if sharding == "none" else "2 cpu fsdp"
    assert found.measured["devices"] == [kind] and found.measured["bit_exact"] is True
    assert Record.read(broken / "record.json").measured["bit_exact"] is True
    assert found.measured["val_tokens"] == record.measured["val_tokens"]
    assert (found.measured["noise_scale"] is None) == (record.measured["noise_scale"] is None)
    began = [json.loads(line) for line in (broken / "journal.jsonl").read_text().splitlines()]
    assert [line for line in began if "began" in line or "done" in line] == [
        {"owner": began[0]["owner"], "began": 0},
        {"owner": began[0]["owner"], "began": 4},
        {"owner": began[0]["owner"], "done": 6},
    ]
    ours, theirs = load_required(one).tensors, load_required(two).tensors
    assert set(ours["optimizer"]) == set(theirs["optimizer"]) and set(theirs["random"]) == {"cpu", "cpu.1"}
    for name, tensor in ours["model"].items():
        torch.testing.assert_close(theirs["model"][name], tensor, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks_and_says_so(
    make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    settings: dict[str, Any] = {"steps": 6, "optim": GENTLE, "model": {"num_layers": 1, "residual_pdrop": 0.0}}
    whole, moved = make_run(out="whole", **settings), make_run(out="moved", **settings)
    train(whole)
    assert train(moved, should_stop=stop_before(2)) is None

    spread(moved, sharding="fsdp")
    assert together(train_before, moved, 1) == ["", ""]  # one more step on two, sharded
    spread(moved, sharding="none")
    assert together(train_before, moved, 1) == ["", ""]
    record = train(moved)
    assert record is not None and record.measured["devices"] == ["1 cpu", "2 cpu fsdp", "2 cpu"]
    assert record.measured["bit_exact"] is False
    assert far(whole, moved) < 2e-6
    assert "goes on with 1 cpu" not in caplog.text  # back where it began


@pytest.mark.slow
def test_the_noise_scale_of_ranks_is_that_of_parts(make_run: MakeRun) -> None:
    """The mean over the ranks' gradients, against the gradients of the two halves by hand."""
    folder = make_run(steps=1, optim=GENTLE)
    run = open_run(folder, read_run(folder))
    squares, length = [], 4 * 16
    for part in range(2):
        run.weights.zero()
        run.model.loss(*map(torch.from_numpy, run.stream.batch(0, part=part, parts=2))).backward()
        squares.append(run.weights.own_square())
    run.weights.zero()
    run.model.loss(*map(torch.from_numpy, run.stream.batch(0))).backward()
    small, big = sum(squares) / 2, run.weights.own_square()
    assert together(train, folder) == ["", ""]
    state = load_required(folder).state
    assert state["grad_noise"] * 50 == pytest.approx((small - big) / (2 / length - 1 / length), rel=1e-4)
    assert state["grad_signal"] * 50 == pytest.approx((length * big - length / 2 * small) / (length / 2), rel=1e-4)


def test_what_cannot_go_together_is_told_on_all_ranks(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    odd, held, muon = make_run(steps=2, batch_size=3), make_run(steps=2), make_run(steps=2, optim={"optimizer": "muon"})
    assert together(train, odd) == 2 * [
        "ValueError: batch_size=3 does not split over 2 devices in grad_accum=1 equal parts each; try batch_size=4, or "
        "fewer devices"
    ]
    with filelock.FileLock(held / "lock"):
        assert together(train, held) == 2 * [
            f"ValueError: {held} is being trained by another process; wait for it or stop it"
        ]
    spread(muon, sharding="fsdp")
    assert together(train, muon) == 2 * [
        "ValueError: optimizer=muon needs whole matrices, and sharding=fsdp leaves no rank any; choose adamw"
    ]
    with pytest.raises(ValueError, match="compile=True takes whole models, and sharding=fsdp leaves them in parts"):
        _opened(read_run(make_run(steps=2, compile=True, sharding="fsdp")), Ranks(0, 2, 0))
    monkeypatch.setattr(Ranks, "gather", lambda self, *values: [values, (7,)])
    with pytest.raises(ValueError, match=r"different steps in .* \(0, 7\); it must lie on a disk that all of them see"):
        start(held, read_run(held), None, Ranks())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ValueError, match="process 1 of this machine has no GPU of its own: it sees 1; start one"):
        _device("cuda", Ranks(0, 2, 1))


def test_recomputing_activations_changes_no_gradient(make_run: MakeRun) -> None:
    grads = []
    for recompute in (False, True):
        folder = spread(make_run(steps=1, model={"residual_pdrop": 0.1}), recompute=recompute)
        run = open_run(folder, read_run(folder))
        run.model.loss(*map(torch.from_numpy, run.stream.batch(0))).backward()
        grads.append([buffer.clone() for buffer in run.weights.reduced()])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_over_200_steps_two_ranks_have_the_losses_of_one(make_run: MakeRun, sharding: str) -> None:
    settings: dict[str, Any] = {"steps": 200, "batch_size": 8, "optim": GENTLE, "log_every": 1}
    one, two = make_run(out="one", **settings), spread(make_run(out="two", **settings), sharding=sharding)
    train(one)
    assert together(train, two) == ["", ""]
    assert losses(one)[0] - losses(one)[-1] > 1.0
    assert far(one, two) < 1e-5 and math.isfinite(losses(two)[-1])
