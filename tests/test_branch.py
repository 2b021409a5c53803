"""python -m pytest tests/test_branch.py"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from isoflop.config import RunConfig, read_run, write_run
from isoflop.flops import compute
from isoflop.lm.branch import branch, parse_place
from isoflop.lm.checkpoint import load_required
from isoflop.lm.schedule import stable_steps
from isoflop.lm.train import train
from tests.test_train import lines, stop_before

MakeRun = Callable[..., Path]
PER_STEP = 4 * 16
FACTS: dict[str, Any] = {"train_tokens": 10**4}


def branch_off(trunk: Path, step: int, steps: int, **more: Any) -> Path:
    config = branch(read_run(trunk), step, tokens=steps * PER_STEP, folder=f"../{trunk.name}", **FACTS, **more)
    return write_run(config, trunk.parent)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"precision": "bf16"},
        {"precision": "autocast", "grad_accum": 2, "model": {"residual_pdrop": 0.1}},
        {"optimizer": "muon"},
        {"optimizer": "sgd"},
        {"schedule": "power"},
        {"schedule": "constant"},
    ],
    ids=["fp32", "bf16", "autocast dropout", "muon", "sgd", "power", "constant"],
)
def test_a_branch_equals_an_unbroken_run_of_its_length_bit_for_bit(make_run: MakeRun, settings: dict) -> None:
    optim = {"warmup_steps": 3, "schedule": "wsd", "decay_fraction": 0.25}
    optim |= {name: settings.pop(name) for name in list(settings) if name in ("optimizer", "schedule")}
    trunk = make_run(steps=20, keep_steps=(9,), keep_last=1, optim=optim, **settings)
    assert train(trunk) is not None
    folder = branch_off(trunk, 9, 12, decay_fraction=0.25)
    assert train(folder, should_stop=stop_before(1)) is None  # a branch resumes as any run does
    record = train(folder)
    optim |= {"schedule": read_run(folder).optim.schedule, "warmup_fraction": 0.0}
    unbroken = make_run(out="unbroken", tokens=12 * PER_STEP, optim=optim, **settings)
    assert read_run(folder).optim == read_run(unbroken).optim
    expected = train(unbroken)
    assert record is not None and expected is not None
    assert (record.loss, record.tokens, record.flops) == (expected.loss, expected.tokens, expected.flops)
    for file, tensors in load_required(unbroken).tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, load_required(folder).tensors[file][name]), (file, name)
    shared = [line for line in lines(unbroken) if line["step"] > 9]
    assert lines(folder) == shared


def test_a_branch_costs_what_it_trains_and_shares_its_trunks_error(make_run: MakeRun) -> None:
    trunk = make_run(steps=20, keep_steps=(10,), optim={"warmup_steps": 3, "schedule": "wsd"})
    whole = train(trunk)
    record = train(branch_off(trunk, 10, 14))
    assert whole is not None and record is not None
    assert record.tokens == 14 * PER_STEP and record.measured["spent_tokens"] == 4 * PER_STEP
    assert record.measured["spent_flops"] == 4 * PER_STEP * compute(read_run(trunk).model)
    assert whole.measured["spent_flops"] == whole.flops
    assert record.group == whole.group == trunk.name != record.id
    assert record.config["trunk"] == {"run": trunk.name, "step": 10, "folder": f"../{trunk.name}"}


def test_without_a_fraction_the_rate_falls_from_the_first_step_on(make_run: MakeRun) -> None:
    config = read_run(make_run(steps=900, optim={"schedule": "constant", "warmup_steps": 7, "warmup_fraction": 0.0}))
    for step, steps in ((8, 28), (500, 901), (333, 1000), (899, 1200)):
        made = branch(config, step, tokens=steps * PER_STEP, folder=".", **FACTS)
        assert stable_steps(made.optim, steps) == step


@pytest.mark.parametrize(
    ("change", "step", "steps", "said"),
    [
        (
            {"schedule": "cosine"},
            9,
            12,
            "schedule=cosine falls from the warm-up on.*--schedule constant or wsd",
        ),
        ({}, 18, 24, r"cannot leave .* at step 18: its warm-up ends at step 3 and its rate falls from step 17 on"),
        ({}, 3, 12, "cannot leave .* at step 3"),
        ({}, 9, 9, "576 tokens are 9 steps, and step 9 is past them; give more to --decay-to"),
        (
            {"warmup_steps": 5},
            9,
            12,
            "the warm-up of .*, 5 steps, is more than a quarter of a branch of 12; give at least 1,280",
        ),
    ],
)
def test_a_branch_that_would_be_another_run_is_refused(
    make_run: MakeRun, change: dict, step: int, steps: int, said: str
) -> None:
    config = read_run(make_run(steps=20, optim={"warmup_steps": 3, "schedule": "wsd", **change}))
    with pytest.raises(ValueError, match=said):
        branch(config, step, tokens=steps * PER_STEP, folder=".", **FACTS)


def test_a_decay_that_begins_before_the_branch_is_refused(make_run: MakeRun) -> None:
    config = read_run(make_run(steps=20, optim={"warmup_steps": 3, "schedule": "wsd"}))
    with pytest.raises(ValueError, match="begins at step 8, before step 9 of the trunk; give an earlier step"):
        branch(config, 9, tokens=12 * PER_STEP, folder=".", decay_fraction=0.5, **FACTS)


def test_a_trunk_that_is_gone_or_another_is_named(make_run: MakeRun) -> None:
    trunk = make_run(steps=20, keep_steps=(10,), checkpoint_every=8, optim={"warmup_steps": 3, "schedule": "wsd"})
    train(trunk)
    with pytest.raises(ValueError, match="has no checkpoint of step 9; it has those of steps 10, 16, 20"):
        train(branch_off(trunk, 9, 14))
    other = make_run(steps=21, optim={"warmup_steps": 3, "schedule": "wsd"})
    config = read_run(branch_off(trunk, 10, 14))
    assert config.trunk is not None
    lost = write_run(replace(config, trunk=replace(config.trunk, folder=f"../{other.name}")), trunk.parent.parent / "b")
    (other.parent.parent / "b" / other.name).symlink_to(other)
    with pytest.raises(ValueError, match=f"is a branch of run {trunk.name}, but .* holds {other.name}; bring"):
        train(lost)


def test_a_damaged_trunk_is_named(make_run: MakeRun) -> None:
    trunk = make_run(steps=20, keep_steps=(10,), optim={"warmup_steps": 3, "schedule": "wsd"})
    train(trunk)
    victim = trunk / "checkpoints" / "step-00000010" / "optimizer.safetensors"
    content = bytearray(victim.read_bytes())
    content[-3] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ValueError, match="step-00000010 is damaged"):
        train(branch_off(trunk, 10, 14))


def test_the_trunk_is_part_of_what_a_run_is(make_run: MakeRun) -> None:
    trunk = make_run(steps=20, optim={"warmup_steps": 3, "schedule": "wsd"})
    config = read_run(trunk)
    made, later = (branch(config, step, tokens=15 * PER_STEP, folder="..", **FACTS) for step in (8, 9))
    assert RunConfig.from_dict(made.to_dict()) == made and len({config.id, made.id, later.id}) == 3
    assert made.trunk is not None
    assert replace(made, trunk=replace(made.trunk, folder="elsewhere")).id == made.id
    assert any("trunk=" in told for told in made.differences(later))


def test_places_are_read(tmp_path: Path) -> None:
    assert parse_place("runs/d8@400") == (Path("runs/d8"), 400)
    assert parse_place("runs/d8") == (Path("runs/d8"), None)
    (tmp_path / "a@b").mkdir()
    assert parse_place(str(tmp_path / "a@b")) == (tmp_path / "a@b", None)
    with pytest.raises(ValueError, match="'runs/d8@last' names no checkpoint"):
        parse_place("runs/d8@last")
