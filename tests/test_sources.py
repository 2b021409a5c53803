"""python -m pytest tests/test_sources.py"""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from isoflop.record import Record
from isoflop.sources import read

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the public tables lie beside the repository, not in it")


def csv(tmp_path: Path, text: str) -> Path:
    (tmp_path / "runs.csv").write_text(text)
    return tmp_path / "runs.csv"


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("params,tokens,loss", "1e6,2e7,3.5"),
        ("N,D,L", "1e6,2e7,3.5"),
        ("Parameters,compute,final_loss", "1e6,1.2e14,3.5"),
        ("tokens,training_flop,val_loss", "2e7,1.2e14,3.5"),
        ("params,tokens,flops,loss", "1e6,2e7,1.2e14,3.5"),
    ],
)
def test_two_of_n_d_and_c_suffice_under_any_usual_name(tmp_path: Path, header: str, row: str) -> None:
    records = read(csv(tmp_path, f"{header}\n{row}\n"))
    assert records.convention == "given"
    assert [float(x[0]) for x in (records.N, records.D, records.C, records.L)] == pytest.approx([1e6, 2e7, 1.2e14, 3.5])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("params,tokens,loss\n", "has no rows"),
        ("params,tokens\n1,2\n", "has no column loss; it has params, tokens"),
        ("params,loss\n1,2\n", "has no column tokens"),
        ("params,tokens,loss\n1e6,2e7,nan\n", "row 1: loss=nan must be positive and finite"),
        ("params,tokens,loss\n1e6,2e7,3\n-1,2e7,3\n", "row 2: params=-1 must be positive and finite"),
        ("params,tokens,loss\n1e6,many,3\n", "row 1: tokens='many' is no number"),
        ("params,tokens,loss,status\n1,2,3,odd\n", "status='odd' should be complete, diverged or failed"),
        ("params,tokens,loss,status\n1,2,3,failed\n", "has no complete run"),
        (
            "params,tokens,loss,series\n1,2,3,a\n1,2,3,b\n",
            "holds several series.* name it with --series: one of a, b",
        ),
    ],
)
def test_a_table_that_holds_no_runs_is_refused_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(csv(tmp_path, text))


def test_series_and_status_pick_rows(tmp_path: Path) -> None:
    path = csv(tmp_path, "params,tokens,loss,series,status,id\n1,2,3,a,,x\n4,5,6,b,,y\n7,8,,b,diverged,z\n")
    records = read(path, series="b")
    assert [run.id for run in records.runs] == ["y"]
    assert records.left_out == ("z: diverged",)
    with pytest.raises(ValueError, match="has no series 'c'"):
        read(path, series="c")
    with pytest.raises(ValueError, match="has no column series"):
        read(csv(tmp_path, "params,tokens,loss\n1,2,3\n"), series="a")


def test_json_tables(tmp_path: Path) -> None:
    path = tmp_path / "runs.json"
    path.write_text(json.dumps([{"parameters": 10, "compute_budget": 120, "final_loss": 2}]))
    records = read(path)
    assert (records.D[0], records.runs[0].budget) == (2, 120)
    path.write_text(json.dumps({"N": [1, 2], "D": [3, 4], "L": [5, 6]}))
    assert list(read(path).N) == [1, 2]
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="is no table"):
        read(path)


def test_a_folder_gives_its_complete_runs_and_never_the_target(tmp_path: Path) -> None:
    for where, status, loss in (
        ("runs/a", "complete", 1.0),
        ("runs/b", "diverged", None),
        ("target/t", "complete", 0.5),
    ):
        (tmp_path / where).mkdir(parents=True)
        record = Record(id=where[-1], params={"compute": 2.0}, tokens=1, flops=12, loss=loss, status=status)
        record.write(tmp_path / where / "record.json")
    records = read(tmp_path)
    assert [run.id for run in records.runs] == ["a"]
    assert (records.left_out, records.convention) == (("b: diverged",), "compute")
    assert [run.id for run in read(tmp_path / "runs").runs] == ["a"]


def test_a_folder_without_runs_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty holds no runs; give a study's folder, or a file that is a table"):
        read(tmp_path / "empty")
    (tmp_path / "empty" / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"holds no runs, but tables such as a\.csv; give"):
        read(tmp_path / "empty")
    (tmp_path / "empty" / "study.json").write_text("{}")
    with pytest.raises(ValueError, match=r"empty is a study of which no run has begun; `isoflop study run .*empty`"):
        read(tmp_path / "empty")
    for study in ("s1", "s2"):
        for run in "abcde":
            (tmp_path / "all" / study / "runs" / run).mkdir(parents=True)
            (tmp_path / "all" / study / "runs" / run / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"all holds no runs itself, but .*/s1 does"):
        read(tmp_path / "all")
    with pytest.raises(ValueError, match=r"has no complete run \(a: not finished; .*c: not finished and so on\)"):
        read(tmp_path / "all" / "s1")


def test_what_is_not_there_or_of_no_known_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read(tmp_path / "none.csv")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="is of no known kind; it should end in one of"):
        read(tmp_path / "a.txt")


def test_an_npy_of_dicts_is_read(tmp_path: Path) -> None:
    rows = np.array([{"step": 1, "tokens": np.float64(10.0), "flops": 120.0, "loss": 3.0}] * 2, dtype=object)
    np.save(tmp_path / "r.npy", rows)
    assert list(read(tmp_path / "r.npy").N) == [2.0, 2.0]


class Hostile:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_an_npy_that_tries_to_run_code_does_not(tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", np.array([Hostile(tmp_path / "pwned")], dtype=object))
    with pytest.raises(ValueError, match="which could run code"):
        read(tmp_path / "bad.npy")
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize("content", [b"", b"no numpy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O'"])
def test_a_broken_npy_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npy is no"):
        read(tmp_path / "x.npy")


def test_an_npy_of_numbers_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "n.npy", np.arange(3.0))
    with pytest.raises(ValueError, match="is no array of records"):
        read(tmp_path / "n.npy")


@needs_shared
def test_the_courses_own_files() -> None:
    curve = read(SHARED / "raw" / "scaling_records_70M.npy")
    assert len(curve) == 3556
    np.testing.assert_allclose(curve.N, 61_830_912, rtol=1e-9)
    assert len(read(SHARED / "raw" / "isoflops_curves.json")) == 72


def test_records_with_lists_in_them_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "r.npy", np.array([{"tokens": [1, [2]], "flops": 1.0, "loss": 2.0}], dtype=object))
    with pytest.raises(ValueError, match="something else than numbers and texts"):
        read(tmp_path / "r.npy")


def test_a_record_that_counts_n_in_another_way_is_told(tmp_path: Path) -> None:
    record = Record(id="a", params={"given": 1e6}, tokens=1e7, flops=6e13, loss=3.0)
    record.write(tmp_path / "a" / "record.json")
    with pytest.raises(ValueError, match="params='compute' is not known for run a"):
        read(tmp_path)
