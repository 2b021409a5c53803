"""python -m pytest tests/test_build.py"""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from isoflop.data import build as module
from isoflop.data import encode
from isoflop.data.build import BUILDING, Built, Recipe, build
from isoflop.data.corpus import Corpus, Tally
from isoflop.data.tokens import META, TOKENIZER, TRAIN, VAL, open_tokens
from tests.texts import content, documents, no_sync, recipe, texts

__all__ = ["no_sync"]  # a fixture for every test here


@pytest.mark.parametrize("options", [{}, {"tokenizer": "bpe", "vocab_size": 300}])
def test_every_document_is_in_one_split_whole_and_in_order(options: dict, tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    built = build(recipe(source, **options), tmp_path / "T")
    found = documents(built.folder)
    there = [d.text for d in Corpus(sources=(str(source),)).documents(Tally())]
    held = set(found["val"])
    assert found["train"] == [text for text in there if text not in held]
    assert found["val"] == [text for text in there if text in held]
    assert 1 <= len(found["val"]) < 20
    for split in ("train", "val"):
        counts = built.meta[split]
        assert counts["documents"] == len(found[split])
        assert counts["bytes"] == sum(len(text.encode()) for text in found[split])
        assert counts["sha256"] == content(built.folder)[f"{split}.bin"]
    assert built.meta == json.loads((built.folder / META).read_text())
    assert built.meta["tokenizer_sha256"] == content(built.folder)[TOKENIZER]


def test_any_number_of_workers_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "CHUNK", 3000)  # many chunks in a small text
    source = texts(tmp_path / "texts")
    for options in ({}, {"tokenizer": "bpe", "vocab_size": 300}):
        folders = [
            build(recipe(source, **options), tmp_path / f"{workers}{len(options)}", workers=workers).folder
            for workers in (1, 2, 5)
        ]
        assert content(folders[0]) == content(folders[1]) == content(folders[2])


