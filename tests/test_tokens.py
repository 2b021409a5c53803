"""python -m pytest tests/test_tokens.py"""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoflop.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.data.build import Recipe, build
from isoflop.data.corpus import Corpus
from isoflop.data.meta import TOKENIZER, TRAIN, VAL, VERIFIED
from isoflop.data.tokenizer import ByteTokenizer
from isoflop.data.tokens import (
    META,
    open_configured,
    open_mixed,
    open_stream,
    open_tokens,
    read_meta,
    validation_windows,
)

DTYPES = ("int16", "uint16", "int32", "uint32", "int64")


def raw(path: Path, ids, dtype: str = "int32") -> Path:
    np.asarray(ids).astype(np.dtype(dtype).newbyteorder("<")).tofile(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    texts = tmp_path / "texts"
    texts.mkdir()
    for n in range(40):
        (texts / f"{n}.txt").write_text(f"text {n} " * (5 + n))
    return build(Recipe(corpus=Corpus(sources=(str(texts),))), tmp_path / "T").folder


# raw files


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_raw_file_of_any_dtype(dtype: str, tmp_path: Path) -> None:
    path = raw(tmp_path / "data.bin", np.arange(1000), dtype)
    tokens = open_tokens(path, vocab_size=1000, dtype=dtype)
    assert tokens.train.tolist() == list(range(990)) and tokens.val.tolist() == list(range(990, 1000))
    assert (tokens.vocab_size, tokens.bytes_per_token, tokens.end_of_text, tokens.tokenizer) == (1000, None, None, None)


def test_int32_is_what_a_raw_file_is_unless_said_otherwise(tmp_path: Path) -> None:
    path = raw(tmp_path / "data.bin", [5, 70_000] * 100)
    assert open_tokens(str(path), vocab_size=70_001).train[:2].tolist() == [5, 70_000]


@pytest.mark.parametrize(
    ("ends", "cut"),
    [
        ([989], 990),  # where the last hundredth begins, a document begins
        ([100, 993], 994),  # the next one that begins later
        ([100, 300], 301),  # none later: the last one before
        ([100, 999], 101),  # the file's last end has nothing after it
        ([0], 1),
        ([], 990),  # no document at all
    ],
)
def test_a_raw_file_is_cut_where_a_document_begins(ends: list[int], cut: int, tmp_path: Path) -> None:
    ids = np.ones(1000, dtype=np.int32)
    ids[ends] = 7
    tokens = open_tokens(raw(tmp_path / "data.bin", ids), vocab_size=8, end_of_text=7)
    assert len(tokens.train) == cut and len(tokens.val) == 1000 - cut
    assert tokens.end_of_text == 7


def test_the_last_document_may_be_far_from_the_cut(tmp_path: Path) -> None:
    ids = np.ones(3_000_000, dtype=np.uint16)
    ids[10] = 7
    tokens = open_tokens(raw(tmp_path / "data.bin", ids, "uint16"), vocab_size=8, dtype="uint16", end_of_text=7)
    assert len(tokens.train) == 11


def test_a_validation_file_of_its_own(tmp_path: Path) -> None:
    path, val = raw(tmp_path / "a.bin", np.arange(1000)), raw(tmp_path / "b.bin", [3, 4])
    tokens = open_tokens(path, vocab_size=1000, val=val)
    assert len(tokens.train) == 1000 and tokens.val.tolist() == [3, 4]


def test_a_raw_file_with_a_tokenizer(tmp_path: Path) -> None:
    path = raw(tmp_path / "data.bin", [1, 2, 0, 3] * 100)
    ByteTokenizer().save(tmp_path / TOKENIZER)
    tokens = open_tokens(path, tokenizer=tmp_path / TOKENIZER)
    assert (tokens.vocab_size, tokens.end_of_text, tokens.tokenizer) == (256, 0, tmp_path / TOKENIZER)
    assert tokens.train[-1] == 0


def test_the_fingerprint_tells_whether_runs_see_the_same_tokens(tmp_path: Path) -> None:
    ids = np.arange(1000) % 100
    path = raw(tmp_path / "a.bin", ids)
    same = raw(tmp_path / "b.bin", ids)
    other = raw(tmp_path / "c.bin", (ids + 1) % 100)
    prints = [
        open_tokens(path, vocab_size=100).fingerprint,
        open_tokens(other, vocab_size=100).fingerprint,
        open_tokens(path, vocab_size=100, val=other).fingerprint,
        open_tokens(path, vocab_size=100, end_of_text=50).fingerprint,
        open_tokens(raw(tmp_path / "d.bin", ids, "uint16"), vocab_size=100, dtype="uint16").fingerprint,
    ]
    assert open_tokens(same, vocab_size=100).fingerprint == prints[0]
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("where", [0, 5_000_000])  # the second lies beyond the first block that is looked at
@pytest.mark.parametrize(("wrong", "dtype"), [(50, "int32"), (-1, "int32"), (65_535, "uint16")])
def test_ids_outside_the_vocabulary_are_refused(where: int, wrong: int, dtype: str, tmp_path: Path) -> None:
    ids = np.ones(where + 200, dtype=np.int64)
    ids[where] = wrong
    path = raw(tmp_path / "data.bin", ids, dtype)
    with pytest.raises(
        ValueError,
        match=rf"token {wrong} at position {where:,} of .*data.bin read as {dtype} is not below vocab_size=50",
    ):
        open_tokens(path, vocab_size=50, dtype=dtype)


def test_the_validation_file_is_checked_too(tmp_path: Path) -> None:
    path, val = raw(tmp_path / "a.bin", [1] * 100), raw(tmp_path / "b.bin", [1, 99])
    with pytest.raises(ValueError, match=r"token 99 at position 1 of .*b.bin"):
        open_tokens(path, vocab_size=50, val=val)


def test_unusable_raw_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    with pytest.raises(ValueError, match=r"data.bin does not exist; make it: isoflop data SOURCE --out"):
        open_tokens(path, vocab_size=9)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"data.bin is empty; it needs token ids of type int32"):
        open_tokens(path, vocab_size=9)
    path.write_bytes(b"\0" * 1001)
    with pytest.raises(ValueError, match=r"data.bin has 1,001 bytes, which is no multiple of the 4 of int32"):
        open_tokens(path, vocab_size=9)
    raw(path, [1] * 200)
    with pytest.raises(ValueError, match=r"data.bin is a raw file and does not say its vocabulary; give vocab_size"):
        open_tokens(path)
    with pytest.raises(ValueError, match=r"nowhere.bin does not exist; check the path"):
        open_tokens(path, vocab_size=9, val=tmp_path / "nowhere.bin")
    raw(path, [1] * 99)
    with pytest.raises(ValueError, match=r"data.bin has 99 tokens, so that its last 1% is an empty validation split"):
        open_tokens(path, vocab_size=9)


