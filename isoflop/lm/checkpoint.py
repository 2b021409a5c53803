"""Checkpoints: folders written beside, synced and renamed, each file with its checksum; the newest sound one counts."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isoflop.files import read_json, replacing, sha256, sync_folder, write_bytes, write_json

Tensors = Mapping[str, Mapping[str, Tensor]]
log = logging.getLogger(__name__)

MANIFEST, STATE, WEIGHTS = "manifest.json", "state.json", ".safetensors"

# by the names of the safetensors format (github.com/huggingface/safetensors)
DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "I64": torch.int64, "U8": torch.uint8}
AGAIN = "-again"
"""Ends the name of a checkpoint that takes the place of one of the same step."""


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

    None is removed before the new one was read back and is sound.

    Raises:
        OSError: the disk is full, say; the older checkpoints are as they were and nothing half-written stays.
    """
    final = run / "checkpoints" / f"step-{checkpoint.step:08d}"
    for killed in final.parent.glob(".step-*"):
        shutil.rmtree(killed)
    beside = final.with_name(f".{final.name}")
    try:
        _write(beside, checkpoint)
        _publish(beside, final)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    if damaged := _damaged(final):
        log.warning("checkpoint %s was just written, but %s; older ones are kept", final, damaged)
        return final
    for old in _published(run)[keep_last:]:
        if _step(old) not in keep_steps:
            shutil.rmtree(old)
    return final


def packed(checkpoint: Checkpoint) -> Iterator[tuple[str, Iterator[Any]]]:
    """Yield each file of tensors by its name, as pieces that make a safetensors file: nothing is in memory twice."""
    for name, tensors in checkpoint.tensors.items():
        yield name, _pieces(tensors)


def _pieces(tensors: Mapping[str, Tensor]) -> Iterator[Any]:
    """Yield a safetensors file: the length of its header, the header, and the tensors, widest numbers first."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].itemsize, item[0]))
    header, start = dict[str, Any](), 0
    for key, tensor in ordered:
        end = start + tensor.nbytes
        header[key] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for _, tensor in ordered:
        yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()


def _unpacked(content: bytearray) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file as views of its content."""
    begin = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for key, entry in json.loads(content[8:begin]).items():
        if key != "__metadata__":
            shape, (start, _) = entry["shape"], entry["data_offsets"]
            flat = torch.frombuffer(content, dtype=DTYPES[entry["dtype"]], count=math.prod(shape), offset=begin + start)
            tensors[key] = flat.view(shape)
    return tensors


def _write(folder: Path, checkpoint: Checkpoint) -> None:
    state = {"step": checkpoint.step, **checkpoint.state}
    manifest = {STATE: _digest(data := json.dumps(state, indent=2, allow_nan=False).encode())}
    write_bytes(folder / STATE, data)
    for name, pieces in packed(checkpoint):
        # of the bytes in memory: a disk that returns others is then found out
        digest = hashlib.sha256()
        with replacing(folder / (name + WEIGHTS)) as file:
            for piece in pieces:
                digest.update(piece)
                file.write(piece)
        manifest[name + WEIGHTS] = digest.hexdigest()
    write_json(folder / MANIFEST, manifest)
    sync_folder(folder)


def _publish(beside: Path, final: Path) -> None:
    """Rename; where the step is there already, it goes only once the new one stands under a name that counts."""
    there = final.exists()
    published = final.with_name(f"{final.name}{AGAIN}") if there else final
    if there and published.exists():
        shutil.rmtree(published)
    beside.rename(published)
    sync_folder(final.parent)
    if there:
        shutil.rmtree(final)
        published.rename(final)
        sync_folder(final.parent)


def load_newest(run: Path) -> Checkpoint | None:
    """Read the newest checkpoint whose checksums hold; None where there is none. Damaged ones are named in the log."""
    for folder in _published(run):
        try:
            return _read(folder)
        except (ValueError, OSError) as error:
            log.warning("checkpoint %s is damaged (%s); using an older one", folder, error)
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
    return int(folder.name.removeprefix("step-").removesuffix(AGAIN))


def _manifest(folder: Path) -> dict[str, str]:
    """Return the checksum of each file of a checkpoint.

    Raises:
        ValueError: a file is missing, or one too many, or this is no checkpoint.
    """
    manifest: Any = read_json(folder / MANIFEST)
    there = {path.name for path in folder.iterdir()} - {MANIFEST}
    if not isinstance(manifest, dict) or set(manifest) != there or STATE not in there or len(there) < 2:
        raise ValueError(f"{MANIFEST} does not list the files that are there, {', '.join(sorted(there)) or 'none'}")
    return manifest


def _damaged(folder: Path) -> str | None:
    try:
        wrong = [name for name, digest in _manifest(folder).items() if sha256(folder / name) != digest]
    except (ValueError, OSError) as error:
        return str(error)
    return f"the content of {', '.join(wrong)} has changed" if wrong else None


def _read(folder: Path) -> Checkpoint:
    """Read a checkpoint; the bytes that are used are those that were checked."""
    state: dict[str, Any] = {}
    tensors = {}
    for name, digest in _manifest(folder).items():
        content = _content(folder / name)
        if _digest(content) != digest:
            raise ValueError(f"the content of {name} has changed")
        if name == STATE:
            state = json.loads(content)
        else:
            tensors[name.removesuffix(WEIGHTS)] = _unpacked(content)
    return Checkpoint(step=state.pop("step"), tensors=tensors, state=state)


def _content(path: Path) -> bytearray:
    """Read a file into memory that tensors may be views of and write to."""
    with path.open("rb") as file:
        content = bytearray(path.stat().st_size)
        file.readinto(content)  # whatever is missing from it, its checksum finds
        return content


def _digest(content: bytes | bytearray) -> str:
    return hashlib.sha256(content).hexdigest()
