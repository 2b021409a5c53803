"""python -m pytest tests/test_table.py"""

import importlib
import math
import os
import re
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.sources import read
from isoflop.sources.columns import Columns
from isoflop.sources.series import names

SHARED = Path(os.environ.get("ISOFLOP_DATA", Path(__file__).parents[2] / "shared" / "data"))


def csv(tmp_path: Path, text: str) -> Path:
    (tmp_path / "runs.csv").write_text(text)
    return tmp_path / "runs.csv"


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = csv(tmp_path, "my n,toks,final,loss\n1e6,2e7,3.5,9\n")
    records = read(path, columns=Columns(params_column="my n", tokens_column="toks", loss_column="final"))
    assert (records.N[0], records.D[0], records.L[0]) == (1e6, 2e7, 3.5)
    assert records.notes == ("N from column my n, D from column toks, C = 6ND, L from column final",)
    assert records.source == str(path)
    with pytest.raises(ValueError, match="has no column 'nope' to be its flops; it has my n, toks, final, loss"):
        read(path, columns=Columns(flops_column="nope"))
    assert main(["diagnose", str(path), "--params-column", "my n"]) == 2
    with pytest.raises(ValueError, match=r"columns are said of .* a folder of runs"):
        read(tmp_path, columns=Columns(flops_column="c"))


@pytest.mark.parametrize(
    ("word", "convention"), [("total", "total"), ("non_embedding", "body"), ("active_with_head", "given")]
)
def test_a_table_says_how_it_counts_n(tmp_path: Path, word: str, convention: str) -> None:
    records = read(csv(tmp_path, f"N,D,L,param_convention\n1,2,3,{word}\n"))
    assert records.convention == convention
    assert records.notes == (() if word == convention else (f"N is counted as {word}, in the table's own word",))
    assert records.under("given").N[0] == 1


def test_counts_of_n_are_not_mixed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"counts N in several ways \(not said, total\), which no law mixes"):
        read(csv(tmp_path, "N,D,L,param_convention\n1,2,3,total\n4,5,6,\n"))


def test_nanochats_results(tmp_path: Path) -> None:
    header = (
        "flops_budget,depth,model_dim,params_transformer,params_total,num_iterations,tokens_trained,val_bpb,core_score"
    )
    path = csv(tmp_path, f"{header}\n1e18,10,640,4e7,1e8,900,5e8,0.9,0.1\n")
    with pytest.raises(ValueError, match=r"loss in bits per byte \(val_bpb\); give --bytes-per-token"):
        read(path)
    records = read(path, columns=Columns(bytes_per_token=4.5))
    assert records.L[0] == pytest.approx(0.9 * math.log(2) * 4.5)
    assert (records.convention, records.N[0], records.under("body").N[0]) == ("total", 1e8, 4e7)
    assert (records.C[0], records.runs[0].budget) == (1e18, 1e18)
    assert "bits per byte (val_bpb) are turned into nats per token" in records.notes
    path = csv(tmp_path, "N,D,bpb,bytes_per_token\n1,2,1,4\n1,2,1,\n")
    with pytest.raises(ValueError, match="row 2: bytes_per_token is empty"):
        read(path)


def test_an_export_of_weights_and_biases(tmp_path: Path) -> None:
    header = '"Name","State","Runtime","num_params","tokens_seen","val/loss","train/loss"'
    records = read(
        csv(tmp_path, f'{header}\n"a","finished","9","1e6","2e7","3.5","3"\n"b","crashed","2","1e6","","",""\n')
    )
    assert [run.id for run in records.runs] == ["a"] and records.L[0] == 3.5
    assert records.left_out == ("b: failed",)


def test_unique_tokens_and_schedules(tmp_path: Path) -> None:
    records = read(csv(tmp_path, "N,D,L,epochs,is_final\n1,8,3,4,1\n1,8,3,0.5,0\n"))
    assert list(records.U) == [2, 8]
    assert [run.measured["is_final"] for run in records.runs] == [True, False]
    assert list(read(csv(tmp_path, "N,D,L,unique_tokens\n1,8,3,9\n")).U) == [8]