# token folders


def test_a_folder_says_everything_itself(folder: Path) -> None:
    tokens = open_tokens(folder)
    meta = read_meta(folder)
    assert isinstance(tokens.train, np.memmap) and tokens.train.dtype == np.uint16
    assert (len(tokens.train), len(tokens.val)) == (meta["train"]["tokens"], meta["val"]["tokens"])
    assert (tokens.vocab_size, tokens.end_of_text, tokens.tokenizer) == (256, 0, folder / TOKENIZER)
    assert tokens.bytes_per_token == meta["val"]["bytes"] / meta["val"]["tokens"]


def test_a_model_may_know_more_ids_than_the_folder_but_not_fewer(folder: Path) -> None:
    assert open_tokens(folder, vocab_size=300).vocab_size == 300
    with pytest.raises(ValueError, match=r"vocab_size=255 is less than the 256 ids of .*; give vocab_size=256"):
        open_tokens(folder, vocab_size=255)


def test_a_folder_copied_elsewhere_is_the_same(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "moved")
    moved = open_tokens(tmp_path / "moved").fingerprint
    again = build(Recipe(corpus=Corpus(sources=(str(tmp_path / "texts"),))), tmp_path / "T").folder
    assert open_tokens(again).fingerprint == moved


def test_another_tokenizer_is_refused(folder: Path) -> None:
    content = (folder / TOKENIZER).read_bytes()
    (folder / TOKENIZER).write_bytes(content + b" ")
    with pytest.raises(ValueError, match=r"tokenizer.json is not the tokenizer that made these tokens"):
        open_tokens(folder)
    (folder / TOKENIZER).unlink()
    with pytest.raises(ValueError, match=r"tokenizer.json is not the tokenizer that made these tokens"):
        open_tokens(folder)


