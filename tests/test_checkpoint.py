"""python -m pytest tests/test_checkpoint.py"""

import errno
import logging
from pathlib import Path

import pytest
import safetensors.torch
import torch

from isoflop.files import read_json, sha256, write_json
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


def test_its_files_are_safetensors(tmp_path: Path) -> None:
    flat = torch.arange(10.0)
    tensors = {
        "view": flat[2:8].view(2, 3),
        "number": torch.tensor(2.5),
        "half": flat.bfloat16(),
        "random": flat.byte(),
    }
    folder = save(tmp_path, Checkpoint(step=1, tensors={"model": tensors}, state={}), keep_last=1)
    read, loaded = safetensors.torch.load_file(folder / "model.safetensors"), load_required(tmp_path).tensors["model"]
    assert set(read) == set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor) and torch.equal(loaded[name], tensor)


def test_files_that_the_library_wrote_are_read(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.arange(5, dtype=torch.uint8)}
    folder = save(tmp_path, Checkpoint(step=1, tensors={"model": tensors}, state={}), keep_last=1)
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", manifest | {"model.safetensors": sha256(folder / "model.safetensors")})
    loaded = load_required(tmp_path).tensors["model"]
    assert torch.equal(loaded["a"], tensors["a"]) and torch.equal(loaded["b"], tensors["b"])


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


@pytest.mark.parametrize("manifest", ["{}", "[]", '{"state.json": "0"}'])
def test_a_manifest_that_does_not_list_the_files_is_damage(tmp_path: Path, manifest: str) -> None:
    save(tmp_path, at(1), keep_last=2)
    newest = save(tmp_path, at(2), keep_last=2)
    (newest / "manifest.json").write_text(manifest)
    loaded = load_newest(tmp_path)
    assert loaded is not None and loaded.step == 1


def test_a_file_too_many_is_damage(tmp_path: Path) -> None:
    (save(tmp_path, at(2), keep_last=2) / "more.safetensors").write_bytes(b"")
    assert load_newest(tmp_path) is None


def test_the_last_sound_checkpoint_outlives_what_a_disk_spoilt(tmp_path: Path, monkeypatch, caplog) -> None:
    save(tmp_path, at(1), keep_last=1)
    real = checkpoints.write_bytes
    monkeypatch.setattr(checkpoints, "write_bytes", lambda path, data: real(path, data[:-1] + b"?"))
    save(tmp_path, at(2), keep_last=1)
    assert "older ones are kept" in caplog.text and load_required(tmp_path).step == 1
    monkeypatch.undo()
    save(tmp_path, at(3), keep_last=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000003"]


def test_the_same_step_is_saved_again_without_a_gap(tmp_path: Path, monkeypatch) -> None:
    save(tmp_path, at(4), keep_last=1)
    (tmp_path / "checkpoints" / ".step-00000003").mkdir()  # a killed save's

    def killed(path: Path) -> None:
        if path.name == "step-00000004":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.shutil, "rmtree", lambda path, **options: killed(path))
        with pytest.raises(KeyboardInterrupt):
            save(tmp_path, at(4), keep_last=1)
    assert load_required(tmp_path).step == 4
    save(tmp_path, at(4), keep_last=1)
    save(tmp_path, at(5), keep_last=1)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000005"]
