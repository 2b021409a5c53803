"""What a checkpoint survives: kill -9 inside a save, flipped bits, a full disk, pruning. Needs Linux.

python benchmarks/checkpoint.py --kills 200 --flips 1000
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from isoflop.lm import checkpoint as checkpoints
from isoflop.lm.checkpoint import Checkpoint, load_newest, save

FORK = multiprocessing.get_context("fork")
"""So that a victim does not import torch first."""


def main() -> None:
    """Run all parts and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--size", type=int, default=300_000, help="numbers in a tensor, of which there are ten")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.disable(logging.WARNING)  # each damaged checkpoint is named there
    torch.set_num_threads(1)
    chance = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        print(kills(Path(folder) / "kills", args.kills, args.size, chance), flush=True)
        print(flips(Path(folder) / "flips", args.flips, chance), flush=True)
        print(full_disk(Path(folder) / "full"), flush=True)
        print(pruning(Path(folder) / "pruning"), flush=True)


def made(step: int, size: int = 30) -> Checkpoint:
    """Return the checkpoint that a step has, the same wherever it is asked for."""
    draw = torch.Generator().manual_seed(step)
    tensors = {
        name: {f"{name}{part}": torch.randn(size, generator=draw) for part in range(5)}
        for name in ("model", "optimizer")
    }
    return Checkpoint(step=step, tensors=tensors, state={"seconds": step / 7})


def same(one: Checkpoint, other: Checkpoint) -> bool:
    """Tell whether two checkpoints are equal bit for bit."""
    keys = {name: list(tensors) for name, tensors in one.tensors.items()}
    return (
        (one.step, one.state) == (other.step, other.state)
        and keys == {name: sorted(other.tensors[name]) for name in one.tensors}
        and all(torch.equal(one.tensors[name][key], other.tensors[name][key]) for name in keys for key in keys[name])
    )


def saves(run: Path, first: int, size: int, said: Connection) -> None:
    """Save one step after the other, some of them twice, and say when a save begins and ends."""
    for step in range(first, first + 1000):
        whole = made(step, size)
        for _ in range(1 + step % 2):
            said.send(("begins", step))
            save(run, whole, keep_last=1 + step % 2)
            said.send(("ended", step))


def kills(run: Path, number: int, size: int, chance: random.Random) -> str:
    """Kill a process inside a save, again and again in one run, and look at what is left each time."""
    began = time.monotonic()
    save(run, made(1, size), keep_last=1)
    longest = 2 * (time.monotonic() - began)
    kept, new, lost, wrong, leftovers, step = 0, 0, 0, 0, 0, 1
    for _ in range(number):
        ours, theirs = FORK.Pipe()
        victim = FORK.Process(target=saves, args=(run, step, size, theirs), daemon=True)
        victim.start()
        done = step
        for _ in range(chance.randrange(1, 4)):
            while (said := ours.recv())[0] != "begins":
                done = said[1]
        time.sleep(chance.uniform(0, longest))
        assert victim.pid is not None
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        while ours.poll():
            event, at = ours.recv()
            done = at if event == "ended" else done
        loaded = load_newest(run)
        if loaded is None or loaded.step < done:
            lost += 1
        elif not same(made(loaded.step, size), loaded):
            wrong += 1
        else:
            kept, new = kept + (loaded.step == done), new + (loaded.step > done)
        step = max(done, loaded.step if loaded else 0)
    save(run, made(step + 1, size), keep_last=2)
    leftovers = sum(path.name.startswith(".") for path in (run / "checkpoints").iterdir())
    return (
        f"kill -9 inside a save, {number} times: {kept} old kept, {new} new, {lost} lost, {wrong} wrong, "
        f"{leftovers} leftovers after the next save"
    )


def flips(run: Path, number: int, chance: random.Random) -> str:
    """Flip one bit of the newest checkpoint at a time; an older one must be taken, or nothing may have changed."""
    save(run, made(1), keep_last=2)
    newest = save(run, made(2), keep_last=2)
    files = sorted(newest.iterdir())
    found, silent, by_file = 0, 0, dict.fromkeys((path.name for path in files), 0)
    for _ in range(number):
        path = chance.choice(files)
        content = path.read_bytes()
        at = chance.randrange(len(content) * 8)
        path.write_bytes(content[: at // 8] + bytes([content[at // 8] ^ 1 << at % 8]) + content[at // 8 + 1 :])
        loaded = load_newest(run)
        noticed = loaded is not None and same(made(1), loaded)
        found, silent, by_file[path.name] = found + noticed, silent + (not noticed), by_file[path.name] + 1
        path.write_bytes(content)
    said = ", ".join(f"{count} in {name}" for name, count in by_file.items())
    return f"flipped bits, {number} ({said}): {found} found and the older checkpoint taken, {silent} silent"


def full_disk(place: Path) -> str:
    """Fill a small file system while saving, look, make room, go on."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        return f"full disk: not run, no file system can be mounted here ({mounted.stderr.strip()})"
    try:
        save(place, made(1, 20_000), keep_last=1)
        said = _refused(lambda: save(place, made(2, 20_000), keep_last=1))
        there = sorted(path.name for path in (place / "checkpoints").iterdir())
        loaded = load_newest(place)
        intact = loaded is not None and same(made(1, 20_000), loaded)
        subprocess.run(["mount", "-o", "remount,size=4m", str(place)], check=True)
        save(place, made(2, 20_000), keep_last=1)
        after = load_newest(place)
        went_on = after is not None and same(made(2, 20_000), after)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    return f"full disk: {said!r}; there {there}; old one intact: {intact}; goes on with more room: {went_on}"


def _refused(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as error:
        return str(error.strerror)
    return "nothing was said"


def pruning(run: Path) -> str:
    """Damage what is written in each of ten saves; the last checkpoint that was sound must still be there."""
    save(run, made(1), keep_last=1)
    real, survived = checkpoints.write_bytes, 0
    try:
        checkpoints.write_bytes = lambda path, data: real(path, data[:-1] + bytes([data[-1] ^ 1]))
        for step in range(2, 12):
            save(run, made(step), keep_last=1)
            loaded = load_newest(run)
            survived += loaded is not None and same(made(1), loaded)
    finally:
        checkpoints.write_bytes = real
    save(run, made(12), keep_last=1)
    left = [path.name for path in sorted((run / "checkpoints").iterdir())]
    shutil.rmtree(run)
    return f"pruning: the last sound checkpoint outlived {survived} of 10 saves that a disk spoilt; then {left} is left"


if __name__ == "__main__":
    main()