@pytest.mark.parametrize("name", [TRAIN, VAL])
@pytest.mark.parametrize("opened_before", [False, True])
def test_a_changed_byte_is_found(name: str, opened_before: bool, folder: Path) -> None:
    if opened_before:
        open_tokens(folder)
    content = bytearray((folder / name).read_bytes())
    content[100] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name} was changed or damaged \(its hash differs from meta.json\)"):
        open_tokens(folder)


def test_a_short_file_is_found(folder: Path) -> None:
    content = (folder / TRAIN).read_bytes()
    (folder / TRAIN).write_bytes(content[:-2])
    with pytest.raises(ValueError, match=r"train.bin has .* tokens where meta.json says .*; build the folder again"):
        open_tokens(folder)
    (folder / TRAIN).write_bytes(content[:-1])
    with pytest.raises(ValueError, match=r"no multiple of the 2 of uint16"):
        open_tokens(folder)
    (folder / TRAIN).unlink()
    with pytest.raises(ValueError, match=r"train.bin does not exist"):
        open_tokens(folder)


def test_ids_beyond_what_a_folder_claims_are_found_when_first_opened(folder: Path) -> None:
    meta = read_meta(folder)
    (folder / META).write_text(json.dumps(meta | {"vocab_size": 50}))
    with pytest.raises(ValueError, match=r"train.bin is not below vocab_size=50; build the folder again with --force"):
        open_tokens(folder)


def test_files_are_checked_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_tokens(folder)
    stamp = (folder / VERIFIED).read_bytes()
    monkeypatch.setattr("isoflop.data.tokens._check_ids", lambda *args: pytest.fail("looked at every token again"))
    open_tokens(folder)
    assert (folder / VERIFIED).read_bytes() == stamp
    (folder / VERIFIED).write_text("not json")
    with pytest.raises(pytest.fail.Exception):
        open_tokens(folder)