def test_numbers_that_only_overflow_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 1: params=1e\+30, tokens=1e\+30 and flops=6e\+60 cannot be of one run"):
        read(csv(tmp_path, "N,D,L\n1e30,1e30,3\n"))
    with pytest.raises(ValueError, match=r"row 1: L=1e-320 is of no run; correct it"):
        read(csv(tmp_path, "N,D,L\n1e3,1e3,1e-320\n"))


def test_a_decimal_comma_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 2 has more cells than the first line has names; write 1\.5 for 1,5"):
        read(csv(tmp_path, "N,D,L\n1,2,3\n1,2,3,5\n"))


@pytest.mark.parametrize(
    ("name", "mark", "said"), [("t.csv", ";", "semicolons"), ("t.csv", "\t", "tabs"), ("t.tsv", "\t", None)]
)
def test_cells_may_lie_apart_otherwise(tmp_path: Path, name: str, mark: str, said: str | None) -> None:
    (tmp_path / name).write_text("N;D;L\n1e6;2e7;3,5\n".replace(";", mark))
    records = read(tmp_path / name)
    assert (records.N[0], records.D[0], records.L[0]) == (1e6, 2e7, 3.5)
    told = () if said is None else (f"its cells are separated by {said}",)
    assert records.notes == (*told, "L 3,5 is read as 3.5")


def test_numbers_as_people_write_them(tmp_path: Path) -> None:
    records = read(csv(tmp_path, 'N,D,L\n70M,"1,000,000",3.5\n1.3e9,2B,3\n'))
    assert list(records.N) == [7e7, 1.3e9] and list(records.D) == [1e6, 2e9]
    assert "N 70M is read as 7e+07" in records.notes[0]
    with pytest.raises(ValueError, match=r"row 2: D='1,234' may be 1234 or 1\.234; write it without the comma"):
        read(csv(tmp_path, 'N,D,L\n70M,1e6,3.5\n70M,"1,234",3\n'))


def test_rows_that_share_a_run_are_points_along_it(tmp_path: Path) -> None:
    records = read(csv(tmp_path, "run,N,D,L\na,1,2,3\na,1,4,2\nb,2,2,3\n"))
    assert [run.group for run in records.runs] == ["a", "a", "b"]
    assert records.notes == ("the rows of one run are points along one run, and are drawn again together",)
    assert [run.group for run in read(csv(tmp_path, "run,N,D,L\na,1,2,3\nb,1,4,2\n")).runs] == [None, None]


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"N": [1.0], "D": [2], "L": [3.5]}), tmp_path / "t.parquet")
    records = read(tmp_path / "t.parquet")
    assert (records.N[0], records.D[0], records.L[0]) == (1, 2, 3.5)
    (tmp_path / "bad.parquet").write_text("no")
    with pytest.raises(ValueError, match="is no Parquet file"):
        read(tmp_path / "bad.parquet")


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    for run, loss in (("a", 3.5), ("b", 3.0)):
        writer = EventFileWriter(str(tmp_path / run))
        for step, scale in enumerate((2.0, 1.0)):
            values = {"params": 1e6, "tokens": 2e7 / scale, "val/loss": loss * scale}
            parts = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            writer.add_event(Event(step=step, summary=Summary(value=parts)))
        writer.close()
    records = read(tmp_path)
    assert [run.id for run in records.runs] == ["a", "b"]
    assert list(records.L) == [3.5, 3.0] and list(records.D) == [2e7, 2e7]


def test_what_an_extra_reads_says_which(tmp_path: Path, monkeypatch) -> None:
    def absent(name: str) -> None:
        raise ImportError(name)

    (tmp_path / "t.parquet").write_text("x")
    (tmp_path / "board").mkdir()
    (tmp_path / "board" / "events.out.tfevents.1").write_text("x")
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ValueError, match=r"needs pyarrow; install it with `pip install 'isoflop\[parquet\]'`"):
        read(tmp_path / "t.parquet")
    with pytest.raises(ValueError, match=r"needs tensorboard; install it with `pip install 'isoflop\[tensorboard\]'`"):
        read(tmp_path / "board")


