"""python -m pytest tests/test_compiled.py; against the loss as it is, and across a resume: -m slow"""

import logging
from pathlib import Path

import pytest
import torch

from isoflop.config import read_run
from isoflop.lm import compiled as module
from isoflop.lm.train import train
from tests.test_train import MakeRun, lines, stop_before


def test_without_a_compiler_a_run_says_so_and_is_the_one_of_before(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*args: object, **options: object) -> None:
        raise RuntimeError("No working C++ compiler found\nlong story")

    monkeypatch.setattr(module.torch, "compile", none)
    dropout = {"residual_pdrop": 0.1}
    plain, asked = make_run(steps=6, model=dropout), make_run(steps=6, model=dropout, compile=True)
    assert plain != asked and read_run(asked).train.compile
    with caplog.at_level(logging.WARNING):
        records = [train(folder) for folder in (plain, asked)]
    assert [record.getMessage() for record in caplog.records] == [
        "compile: torch finds no compiler that works here (RuntimeError: No working C++ compiler found); "
        "the run goes on without"
    ]
    assert lines(asked) == lines(plain)
    assert records[1] is not None
    assert (records[1].measured["compiled"], records[1].measured["devices"]) == (False, ["1 cpu"])


def test_whatever_compiles_is_used_and_leaves_no_trace_of_its_trial(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = list[int]()

    def pretend(loss, **options: object):
        def called(*args: torch.Tensor) -> torch.Tensor:
            calls.append(1)
            return loss(*args)

        return called

    monkeypatch.setattr(module.torch, "compile", pretend)
    settings = {"steps": 6, "grad_accum": 2, "model": {"residual_pdrop": 0.1}}
    plain = make_run(precision="autocast", **settings)
    broken = make_run(precision="bf16", compile=True, **settings)
    train(plain)
    assert train(broken, should_stop=stop_before(4)) is None
    record = train(broken)
    assert record is not None and len(calls) == 2 + 6 * 2  # each process tries once
    mine, theirs = ([line["train_loss"] for line in lines(folder) if "lr" in line] for folder in (broken, plain))
    assert mine == pytest.approx(theirs, abs=1e-4)  # compiled, bf16 is autocast's, and AdamW the fused one
    assert record.measured["devices"] == ["1 cpu compiled"] and not record.measured["bit_exact"]


def test_a_run_that_finds_no_compiler_any_more_goes_on_and_says_so(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(steps=6, compile=True)
    monkeypatch.setattr(module.torch, "compile", lambda loss, **options: loss)
    train(folder, should_stop=stop_before(3))
    monkeypatch.setattr(module.torch, "compile", lambda loss, **options: 1 / 0)
    record = train(folder)
    assert record is not None and record.measured["devices"] == ["1 cpu compiled", "1 cpu"]
    assert record.measured["bit_exact"] is False


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of its own parts
def test_compiled_losses_are_those_of_before_up_to_rounding_also_resumed(make_run: MakeRun, unchecked: None) -> None:
    """Sums in another order: within 1e-4 nats over 50 steps at a rate of 1e-3, at which roundings do not grow."""
    settings = {"steps": 50, "log_every": 1, "model": {"residual_pdrop": 0.1}, "optim": {"lr": 1e-3, "lr_width": None}}
    folders: list[Path] = [make_run(out=name, compile=name != "eager", **settings) for name in ("eager", "a", "b")]
    train(folders[0])
    record = train(folders[1])
    assert record is not None and record.measured["compiled"]
    train(folders[2], should_stop=stop_before(20))
    resumed = train(folders[2])
    assert resumed is not None and not record.measured["bit_exact"] and not resumed.measured["bit_exact"]
    eager, once, twice = ([line["train_loss"] for line in lines(folder) if "lr" in line] for folder in folders)
    assert max(abs(a - b) for a, b in zip(eager, once, strict=True)) < 1e-4
    assert max(abs(a - b) for a, b in zip(once, twice, strict=True)) < 1e-4