def test_a_vocabulary_beyond_16_bits_is_written_as_uint32(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts", 5)
    build(recipe(source, tokenizer="bpe", vocab_size=300), tmp_path / "small")
    value = json.loads((tmp_path / "small" / TOKENIZER).read_text())
    dtypes = {}
    for last in (65_535, 65_536):
        value["model"]["vocab"] |= {"never": last}
        (tmp_path / f"{last}.json").write_text(json.dumps(value))
        built = build(recipe(source, tokenizer=str(tmp_path / f"{last}.json")), tmp_path / str(last))
        dtypes[built.meta["vocab_size"]] = built.meta["dtype"]
    assert dtypes == {65_536: "uint16", 65_537: "uint32"}
    wide, narrow = open_tokens(tmp_path / "65536"), open_tokens(tmp_path / "65535")
    assert wide.train.dtype == np.uint32 and np.array_equal(wide.train, narrow.train)


def test_the_split_is_seeded_and_a_text_alone_decides_its_side(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts", 100)
    held = [set(documents(build(recipe(source, seed=seed), tmp_path / f"{seed}").folder)["val"]) for seed in (0, 1)]
    assert held[0] != held[1]
    for file in list(source.iterdir())[:30]:  # renaming and removing move no other document
        file.rename(source / f"z{file.name}")
    (source / "050.txt").unlink(missing_ok=True)
    again = set(documents(build(recipe(source, seed=0), tmp_path / "again").folder)["val"])
    assert again <= held[0] and len(again) >= len(held[0]) - 1


def test_copies_of_a_text_never_lie_on_both_sides(tmp_path: Path) -> None:
    sources = [texts(tmp_path / name, 30) for name in ("a", "b")]
    found = documents(build(recipe(*sources, deduplicate=False, val_fraction=0.5), tmp_path / "T").folder)
    assert len(found["train"]) + len(found["val"]) == 60
    assert not set(found["train"]) & set(found["val"])


@pytest.mark.parametrize("fraction", [1e-9, 0.999_999])
@pytest.mark.parametrize("number", [2, 3])
def test_both_sides_hold_a_document(number: int, fraction: float, tmp_path: Path) -> None:
    built = build(recipe(texts(tmp_path / "texts", number), val_fraction=fraction), tmp_path / "T")
    assert built.meta["val"]["documents"] == (1 if fraction < 0.5 else number - 1)
    assert built.meta["train"]["documents"] == number - built.meta["val"]["documents"]


def test_what_is_there_is_recognised_wherever_the_text_lies(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    first = build(recipe(source), tmp_path / "T")
    before = {name: (first.folder / name).stat().st_mtime_ns for name in (META, TRAIN, VAL)}
    source.rename(tmp_path / "moved")
    again = build(recipe(tmp_path / "moved"), tmp_path / "T", workers=1)
    assert first.fresh and not again.fresh and again.meta == first.meta
    assert before == {name: (first.folder / name).stat().st_mtime_ns for name in (META, TRAIN, VAL)}
    assert not (tmp_path / "T" / BUILDING).exists()


def test_a_default_said_aloud_is_the_same_recipe() -> None:
    source = Path("x")
    assert recipe(source, tokenizer="bpe").options() == recipe(source, tokenizer="bpe", vocab_size=4096).options()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"seed": 1}, r"seed=1 \(there 0\)"),
        ({"val_fraction": 0.2}, r"val_fraction=0.2 \(there 0.1\)"),
        ({"tokenizer": "bpe", "vocab_size": 300}, r"tokenizer='bpe' \(there 'bytes'\); vocab_size=300 \(there None\)"),
    ],
)
def test_other_options_are_refused_unless_forced(change: dict, sentence: str, tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    build(recipe(source), tmp_path / "T")
    before = content(tmp_path / "T")
    with pytest.raises(ValueError, match=rf"T was built otherwise: {sentence}; add --force to replace it"):
        build(recipe(source, **change), tmp_path / "T")
    assert content(tmp_path / "T") == before
    assert build(recipe(source, **change), tmp_path / "T", force=True).fresh
    assert content(tmp_path / "T") == content(build(recipe(source, **change), tmp_path / "fresh").folder)
    open_tokens(tmp_path / "T")


def test_other_text_is_refused(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    build(recipe(source), tmp_path / "T")
    (source / "more.txt").write_text("more")
    with pytest.raises(ValueError, match=r"T was built otherwise: the text, 61 documents \(there 60\)"):
        build(recipe(source), tmp_path / "T")


def test_a_damaged_folder_is_not_taken_for_done(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    build(recipe(source), tmp_path / "T")
    (tmp_path / "T" / TRAIN).write_bytes(b"short")
    with pytest.raises(ValueError, match=r"train.bin, which is damaged there; add --force"):
        build(recipe(source), tmp_path / "T")


def test_another_tokenizer_json_of_the_same_name_is_another_recipe(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    file = tmp_path / "t.json"
    for size in (300, 310):
        build(recipe(source, tokenizer="bpe", vocab_size=size), tmp_path / f"{size}")
    file.write_bytes((tmp_path / "300" / TOKENIZER).read_bytes())
    build(recipe(source, tokenizer=str(file)), tmp_path / "T")
    assert not build(recipe(source, tokenizer=str(file)), tmp_path / "T").fresh
    file.write_bytes((tmp_path / "310" / TOKENIZER).read_bytes())
    with pytest.raises(ValueError, match=r"built otherwise: tokenizer='[0-9a-f]{64}'"):
        build(recipe(source, tokenizer=str(file)), tmp_path / "T")


def test_the_bpe_learns_from_training_documents_alone(tmp_path: Path) -> None:
    source = texts(tmp_path / "texts", 30)
    held = documents(build(recipe(source), tmp_path / "bytes").folder)["val"]
    built = build(recipe(source, tokenizer="bpe", vocab_size=300), tmp_path / "T")
    for file in source.iterdir():
        if file.read_text() in held:
            file.unlink()
    (source / "held").write_text("another text that is held out, by this seed at least")
    other = build(recipe(source, tokenizer="bpe", vocab_size=300), tmp_path / "U")
    assert other.meta["val"]["documents"] == 1
    assert other.meta["tokenizer_sha256"] == built.meta["tokenizer_sha256"]


def test_an_empty_corpus_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    (source / ".hidden").write_text("x")
    (source / "blank").write_text(" ")
    with pytest.raises(ValueError, match=r"the corpus is empty: .*texts \(left out: 1 hidden, 1 blank\); name files"):
        build(recipe(source), tmp_path / "T")
    assert not (tmp_path / "T").exists()


def test_one_document_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\nthree")
    with pytest.raises(ValueError, match=r"one document cannot be split into training and validation: .*separator"):
        build(recipe(tmp_path / "a.txt"), tmp_path / "T")
    corpus = Corpus(sources=(str(tmp_path / "a.txt"),), separator="\n\n")
    found = documents(build(Recipe(corpus=corpus), tmp_path / "T").folder)
    assert sorted(found["train"] + found["val"]) == ["one", "three", "two"]


def test_equal_documents_are_one_document(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text("same")
    for deduplicate in (True, False):
        with pytest.raises(ValueError, match="one document cannot be split"):
            build(recipe(tmp_path / "a", tmp_path / "b", deduplicate=deduplicate), tmp_path / "T")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_a_fraction_is_a_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match=r"val_fraction=.* must lie between 0 and 1; try 0.1"):
        recipe(Path("x"), val_fraction=fraction)


def test_at_least_one_worker(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers=0 must be at least 1"):
        build(recipe(texts(tmp_path / "texts")), tmp_path / "T", workers=0)


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_of_other_things_is_left_alone(force: bool, tmp_path: Path) -> None:
    source = texts(tmp_path / "texts")
    (tmp_path / "T").mkdir()
    (tmp_path / "T" / TRAIN).write_bytes(b"somebody's")
    with pytest.raises(ValueError, match=r"T holds train.bin and is no token folder; choose a folder that is empty"):
        build(recipe(source), tmp_path / "T", force=force)
    (tmp_path / "T" / META).write_text("{}")
    with pytest.raises(ValueError, match=r"meta.json does not say 'isoflop tokens 1'"):
        build(recipe(source), tmp_path / "T", force=force)
    assert (tmp_path / "T" / TRAIN).read_bytes() == b"somebody's"


def test_an_empty_folder_is_built_into(tmp_path: Path) -> None:
    (tmp_path / "T").mkdir()
    assert build(recipe(texts(tmp_path / "texts")), tmp_path / "T").fresh


def test_the_text_streams(tmp_path: Path) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    for n in range(120):
        (source / f"{n}.txt").write_text(f"{n} " * 100_000)
    tracemalloc.start()
    built = build(recipe(source, deduplicate=False), tmp_path / "T")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    total = built.meta["train"]["bytes"] + built.meta["val"]["bytes"]
    assert total > 20_000_000 and peak < total / 3


def test_progress_goes_from_nothing_to_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REPORTED", 10_000)
    source = texts(tmp_path / "texts")
    said: dict[str, list[tuple[int, int]]] = {}
    built = build(
        recipe(source, tokenizer="bpe", vocab_size=300),
        tmp_path / "T",
        on_progress=lambda doing, done, total: said.setdefault(doing, []).append((done, total)),
    )
    assert list(said) == ["reading", "learning", "encoding"]
    size = built.meta["train"]["bytes"] + built.meta["val"]["bytes"]
    for reports in said.values():
        done = [report[0] for report in reports]
        assert done == sorted(done) and done[0] == 0 and done[-1] == size and len(done) > 2
        assert {report[1] for report in reports} == {size}


def test_the_standard_library_leaves_a_megabyte_to_validate_on(tmp_path: Path) -> None:
    built = build(recipe(Path("stdlib")), tmp_path / "T")
    assert isinstance(built, Built)
    assert built.meta["vocab_size"] == 256 and built.meta["dtype"] == "uint16"
    if built.meta["train"]["bytes"] > 20_000_000:  # with its tests, which some installations leave out
        assert built.meta["val"]["bytes"] >= 1_000_000
    assert built.meta["train"]["bytes"] > 5 * built.meta["val"]["bytes"]