def test_a_column_stands_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has several columns named 'L'; rename or remove all but one"):
        read(csv(tmp_path, "N,D,L,L\n1,2,3,4\n"))
    with pytest.raises(ValueError, match="has the columns loss and Loss for its loss; rename or remove one"):
        read(csv(tmp_path, "N,D,loss,Loss\n1,2,3,4\n"))
    named = read(csv(tmp_path, "N,D,loss,Loss\n1,2,3,4\n"), columns=Columns(loss_column="Loss"))
    assert named.L[0] == 4
    assert read(csv(tmp_path, "N,D,L,,\n1,2,3,,\n")).L[0] == 3


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    rows = ["1e6,2e7,3"] * 3 + ["1e6,2e7,"] * 5 + ["1e6,,3", "x,2e7,3", "1e6,2e7,0", "1e6,2e7,-1"]
    with pytest.raises(ValueError) as said:
        read(csv(tmp_path, "N,D,L\n" + "\n".join(rows) + "\n"))
    assert str(said.value).endswith(
        "has 9 of 12 rows that are no runs: rows 4, 5, 6 and 2 more: L is empty; fill it in or drop the row; "
        "row 9: two of params, tokens, flops are empty; fill one in or drop the row; "
        "row 10: N='x' is no number; write it like 1e9, 20M or 1.5B, or drop the row; and so on in 2 more"
    )


def test_empty_cells_that_are_worked_out_are_told(tmp_path: Path) -> None:
    records = read(csv(tmp_path, "N,D,C,L\n1e6,2e7,1.3e14,3\n1e6,4e7,,3\n1e6,,3e14,3\n"))
    assert list(records.C) == [1.3e14, 2.4e14, 3e14]
    assert "D is empty in 1 of 3 rows, and taken as C/6N there; C is empty in 1 of 3 rows, and taken as 6ND there" in (
        records.notes
    )


def test_columns_of_parquet_that_are_no_numbers(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    plain = {"N": [1e6, 2e6], "D": [2e7, 2e7]}
    odd = {
        "duration[us]": pyarrow.array([2**62, 5], pyarrow.duration("us")),
        "timestamp[ns]": pyarrow.array([2**62, 5], pyarrow.timestamp("ns")),
        "list<": pyarrow.array([[1.0], [2.0]]),
        "struct<": pyarrow.array([{"a": 1}, {"a": 2}]),
        "date32": pyarrow.array([2**30, 5], pyarrow.date32()),
        "dictionary": pyarrow.array(["a", "b"]).dictionary_encode(),
    }
    for kind, column in odd.items():
        pyarrow.parquet.write_table(pyarrow.table({**plain, "L": [3.0, 2.9], "more": column}), tmp_path / "t.parquet")
        assert list(read(tmp_path / "t.parquet").L) == [3.0, 2.9]
        pyarrow.parquet.write_table(pyarrow.table({**plain, "L": column}), tmp_path / "t.parquet")
        with pytest.raises(ValueError, match=f"rows? 1(, 2)?: L='(a {re.escape(kind)}.*|a)' is no number"):
            read(tmp_path / "t.parquet")
    twice = pyarrow.table([plain["N"], plain["D"], [3.0, 2.0], [1.0, 2.0]], names=["N", "D", "L", "L"])
    pyarrow.parquet.write_table(twice, tmp_path / "t.parquet")
    with pytest.raises(ValueError, match="is no Parquet file"):
        read(tmp_path / "t.parquet")
    series = pyarrow.table({**plain, "L": [3.0, 2.0], "series": ["a", "b"]})
    pyarrow.parquet.write_table(series, tmp_path / "t.parquet")
    assert names(tmp_path / "t.parquet") == ("a", "b")


@pytest.mark.parametrize("width", [0.0, -4.0, math.nan, 1e9])
def test_bytes_per_token_are_of_a_tokenizer(width: float) -> None:
    with pytest.raises(ValueError, match=r"--bytes-per-token .* is of no tokenizer; it is a number such as 4\.2"):
        Columns(bytes_per_token=width)
