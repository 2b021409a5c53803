"""Damaged files: python -m pytest tests/test_fuzz.py, more of them with ISOFLOP_FUZZ=2000 before it"""

import json
import os
import random
from pathlib import Path

import numpy as np
import pytest

from isoflop.law.fit import Fit, fit
from isoflop.law.uncertainty import bootstrap
from isoflop.sources import read
from tests.runs import isoflop_grid
from tests.test_table import mutate

COUNT = int(os.environ.get("ISOFLOP_FUZZ", "60"))
TRUTH = {"E": 1.7, "A": 400.0, "B": 1200.0, "alpha": 0.34, "beta": 0.37}
ODD: tuple[object, ...] = (
    *(None, True, -1, 0, 1e308, 1e-320, float("nan"), float("inf"), 10**400),
    *("", "abc", [], {}, [1], {"a": 1}),
)


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


def test_a_broken_table_of_json_is_fitted_or_refused(tmp_path: Path) -> None:
    rng, path = random.Random(2), tmp_path / "runs.json"
    some = isoflop_grid(TRUTH, sizes=3)
    rows = [{"params": n, "tokens": d, "loss": x} for n, d, x in zip(some.N, some.D, some.L, strict=True)]
    whole = json.loads(json.dumps(rows))
    outcomes = {"fitted": 0, "refused": 0}
    for _ in range(COUNT):
        path.write_bytes(damaged(whole, rng))
        try:
            fit(read(path))
            outcomes["fitted"] += 1
        except ValueError as error:
            assert str(error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > COUNT / 50, outcomes
