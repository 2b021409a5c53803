"""Token folders from a corpus larger than memory: peak memory, speed beside `tokenizers` alone, kill -9, digests.

python benchmarks/data.py --gigabytes 2 --out /tmp/data-benchmark

The text is generated here, the same every time: JSON lines of made-up words whose frequencies follow Zipf's law.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np

from isoflop.data.build import Recipe, build
from isoflop.data.corpus import Corpus
from isoflop.data.digests import Digests
from isoflop.data.tokenizer import make_tokenizer
from isoflop.data.tokens import META

WORDS = 200_000
"""Different words; the bpe sees few of them often, as in a natural language."""
FILES = ("train.bin", "val.bin", "tokenizer.json", META)


def main() -> None:
    """Run the parts, or one side of one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the corpus that must not fit into memory")
    parser.add_argument("--slice", type=float, default=60.0, help="megabytes on which speeds are compared")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--documents", type=int, default=5_000_000, help="whose digests are held")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--side", choices=("ours", "alone"), help="used by the script itself")
    args = parser.parse_args()
    if args.side:
        print(json.dumps(SIDES[args.side](args.out)))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    for part in args.parts:
        PARTS[part](args)


def lines(megabytes: float, seed: int) -> Iterator[str]:
    """Yield documents of 100 to 800 words as JSON lines until they make so many bytes."""
    draw = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlcumwfgypbvk"))
    words = np.array(["".join(draw.choice(letters, size)) for size in draw.integers(1, 12, WORDS)])
    # a table in which each word stands in proportion to 1/rank, so that drawing is one look-up
    table = np.repeat(np.arange(WORDS), np.maximum(1, WORDS // np.arange(1, WORDS + 1)))
    draw, made = np.random.default_rng([1, seed]), 0
    while made < megabytes * 1e6:
        text = " ".join(words[table[draw.integers(0, len(table), draw.integers(100, 800))]])
        made += len(text)
        yield json.dumps({"text": text}) + "\n"


def generate(path: Path, megabytes: float, seed: int = 0) -> Path:
    """Write a corpus, unless it is there."""
    if not path.exists():
        beside = path.with_suffix(".part")
        with beside.open("w") as file:
            file.writelines(lines(megabytes, seed))
        beside.rename(path)
    return path


def large(out: Path, gigabytes: float) -> None:
    """Tokenize more than should be held in memory."""
    corpus = generate(out / "large.jsonl", gigabytes * 1000)
    target = out / "large"
    shutil.rmtree(target, ignore_errors=True)
    began = time.monotonic()
    command = [
        sys.executable,
        "-m",
        "isoflop",
        "data",
        str(corpus),
        "--out",
        str(target),
        "--tokenizer",
        "bpe",
        "--json",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    meta = json.loads(process.communicate()[0]) if process.stdout else {}
    usage = usage_of(process)
    seconds = time.monotonic() - began
    size = corpus.stat().st_size
    print(
        f"{size / 1e9:.2f} GB of JSON lines, {meta['train']['documents'] + meta['val']['documents']:,} documents: peak "
        f"{usage['rss'] / 1e6:.0f} MB, {seconds:.0f} s ({size / 1e6 / seconds:.2f} MB/s), {usage['cpu']:.0f} CPU s, "
        f"load {os.getloadavg()[0]:.1f}; the bpe learnt from {meta['learnt_from']['bytes'] / 1e6:.0f} MB",
        flush=True,
    )


def usage_of(process: subprocess.Popen[str]) -> dict[str, float]:
    """Return peak memory in bytes and CPU seconds of the children so far; the large one comes first."""
    import resource

    process.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"rss": used.ru_maxrss * 1024, "cpu": used.ru_utime + used.ru_stime}


def speeds(out: Path, megabytes: float, rounds: int) -> None:
    """Encode the same text by both, in turn, each in a process of its own that times its work alone."""
    corpus = generate(out / f"slice-{megabytes:g}.jsonl", megabytes, seed=1)
    (out / "slice.jsonl").unlink(missing_ok=True)
    (out / "slice.jsonl").symlink_to(corpus.name)
    texts = (json.loads(line)["text"] for line in corpus.open())
    make_tokenizer("bpe", texts).save(out / "slice-tokenizer.json")
    measured: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(rounds):
        for side, results in measured.items():
            command = [sys.executable, __file__, "--out", str(out), "--side", side]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            results.append(json.loads(done.stdout))
    size = corpus.stat().st_size / 1e6
    for side, results in measured.items():
        wall = statistics.median(result["seconds"] for result in results)
        cpu = statistics.median(result["cpu"] for result in results)
        print(f"{side:<6}{size / wall:6.2f} MB/s, {size / cpu:5.2f} MB per CPU second (medians of {rounds})")
    for what in ("seconds", "cpu"):
        ratios = [alone[what] / ours[what] for ours, alone in zip(measured["ours"], measured["alone"], strict=True)]
        said = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"ours over alone by {what}: {statistics.median(ratios):.3f} ({said}), load {os.getloadavg()[0]:.1f}")
    sys.stdout.flush()


def ours(out: Path) -> dict[str, float]:
    """Make a token folder: read twice, split, find duplicates, encode, hash, write, sync."""
    target = out / "slice"
    shutil.rmtree(target, ignore_errors=True)
    recipe = Recipe(corpus=Corpus(sources=(str(out / "slice.jsonl"),)), tokenizer=str(out / "slice-tokenizer.json"))
    began, cpu = time.perf_counter(), time.process_time()
    build(recipe, target)
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def alone(out: Path) -> dict[str, float]:
    """Call the library on all texts, which are in memory already, and let it use its own threads; keep nothing."""
    from tokenizers import Tokenizer

    texts = [json.loads(line)["text"] for line in (out / "slice.jsonl").open()]
    inner = Tokenizer.from_file(str(out / "slice-tokenizer.json"))
    began, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(texts), 1000):
        inner.encode_batch_fast(texts[start : start + 1000], add_special_tokens=False)
    return {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


SIDES = {"ours": ours, "alone": alone}


def kills(out: Path, number: int) -> None:
    """Kill builds at random moments; what stands under a final name must be whole, and the next build the same."""
    corpus = generate(out / "small.jsonl", 0.3, seed=2)
    began = time.monotonic()
    recipe = Recipe(corpus=Corpus(sources=(str(corpus),)), tokenizer="bpe", vocab_size=512)
    building(recipe, out / "whole").join()
    longest = time.monotonic() - began
    wanted, chance = content(out / "whole"), random.Random(0)
    assert set(wanted) == set(FILES)
    counts = {"killed": 0, "ended before": 0, "half files": 0, "reruns that differ": 0}
    while counts["killed"] < number:
        target = out / "killed"
        shutil.rmtree(target, ignore_errors=True)
        process = building(recipe, target)
        time.sleep(chance.uniform(0, longest))
        process.kill()
        process.join()
        counts["killed" if process.exitcode == -signal.SIGKILL else "ended before"] += 1
        counts["half files"] += any(wanted[name] != digest for name, digest in content(target).items())
        began = time.monotonic()
        building(recipe, target).join()
        longest = time.monotonic() - began  # as long as a build takes at this load
        counts["reruns that differ"] += content(target) != wanted
    print(", ".join(f"{count} {what}" for what, count in counts.items()), flush=True)


def building(recipe: Recipe, target: Path) -> BaseProcess:
    """Start a build in a process of its own, which need not import anything first: moments of a kill fall inside it."""
    process = multiprocessing.get_context("fork").Process(target=build, args=(recipe, target))
    process.start()
    return process


def content(folder: Path) -> dict[str, str]:
    """Hash the files that stand under their final names."""
    there = [folder / name for name in FILES if (folder / name).exists()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in there}


def digests(documents: int) -> None:
    """Compare the memory and time of the digests of many documents with Python's own set."""
    began, held = time.process_time(), Digests()
    for number in range(documents):
        held.add(hashlib.sha256(number.to_bytes(8, "big")).digest())
    ours_seconds, began = time.process_time() - began, time.process_time()
    plain = set()
    for number in range(documents):
        plain.add(hashlib.sha256(number.to_bytes(8, "big")).digest())
    plain_seconds = time.process_time() - began
    plain_bytes = sys.getsizeof(plain) + documents * sys.getsizeof(next(iter(plain)))
    print(
        f"digests of {documents:,} documents: {held.num_bytes / 1e6:.0f} MB in {ours_seconds:.1f} CPU s; "
        f"a set {plain_bytes / 1e6:.0f} MB in {plain_seconds:.1f} CPU s"
    )


PARTS = {
    "large": lambda args: large(args.out, args.gigabytes),
    "speeds": lambda args: speeds(args.out, args.slice, args.rounds),
    "kills": lambda args: kills(args.out, args.kills),
    "digests": lambda args: digests(args.documents),
}

if __name__ == "__main__":
    main()
