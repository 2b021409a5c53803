"""Damaged files: python -m pytest tests/test_fuzz.py, more of them with ISOFLOP_FUZZ=2000 before it"""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from isoflop.law.fit import Fit, fit
from isoflop.law.uncertainty import bootstrap
from isoflop.sources import read
from tests.runs import isoflop_grid

COUNT = int(os.environ.get("ISOFLOP_FUZZ", "60"))
TRUTH = {"E": 1.7, "A": 400.0, "B": 1200.0, "alpha": 0.34, "beta": 0.37}
ODD: tuple[object, ...] = (
    *(None, True, -1, 0, 1e308, 1e-320, float("nan"), float("inf"), 10**400),
    *("", "abc", [], {}, [1], {"a": 1}),
)


CELLS = [
    "",
    "nan",
    "inf",
    "-1",
    "0",
    "1e308",
    "1e-320",
    "abc",
    '"',
    ",",
    "\n",
    "\0",
    "é",
    "1e6",
    "﻿",
    " ",
    "NULL",
    "1,2",
    "٣",
]


def mutate(text: str, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(text) + 1)
        kind = rng.randrange(5)
        if kind == 0:
            text = text[:at] + rng.choice(CELLS) + text[at:]
        elif kind == 1:
            text = text[:at] + text[at + rng.randint(1, 20) :]
        elif kind == 2:
            lines = text.split("\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            text = "\n".join(lines)
        elif kind == 3:
            cells = text.split(",")
            cells[rng.randrange(len(cells))] = rng.choice(CELLS)
            text = ",".join(cells)
        else:
            text = text[:at]
        text = text or "x"
    raw = text.encode()
    return raw if rng.random() < 0.9 else raw.replace(b"e", b"\xff", 1)


def swap(value: object, rng: random.Random) -> object:
    """Put something odd or another number in one place of a JSON value, or leave one out."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: part for name, part in value.items() if name != key}
        return {**value, key: swap(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        at = rng.randrange(len(value))
        return value[:at] + [swap(value[at], rng)] * rng.randint(0, 2) + value[at + 1 :]
    if isinstance(value, float) and rng.random() < 0.5:
        return value * rng.uniform(0.5, 2)
    return rng.choice(ODD)


def damaged(value: object, rng: random.Random) -> bytes:
    for _ in range(rng.randint(1, 3)):
        value = swap(value, rng)
    text = json.dumps(value)
    return mutate(text, rng) if rng.random() < 0.3 else text.encode()


@pytest.mark.usefixtures("unchecked")
def test_a_broken_fit_is_read_or_refused(tmp_path: Path) -> None:
    """What is read answers with numbers."""
    rng, path = random.Random(1), tmp_path / "fit.json"
    noisy = isoflop_grid(TRUTH, sizes=3, noise=0.01)
    whole = json.loads(json.dumps(bootstrap(fit(noisy), replicates=10).to_dict()))
    outcomes = {"read": 0, "refused": 0}
    for _ in range(COUNT):
        path.write_bytes(damaged(whole, rng))
        try:
            found = Fit.read(path)
            with np.errstate(all="ignore"):
                assert np.shape(found.loss(1e9, 2e10)) == () and len(found.records)
                json.dumps(found.to_dict())
            outcomes["read"] += 1
        except ValueError as error:
            assert str(error).startswith(str(path)) or "must be" in str(error), error
            outcomes["refused"] += 1
    assert min(outcomes.values()) > COUNT / 50, outcomes


def fitted_or_refused(path: Path, make: Callable[[], bytes], *, count: int) -> None:
    """Fit tables as they are made: each has a fit or a sentence, and there are some of both."""
    outcomes = {"fitted": 0, "refused": 0}
    for _ in range(count):
        path.write_bytes(make())
        try:
            fit(read(path))
            outcomes["fitted"] += 1
        except ValueError as error:
            assert str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > count / 50, outcomes


def test_a_broken_table_of_json_is_fitted_or_refused(tmp_path: Path) -> None:
    rng = random.Random(2)
    some = isoflop_grid(TRUTH, sizes=3)
    rows = [{"params": n, "tokens": d, "loss": x} for n, d, x in zip(some.N, some.D, some.L, strict=True)]
    whole = json.loads(json.dumps(rows))
    fitted_or_refused(tmp_path / "runs.json", lambda: damaged(whole, rng), count=COUNT)


@pytest.mark.slow
def test_two_thousand_broken_tables_are_fitted_or_refused(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [
        (10**n, 10**d, 2 + 400 * 10 ** (-0.35 * n) + 900 * 10 ** (-0.35 * d)) for n in (7, 8, 9) for d in (9, 10, 11)
    ]
    whole = "params,tokens,loss,series,epochs,status\n" + "".join(f"{n},{d},{x},a,1,complete\n" for n, d, x in rows)
    fitted_or_refused(tmp_path / "t.csv", lambda: mutate(whole, rng), count=2000)
