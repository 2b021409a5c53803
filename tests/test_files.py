"""python -m pytest tests/test_files.py"""

import math
from pathlib import Path

import pytest

from isoflop.files import read_json, replacing, sha256, write_bytes, write_json


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    with pytest.raises(RuntimeError, match="half"), replacing(tmp_path / "a") as file:
        file.write(b"new")
        raise RuntimeError("half")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert (tmp_path / "a").read_bytes() == b"old"


def test_json_goes_round_and_refuses_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "deep" / "a.json", {"损失": [1.5, None]})
    assert read_json(tmp_path / "deep" / "a.json") == {"损失": [1.5, None]}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "b.json", math.nan)
    assert not (tmp_path / "b.json").exists()


def test_broken_json_names_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(ValueError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_key_said_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[{"params": 1, "loss": 2, "params": 3}]')
    with pytest.raises(ValueError, match=r"a\.json says 'params' twice in one object, and only one can hold; remove"):
        read_json(tmp_path / "a.json")


def test_hash(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"abc")
    assert sha256(tmp_path / "a").startswith("ba7816bf")


def test_json_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"deep.json is not valid JSON"):
        read_json(tmp_path / "deep.json")
