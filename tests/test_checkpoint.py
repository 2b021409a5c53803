"""python -m pytest tests/test_checkpoint.py"""

import errno
import logging
from pathlib import Path

import pytest
import torch

from isoflop.lm import checkpoint as checkpoints
from isoflop.lm.checkpoint import Checkpoint, load_newest, load_required, load_step, save


def at(step: int) -> Checkpoint:
    return Checkpoint(step=step, tensors={"model": {"w": torch.full((3,), float(step))}}, state={"seconds": step / 3})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, at(7), keep_last=2)
    loaded = load_newest(tmp_path)
    assert loaded is not None
    assert (loaded.step, loaded.state) == (7, {"seconds": 7 / 3})
    assert torch.equal(loaded.tensors["model"]["w"], torch.full((3,), 7.0))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 30):
        save(tmp_path, at(step), keep_last=2)
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000002", "step-00000030"]


def test_the_steps_that_branches_need_are_kept_besides(tmp_path: Path) -> None:
    for step in (1, 2, 3, 30):
        save(tmp_path, at(step), keep_last=1, keep_steps=(2,))
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000002", "step-00000030"]
    assert torch.equal(load_step(tmp_path, 2).tensors["model"]["w"], torch.full((3,), 2.0))
    with pytest.raises(ValueError, match="has no checkpoint of step 3; it has those of steps 2, 30"):
        load_step(tmp_path, 3)


@pytest.mark.parametrize("file", ["model.safetensors", "state.json", "manifest.json"])
def test_a_flipped_bit_is_noticed_named_and_passed_over(tmp_path: Path, file: str, caplog) -> None:
    save(tmp_path, at(1), keep_last=2)
    victim = save(tmp_path, at(2), keep_last=2) / file
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        loaded = load_newest(tmp_path)
    assert loaded is not None and loaded.step == 1
    assert "step-00000002 is damaged" in caplog.text


def test_a_full_disk_leaves_the_old_checkpoint_and_nothing_else(tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, at(1), keep_last=1)

    def full(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(checkpoints, "write_json", full)
    with pytest.raises(OSError, match="No space left"):
        save(tmp_path, at(2), keep_last=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    monkeypatch.undo()
    assert load_required(tmp_path).step == 1


def test_a_run_without_checkpoints_is_refused(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        load_required(tmp_path)
