"""python -m pytest tests/test_corpus.py"""

import os
import tempfile
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.data.corpus import INSTALLED, STDLIB_BYTES, Corpus, Document, Tally
from isoflop.data.readers import READERS, File, Reading


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def read(*sources: Path | str, **options) -> tuple[list[Document], Tally]:
    tally = Tally()
    return list(Corpus(sources=tuple(map(str, sources)), **options).documents(tally)), tally


def test_a_folder_is_read_by_relative_path(tmp_path: Path) -> None:
    folder = write(tmp_path / "texts", {"b.txt": b"B", "a/z.md": b"Z", "a.txt": b"A", "a/b/c.txt": b"C"})
    documents, tally = read(folder)
    assert [(d.name, d.text) for d in documents] == [
        ("texts/a.txt", "A"),
        ("texts/a/b/c.txt", "C"),
        ("texts/a/z.md", "Z"),
        ("texts/b.txt", "B"),
    ]
    assert tally.sources == {str(folder): {"documents": 4, "bytes": 4}}
    assert not tally.skipped and not tally.repaired


def test_names_do_not_depend_on_where_the_folder_lies(tmp_path: Path) -> None:
    names = []
    for place in ("here", "far/away"):
        folder = write(tmp_path / place / "texts", {"a/b.txt": b"x", "c.txt": b"y"})
        names.append([d.name for d in read(folder)[0]])
    assert names[0] == names[1]


def test_what_a_folder_leaves_out_is_counted(tmp_path: Path) -> None:
    folder = write(
        tmp_path / "texts",
        {
            ".git/config": b"x",
            ".hidden": b"x",
            "a.txt": b"A",
            "b.py": b"B",
            "c.txt": b"A",
            "d.txt": b" \n",
            "e.txt": b"",
        },
    )
    (folder / "picture.txt").write_bytes(b"\x89PNG\0\0")
    (folder / "broken.txt").symlink_to(folder / "nowhere")
    (folder / "link").symlink_to(folder / ".git")
    documents, tally = read(folder, include="*.txt")
    assert [d.name for d in documents] == ["texts/a.txt"]
    assert tally.skipped == {
        "hidden": 2,  # a folder counts once
        "not_included": 1,
        "duplicate": 1,
        "blank": 2,
        "binary": 1,
        "not_a_file": 1,
        "linked_folder": 1,
    }


def test_include_matches_the_end_of_a_path(tmp_path: Path) -> None:
    folder = write(tmp_path / "texts", {"docs/a.md": b"1", "other/b.md": b"2", "docs/c.txt": b"3"})
    assert [d.text for d in read(folder, include="docs/*.md")[0]] == ["1"]


def test_files_and_globs(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", {"a/x.txt": b"X", "a/b/y.txt": b"Y", "a/z.md": b"Z"})
    documents, tally = read(folder / "a" / "z.md", f"{folder}/**/*.txt")
    assert [(d.name, d.text) for d in documents] == [("z.md", "Z"), ("a/b/y.txt", "Y"), ("a/x.txt", "X")]
    assert tally.count("documents") == 3 and tally.count("bytes") == 3
    assert read(f"{folder}/*/nothing*")[0] == []


def test_num_bytes_bounds_what_is_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", {"a": b"12345", "b": b"123"})
    assert Corpus(sources=(str(folder), str(folder / "a"))).num_bytes() == 13


def test_equal_documents_are_kept_when_asked(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", {"a": b"same", "b": b"same"})
    assert len(read(folder)[0]) == 1
    documents, tally = read(folder, deduplicate=False)
    assert len(documents) == 2 and not tally.skipped


def test_bytes_that_are_no_text_are_mended_and_counted(tmp_path: Path) -> None:
    raw = "\ufeffa".encode() + b"\0\xff\xfe" + "\ufffd".encode() + b"\r\nb\xc3"
    (tmp_path / "a").write_bytes(raw)
    (document,), tally = read(tmp_path / "a")
    assert document.text == "a\ufffd\ufffd\ufffd\r\nb\ufffd"
    # the replacement character that stood in the text is the text's own
    assert tally.repaired == {"byte_order_mark": 1, "nul": 1, "invalid_utf8": 3}


def test_a_separator_cuts_a_file_into_documents(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("one<|endoftext|>zwei ü<|endoftext|>\n<|endoftext|>three")
    documents, tally = read(tmp_path / "a", separator="<|endoftext|>")
    assert [(d.name, d.text) for d in documents] == [("a#1", "one"), ("a#2", "zwei ü"), ("a#4", "three")]
    assert tally.skipped == {"blank": 1}


def test_a_separator_across_blocks_is_found(tmp_path: Path) -> None:
    pieces = ["é" * (1 << 19), "b" * ((1 << 20) - 1), "c"]  # the block ends inside the separator, twice
    (tmp_path / "a").write_text("<->".join(pieces))
    assert [d.text for d in read(tmp_path / "a", separator="<->")[0]] == pieces


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), min_size=1))
def test_text_comes_back_as_it_was(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x"
        path.write_bytes(text.encode())
        (document,) = READERS["text"](File(path, "x", 0, True), Reading(), tally := Tally())
    assert document.text == text and not tally.repaired


def test_the_standard_library_is_a_corpus() -> None:
    tally = Tally()
    corpus = Corpus(sources=("stdlib",))
    files = corpus.files("stdlib", tally)
    names = [file.name for file in files]
    assert "json/decoder.py" in names and "argparse.py" in names
    assert names == sorted(names) and not any("site-packages" in name for name in names)
    assert all(STDLIB_BYTES[0] <= file.num_bytes <= STDLIB_BYTES[1] for file in files)
    assert tally.skipped["too_small"] > 50
    assert sum(file.num_bytes for file in files) > 8_000_000  # without its tests it is a third as large
    assert "not_included" not in tally.skipped
    few = Corpus(sources=("stdlib",), include="json/*").files("stdlib", Tally())
    assert {file.name for file in few} > {"json/decoder.py", "json/encoder.py"}


def test_a_folder_called_stdlib_is_reached_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "stdlib", {"a": b"mine"})
    monkeypatch.chdir(tmp_path)
    assert [d.text for d in read("./stdlib")[0]] == ["mine"]


def test_documents_stream(tmp_path: Path) -> None:
    folder = write(tmp_path / "t", {"a": b"1", "b": b"2"})
    stream = Corpus(sources=(str(folder),)).documents(Tally())
    assert next(stream).text == "1"
    (folder / "b").write_bytes(b"not read before it is asked for")
    assert next(stream).text.startswith("not read")


def test_a_digest_is_of_the_text_alone() -> None:
    assert Document("a", "x").digest == Document("b", "x").digest != Document("a", "y").digest
    assert Document("a", "é").num_bytes == 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"sources": ()}, "no source is given; name files, folders, globs, or one of stdlib"),
        ({"sources": ("a",), "separator": ""}, "separator='' cuts nothing"),
    ],
)
def test_a_corpus_of_nothing_is_refused(options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Corpus(**options)


def test_a_source_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere does not exist; name a file, a folder, a glob, or one of stdlib"):
        read(tmp_path / "nowhere")


def test_a_folder_that_cannot_be_read_is_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "t", {"a/b": b"x"})
    real = os.scandir

    def scandir(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(PermissionError):
        read(folder)


@pytest.mark.parametrize("name", INSTALLED)
def test_every_installed_corpus_lists_files(name: str) -> None:
    files = INSTALLED[name](Tally())
    assert files and all(a.name < b.name for a, b in pairwise(files))