def test_a_folder_that_cannot_be_written_to_opens(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, value: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("isoflop.data.tokens.write_json", refuse)
    assert len(open_tokens(folder).train) > 0
    assert not (folder / VERIFIED).exists()


def test_what_is_no_token_folder_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has a validation split of its own, so val='x' is not read; leave it out"):
        open_tokens(folder, val="x")
    with pytest.raises(ValueError, match=r"texts is no token folder \(it has no meta.json\); make one: isoflop data"):
        open_tokens(tmp_path / "texts")
    (folder / META).write_text('{"format": "something else"}')
    with pytest.raises(ValueError, match=r"meta.json does not say 'isoflop tokens 1', so .*T is no token folder"):
        open_tokens(folder)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dtype": "int8"}, "dtype='int8' must be one of uint16, uint32"),
        ({"vocab_size": "256"}, "vocab_size='256' must be a whole number"),
        ({"end_of_text": 256}, "end_of_text=256 must lie below vocab_size=256"),
        ({"bytes_per_token": 0}, "bytes_per_token=0 must be positive"),
        ({"tokenizer_sha256": "ab"}, "tokenizer_sha256='ab' must be 64 hexadecimal digits"),
        ({"train": {"tokens": 3}}, "train.documents is missing"),
        ({"val": None}, "val.documents is missing"),
        ({"sources": 3}, "sources=3 must be a list"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_every_field_of_meta_is_checked(change: dict, sentence: str, folder: Path) -> None:
    (folder / META).write_text(json.dumps(read_meta(folder) | change))
    with pytest.raises(ValueError, match="; bring it back, or build the folder again") as refused:
        read_meta(folder)
    assert f"meta.json: {sentence}" in str(refused.value)


# mixtures


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name, letter in (("web", "w"), ("code", "c")):
        (tmp_path / name).mkdir()
        for n in range(60):
            (tmp_path / name / f"{n}.txt").write_text(letter * (50 + n))
        build(Recipe(corpus=Corpus(sources=(str(tmp_path / name),))), tmp_path / f"T{name}")
    return tmp_path


def test_a_mixture_trains_and_measures_by_weight(place: Path) -> None:
    config = RunConfig(
        model=ModelConfig(context_length=8),
        data=DataConfig(data=str(place), mix="Tweb=0.75,Tcode=0.25"),
        optim=OptimConfig(),
        train=TrainConfig(steps=1, batch_size=64),
        data_sha256="0",
    )
    tokens = open_configured(config.data, vocab_size=256)
    web = (tokens.val == ord("w")).sum() / ((tokens.val == ord("w")) | (tokens.val == ord("c"))).sum()
    assert web == pytest.approx(0.75, abs=0.12)
    assert tokens.val[-1] == tokens.end_of_text
    assert tokens.train_tokens == sum(read_meta(place / name)["train"]["tokens"] for name in ("Tweb", "Tcode"))
    stream = open_stream(config, tokens)
    rows = np.concatenate([stream.batch(step)[0] for step in range(16)])
    assert (rows == ord("w")).any(1).sum() == 768 and list(stream.seen(16)) == ["Tweb", "Tcode"]
    other = open_mixed(place, {"Tweb": 0.5, "Tcode": 0.5})
    assert other.fingerprint != tokens.fingerprint


def test_folders_that_do_not_mix_are_refused_or_named(place: Path, caplog: pytest.LogCaptureFixture) -> None:
    sources = Corpus(sources=(str(place / "code"),))
    build(Recipe(corpus=sources, seed=1), place / "Tseed")
    open_mixed(place, {"Tweb": 0.5, "Tseed": 0.5})
    assert "were split by another seed or val_fraction" in caplog.text
    build(Recipe(corpus=sources, tokenizer="bpe", vocab_size=260), place / "Tbpe")
    with pytest.raises(ValueError, match=r"have different tokenizers; build .* again with --tokenizer"):
        open_mixed(place, {"Tweb": 0.5, "Tbpe": 0.5})
    with pytest.raises(ValueError, match="val='x' is not for mix, which names token folders; leave it out"):
        open_configured(DataConfig(data=str(place), mix="Tweb=1", val="x"), vocab_size=256)


# validation windows


@settings(deadline=None)
@given(tokens=st.integers(2, 3000), context=st.integers(1, 50), wanted=st.integers(1, 4000))
def test_validation_windows_cover_the_split_evenly(tokens: int, context: int, wanted: int) -> None:
    ids = np.zeros(tokens, dtype=np.uint16)
    if tokens <= context:
        with pytest.raises(
            ValueError, match=rf"the validation split has {tokens:,} tokens, less than one context of {context}"
        ):
            validation_windows(ids, context_length=context, val_tokens=wanted)
        return
    starts = validation_windows(ids, context_length=context, val_tokens=wanted)
    fit, count = (tokens - 1) // context, max(1, wanted // context)
    if count >= fit:  # every token but the first, once
        predicted = [at for start in starts for at in range(start + 1, min(start + context, tokens - 1) + 1)]
        assert predicted == list(range(1, tokens))
        return
    assert len(starts) == count
    assert starts[0] == 0 and starts[-1] + context < tokens
    gaps = np.diff(starts)
    assert len(gaps) == 0 or (gaps.min() >= context and gaps.max() - gaps.min() <= 1)
    if len(starts) > 1:  # the last window ends within one window of the end
        assert tokens - 1 - (starts[-1] + context) < context


def test_an_empty_validation_split_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the validation split has 0 tokens"):
        validation_windows(np.zeros(0, dtype=np.uint16), context_length=64, val_tokens=1000)
