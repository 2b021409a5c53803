"""`isoflop demo`: the other commands in the order of the data, each shown as it would be typed."""

from __future__ import annotations

import json as json_module
import os
import shlex
import sys
import time
from pathlib import Path

import isoflop
from isoflop.cli.steps import Failed, step


def demo(*, small: bool = False, out: str | None = None, seed: int = 0, json: bool = False) -> None:
    """Go the whole way once: train a study on Python's own sources, fit the law, forecast a larger run, train it.

    Each step is a command of its own, printed before it runs; what is done already is not done again.

    Args:
        small: Twelve smaller runs, a minute instead of five.
        out: Folder of the study; None: its name, with the seed unless that is 0.
        seed: Seed of the training runs.
        json: Print what each step answers, and what failed, as one JSON object.
    """
    name = "demo-small" if small else "demo"
    folder = out or (name if seed == 0 else f"{name}-{seed}")
    began = time.monotonic()
    answers = {}
    for said, words in (
        ("Train the study: its budgets, and several sizes at each", ["study", "run", _file(name), "--out", folder]),
        ("Fit the law to its runs", ["fit", folder]),
        ("Write down what a larger run will reach, before it exists", ["lock", folder]),
        ("Train that run", ["study", "run", folder, "--target"]),
        ("Set forecast and measurement side by side", ["score", folder]),
        ("Draw the figures and the page", ["render", folder]),
    ):
        words = [*words, "--seed", str(seed)] if words[:2] == ["study", "run"] and "--out" in words else words
        if not json:
            print(f"\n# {said}\n$ isoflop {shlex.join(words)}", flush=True)
        try:
            answers[shlex.join(words)] = step(words, json=json)
        except Failed as failed:
            seconds = time.monotonic() - began
            print(json_module.dumps({"seconds": seconds, "steps": answers, "failed": failed.told}))
            sys.exit(failed.code)
    seconds = time.monotonic() - began
    print(json_module.dumps({"seconds": seconds, "steps": answers}) if json else f"\nDone in {seconds:.0f} s.")


def _file(name: str) -> str:
    """Path of a study file that comes with isoflop: beside the package in a checkout, inside it once installed."""
    package = Path(isoflop.__file__).parent
    path = next(path for place in (package.parent, package) if (path := place / "studies" / f"{name}.toml").exists())
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
