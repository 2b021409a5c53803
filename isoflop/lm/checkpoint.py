"""Checkpoints: folders written beside, synced and renamed, each file with its checksum; the newest sound one counts."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from isoflop.files import read_json, sha256, sync_folder, write_bytes, write_json

Tensors = Mapping[str, Mapping[str, Tensor]]
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds."""

    step: int
    """Optimizer steps done."""
    tensors: Tensors
    """By file: model, optimizer, random."""
    state: Mapping[str, Any]
    """Plain values of the loop."""


def save(run: Path, checkpoint: Checkpoint, *, keep_last: int, keep_steps: Collection[int] = ()) -> Path:
    """Publish a checkpoint of a run as a whole, then remove all but the newest `keep_last` and those of `keep_steps`.

    Raises:
        OSError: the disk is full, say; the older checkpoints are as they were and nothing half-written stays.
    """
    final = run / "checkpoints" / f"step-{checkpoint.step:08d}"
    beside = final.with_name(f".{final.name}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        for name, data in packed(checkpoint):
            write_bytes(beside / f"{name}.safetensors", data)
        write_json(beside / "state.json", {"step": checkpoint.step, **checkpoint.state})
        write_json(beside / "manifest.json", {path.name: sha256(path) for path in sorted(beside.iterdir())})
        sync_folder(beside)
        if final.exists():
            shutil.rmtree(final)
        beside.rename(final)
        sync_folder(final.parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    for old in _published(run)[keep_last:]:
        if _step(old) not in keep_steps:
            shutil.rmtree(old)
    return final


def packed(checkpoint: Checkpoint) -> Iterator[tuple[str, bytes]]:
    """Yield the content of each file of tensors, by its name."""
    for name, tensors in checkpoint.tensors.items():
        # parameters are views of one buffer, which safetensors refuses to write: copy them out
        whole = {key: tensor.detach().cpu().clone() for key, tensor in tensors.items()}
        yield name, safetensors.torch.save(whole)


def load_newest(run: Path) -> Checkpoint | None:
    """Read the newest checkpoint whose checksums hold; None where there is none. Damaged ones are named in the log."""
    for folder in _published(run):
        if damaged := _damaged(folder):
            log.warning("checkpoint %s is damaged (%s); using an older one", folder, damaged)
            continue
        return _read(folder)
    return None


def load_step(run: Path, step: int) -> Checkpoint:
    """Read the checkpoint of a run after `step` steps.

    Raises:
        ValueError: it is not there, or its checksums do not hold.
    """
    folders = {_step(folder): folder for folder in reversed(_published(run))}
    if step not in folders:
        known = f"it has those of steps {', '.join(map(str, folders))}" if folders else "it has none yet"
        raise ValueError(f"{run} has no checkpoint of step {step}; {known}")
    if damaged := _damaged(folders[step]):
        raise ValueError(f"checkpoint {folders[step]} is damaged ({damaged}); train {run} again, or take another step")
    return _read(folders[step])


def load_required(run: Path) -> Checkpoint:
    """Read the newest sound checkpoint of a run.

    Raises:
        ValueError: there is none.
    """
    checkpoint = load_newest(run)
    if checkpoint is None:
        raise ValueError(f"{run} has no checkpoint yet; `isoflop train {run}` trains it")
    return checkpoint


def _published(run: Path) -> list[Path]:
    return sorted((run / "checkpoints").glob("step-*"), reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def _read(folder: Path) -> Checkpoint:
    state = read_json(folder / "state.json")
    tensors = {path.stem: safetensors.torch.load(path.read_bytes()) for path in folder.glob("*.safetensors")}
    return Checkpoint(step=state.pop("step"), tensors=tensors, state=state)


def _damaged(folder: Path) -> str | None:
    try:
        manifest = read_json(folder / "manifest.json")
        wrong = [name for name, digest in manifest.items() if sha256(folder / name) != digest]
    except (OSError, ValueError, AttributeError) as error:
        return str(error)
    return f"the content of {', '.join(wrong)} has changed" if wrong else None
