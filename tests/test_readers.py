"""python -m pytest tests/test_readers.py"""

import gzip
import json
import lzma
from pathlib import Path
from typing import get_args

import pytest

from isoflop.data.corpus import Corpus, Document, Tally, hold
from isoflop.data.readers import READERS, SUFFIXES, Format

ROWS = [{"id": 1, "text": 'one, with "quotes"\nand a line'}, {"id": 2, "text": "zwei ü"}, {"id": 3, "text": "three"}]


def read(*sources: Path, **options) -> tuple[list[Document], Tally]:
    tally = Tally()
    return list(Corpus(sources=tuple(map(str, sources)), **options).documents(tally)), tally


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def table(path: Path, name: str) -> Path:
    """Write ROWS in a format."""
    if name == "jsonl":
        return jsonl(path, *ROWS)
    if name == "parquet":
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(arrow.Table.from_pylist(ROWS), path)
        return path
    cells = ['"' + str(row["text"]).replace('"', '""') + '"' for row in ROWS]
    mark = "," if name == "csv" else "\t"
    path.write_text(f"id{mark}text\n" + "".join(f"{n}{mark}{cell}\n" for n, cell in enumerate(cells)))
    return path


@pytest.mark.parametrize("packing", ["", ".gz", ".xz", ".zst"])
@pytest.mark.parametrize("name", [name for name in READERS if name != "text"])
def test_every_format_in_every_packing_gives_the_same_texts(name: str, packing: str, tmp_path: Path) -> None:
    path = table(tmp_path / f"x.{name}", name)
    if packing:
        if packing == ".zst":
            pack = pytest.importorskip("backports.zstd").compress
        else:
            pack = {".gz": gzip.compress, ".xz": lzma.compress}[packing]
        packed = tmp_path / f"x.{name}{packing}"
        packed.write_bytes(pack(path.read_bytes()))
        path = packed
    documents, tally = read(path)
    assert [d.text for d in documents] == [row["text"] for row in ROWS]
    assert tally.fields == {"text": 3} and not tally.skipped and not tally.repaired


def test_the_formats_are_named_once() -> None:
    assert set(get_args(Format)) == set(READERS) and set(SUFFIXES.values()) == set(READERS) - {"text"}


def test_a_folder_mixes_formats_and_a_field_is_guessed_or_named(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", {"content": "A", "story": "S"})
    (tmp_path / "b.txt").write_text("B")
    assert [d.text for d in read(tmp_path)[0]] == ["A", "B"]
    assert [d.text for d in read(tmp_path, text_field="story")[0]] == ["S", "B"]
    assert read(tmp_path, format="text")[0][0].text.startswith('{"content"')
    with pytest.raises(ValueError, match=r"a.jsonl:1 has no field x, it has content, story; name the text's with"):
        read(tmp_path, text_field="x")
    with pytest.raises(ValueError, match="text_field='x' is a field of JSON lines, CSV or Parquet, but no file was"):
        read(tmp_path / "b.txt", text_field="x")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b'{"text": "cut', r"a.jsonl:2: this is not JSON"),
        (b"[1]", r"a.jsonl:2: this is no object but \[1\]"),
        (b'{"other": "x"}', r"a.jsonl:2: the field text is missing"),
        (b'{"text": 3}', r"a.jsonl:2: text is 3, which is no text"),
        (b"[" * 100_000, r"a.jsonl:2: this is not JSON"),
    ],
)
def test_a_broken_line_is_named_or_counted(line: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "x"}\n' + line + b'\n{"text": "y"}\n')
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path / "a.jsonl")
    documents, tally = read(tmp_path / "a.jsonl", skip_broken=True)
    assert [d.text for d in documents] == ["x", "y"] and tally.skipped == {"broken_line": 1}


def test_json_is_mended_as_text_is(tmp_path: Path) -> None:
    raw = b'\xef\xbb\xbf{"text": "a\\u0000b\xff"}\r\n\r\n{"text": "\\ud800"}\n\0{"text": null}\n'
    (tmp_path / "a.jsonl").write_bytes(raw)
    documents, tally = read(tmp_path / "a.jsonl")
    assert [d.text for d in documents] == ["ab\ufffd", "\ufffd"]
    assert tally.repaired == {"byte_order_mark": 1, "nul": 2, "invalid_utf8": 1, "half_surrogate": 1}
    assert tally.skipped == {"null_text": 1}


def test_a_line_of_20_megabytes(tmp_path: Path) -> None:
    text = "word " * 4_000_000
    assert read(jsonl(tmp_path / "a.jsonl", {"text": text}))[0][0].text == text


def test_a_row_of_other_width_is_broken(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,one\n2,two,more\n3,three\n")
    with pytest.raises(ValueError, match=r"a.csv:3: 3 cells where the first row has 2"):
        read(tmp_path / "a.csv")
    assert len(read(tmp_path / "a.csv", skip_broken=True)[0]) == 2
    (tmp_path / "a.csv").write_text('id,text\n1,one\n2,"two')
    with pytest.raises(ValueError, match=r"a.csv:3: this is no row of a table"):
        read(tmp_path / "a.csv")


def test_a_short_archive_is_named_or_counted(tmp_path: Path) -> None:
    whole = gzip.compress(jsonl(tmp_path / "x", *({"text": f"{n} {n * n}"} for n in range(5000))).read_bytes())
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a.jsonl.gz is damaged or cut short after line [\d,]{3,}"):
        read(tmp_path / "a.jsonl.gz")
    documents, tally = read(tmp_path / "a.jsonl.gz", skip_broken=True)
    assert len(documents) > 1000 and tally.skipped == {"rest_of_damaged_file": 1}
    (tmp_path / "b.txt.xz").write_text("no archive")
    with pytest.raises(ValueError, match=r"b.txt.xz is damaged or cut short \(its first bytes are not those"):
        read(tmp_path / "b.txt.xz")


def test_reading_stops_at_so_many_bytes(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "a.jsonl", *({"text": f"{n:04}"} for n in range(100)))
    assert len(read(path, max_bytes=41)[0]) == 10
    with pytest.raises(ValueError, match="max_bytes=0 leaves no text"):
        read(path, max_bytes=0)


def test_a_data_set_is_streamed_and_held(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    (tmp_path / "set").mkdir()
    jsonl(tmp_path / "set" / "train.jsonl", *ROWS, {"id": 4, "text": None})
    source = f"hf:{tmp_path / 'set'}"
    corpus = Corpus(sources=(source,))
    held = hold(corpus, tmp_path)
    for one in (corpus, held):
        assert [d.text for d in one.documents(Tally())] == [row["text"] for row in ROWS]
    with pytest.raises(ValueError, match=r"no field x, it has id, text"):
        list(Corpus(sources=(source,), text_field="x").documents(Tally()))
    with pytest.raises(ValueError, match="names no data set; write hf:NAME"):
        list(Corpus(sources=("hf:a:b:c",)).documents(Tally()))
