"""python -m pytest tests/test_record.py"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isoflop.record import SYMBOLS, Record, Records, of_a_run

RUNS = tuple(
    Record(id=f"r{n}", params={"compute": 10.0 * n, "body": 5.0 * n}, tokens=n, flops=60.0 * n * n, loss=1 / n)
    for n in (1, 2, 3)
)
RECORDS = Records(RUNS, source="somewhere")


def test_columns_are_the_papers_letters() -> None:
    for letter, values in {"N": [10, 20, 30], "D": [1, 2, 3], "C": [60, 240, 540], "L": [1, 1 / 2, 1 / 3]}.items():
        assert letter in SYMBOLS
        np.testing.assert_allclose(getattr(RECORDS, letter), values)


def test_take_by_mask_and_by_position() -> None:
    assert [run.id for run in RECORDS.take(RECORDS.N > 15).runs] == ["r2", "r3"]
    assert [run.id for run in RECORDS.take([2, 0]).runs] == ["r3", "r1"]
    assert len(RECORDS.take([])) == 0


def test_another_count_of_n() -> None:
    np.testing.assert_allclose(RECORDS.under("body").N, [5, 10, 15])
    with pytest.raises(ValueError, match="params='total' is not known for run r1 of somewhere; it has compute, body"):
        RECORDS.under("total")


def test_a_record_comes_back(tmp_path: Path) -> None:
    RUNS[1].write(tmp_path / "record.json")
    assert Record.read(tmp_path / "record.json") == RUNS[1]


def test_an_older_configuration_is_filled_up(tmp_path: Path) -> None:
    replace(RUNS[1], config={"model": {"d_model": 64}, "more": 1}).write(tmp_path / "record.json")
    config = Record.read(tmp_path / "record.json").config
    assert (config["model"]["d_model"], config["model"]["context_length"], config["more"]) == (64, 128, 1)


def test_a_number_that_no_run_has_is_refused() -> None:
    of_a_run("--flops 1e20", 1e20)
    for value, said in (
        (0.0, "must be a positive, finite number"),
        (1e41, "is of no run; give a number between 1e-09"),
    ):
        with pytest.raises(ValueError, match=f"--flops {value:g} {said}".replace("+", "[+]")):
            of_a_run(f"--flops {value:g}", value)


@pytest.mark.parametrize(
    "text", ["[]", '{"id": "x"}', '{"id": 1, "params": {}, "tokens": 1, "flops": 1, "loss": 1, "z": 1}']
)
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(ValueError, match="is not a record of a run"):
        Record.read(tmp_path / "record.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"params": None}, "params=None must be named values"),
        ({"params": {}}, "says nothing of the size"),
        ({"params": {"compute": "many"}}, "params="),
        ({"loss": "abc"}, "loss='abc' must be a number or left out"),
        ({"status": "weird"}, "status='weird' must be one of complete, diverged, failed"),
        ({"measured": None}, "measured=None must be named values"),
        ({"measured": {"seed": "x"}}, "measured seed='x' must be a number"),
        ({"measured": {"seconds": [3]}}, "measured seconds=[3] must be a number"),
        ({"config": {"model": 5}}, "config model=5 must be named values"),
        ({"config": {"model": {"d_model": "wide"}}}, "d_model='wide' must be a whole number"),
        ({"config": {"optim": {"speed": 1}}}, "unexpected keyword argument 'speed'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_values_that_no_run_can_have_are_refused(change: dict, said: str, tmp_path: Path) -> None:
    record = {"id": "a", "params": {"compute": 1.0}, "tokens": 1.0, "flops": 6.0, "loss": 3.0}
    (tmp_path / "record.json").write_text(json.dumps({**record, **change}))
    with pytest.raises(ValueError, match=re.escape(said)):
        Record.read(tmp_path / "record.json")
