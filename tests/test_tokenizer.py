"""python -m pytest tests/test_tokenizer.py"""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from isoflop.data.tokenizer import (
    END_OF_TEXT,
    TOKENIZERS,
    ByteTokenizer,
    JsonTokenizer,
    Tokenizer,
    load_tokenizer,
    make_tokenizer,
    train_bpe,
)

TEXTS = [f"def f_{n}(x):\n    return x + {n}\n" * 20 for n in range(30)] + ["Grüße, 世界! 🙂\r\n"]
MADE = {name: TOKENIZERS[name](TEXTS, 300 if name == "bpe" else None) for name in TOKENIZERS}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None)
@given(text=TEXT)
def test_text_survives_the_round_trip(name: str, text: str) -> None:
    tokenizer = MADE[name]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.end_of_text not in ids
    assert len(ids) == 0 or ids.max() < tokenizer.vocab_size


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_special_token_spelled_in_the_text_is_text(name: str) -> None:
    tokenizer = MADE[name]
    text = f"a{END_OF_TEXT}b"
    ids = tokenizer.encode(text)
    assert tokenizer.end_of_text not in ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_ends_of_documents_are_not_shown(name: str) -> None:
    tokenizer = MADE[name]
    assert tokenizer.decode([*tokenizer.encode("ab").tolist(), 0, *tokenizer.encode("c").tolist()]) == "abc"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_save_and_load(name: str, tmp_path: Path) -> None:
    made = MADE[name]
    made.save(tmp_path / "tokenizer.json")
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        loaded = load_tokenizer(path)
        assert type(loaded) is type(made)
        assert (loaded.sha256, loaded.vocab_size, loaded.end_of_text) == (made.sha256, made.vocab_size, 0)
        assert np.array_equal(loaded.encode(TEXTS[0]), made.encode(TEXTS[0]))


def test_bytes_are_256_ids_and_drop_nul() -> None:
    tokenizer = ByteTokenizer()
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (256, 0)
    assert tokenizer.encode("aé\0b").tolist() == [97, 0xC3, 0xA9, 98]
    assert tokenizer.decode([0xC3, 97]) == "\ufffda"


def test_other_programs_read_the_byte_tokenizer_alike() -> None:
    library = Library.from_buffer(ByteTokenizer().content)
    library.encode_special_tokens = True
    assert library.get_vocab_size() == 256
    text = "".join(map(chr, range(1, 1000))) + TEXTS[-1]
    ids = library.encode(text).ids
    assert ids == ByteTokenizer().encode(text).tolist()
    assert library.decode(ids) == text
    assert library.token_to_id(END_OF_TEXT) == 0
    assert set(ByteTokenizer().encode(text)) | {0} > set(range(1, 192))


def test_bytes_need_no_library() -> None:
    code = (
        "import sys; from pathlib import Path; from isoflop.data.tokenizer import make_tokenizer; "
        "make_tokenizer('bytes', []).encode('a'); sys.exit('tokenizers' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_bpe_is_the_same_however_the_texts_come() -> None:
    again = train_bpe(iter(TEXTS), 300)
    assert again.sha256 == MADE["bpe"].sha256
    assert again.vocab_size == 300
    assert len(again.encode(TEXTS[0])) < len(TEXTS[0]) / 2


def test_bpe_of_a_short_text_has_fewer_ids_than_asked_for() -> None:
    tokenizer = train_bpe(["ab ab"], 5000)
    assert 257 <= tokenizer.vocab_size < 300
    assert tokenizer.decode(tokenizer.encode("any text")) == "any text"


def foreign(tmp_path: Path, **changes) -> Path:
    """A tokenizer.json as others leave it: it cuts, pads, wraps the text, and ends it with </s>."""
    library = Library.from_buffer(MADE["bpe"].content)
    library.add_special_tokens(["<s>", "</s>"])
    library.enable_truncation(4)
    library.enable_padding(length=50)
    value = json.loads(library.to_str())
    value["added_tokens"] = [token for token in value["added_tokens"] if token["content"] != END_OF_TEXT]
    value["model"]["vocab"] = {
        ("<|x|>" if token == END_OF_TEXT else token): id for token, id in value["model"]["vocab"].items()
    }
    start = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    value["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [start, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [300], "tokens": ["<s>"]}},
    }
    path = tmp_path / "foreign.json"
    path.write_text(json.dumps(value | changes))
    return path


def test_a_foreign_tokenizer_neither_cuts_nor_pads_nor_wraps(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    assert len(Library.from_file(str(path)).encode(TEXTS[0]).ids) == 50  # what it does left to itself
    tokenizer = make_tokenizer(str(path), [])
    assert (tokenizer.vocab_size, tokenizer.end_of_text) == (302, 301)
    assert np.array_equal(tokenizer.encode(TEXTS[0]), MADE["bpe"].encode(TEXTS[0]))
    assert tokenizer.sha256 == JsonTokenizer(path.read_bytes()).sha256
    assert make_tokenizer(str(path), [], end_of_text="<s>").end_of_text == 300


def test_a_vocabulary_with_holes_counts_to_its_largest_id(tmp_path: Path) -> None:
    value = json.loads(MADE["bpe"].content)
    last = max(value["model"]["vocab"], key=value["model"]["vocab"].__getitem__)
    value["model"]["vocab"][last] = 999
    (tmp_path / "t.json").write_text(json.dumps(value))
    assert load_tokenizer(tmp_path / "t.json").vocab_size == 1000


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("wrong", [-1, 300])
def test_ids_of_another_tokenizer_are_refused(name: str, wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"id {wrong} at position 1 is not below vocab_size="):
        MADE[name].decode([1, wrong])


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("bytes", {"vocab_size": 512}, "vocab_size=512 is for bpe; bytes have 256 ids"),
        ("bpe", {"vocab_size": 256}, "vocab_size=256 does not hold the 256 bytes and the end of text"),
        ("bpe", {"end_of_text": "x"}, "end_of_text='x' is for a tokenizer.json; bpe ends texts by itself"),
        ("byte", {}, "tokenizer='byte' is neither a file nor one of bytes, bpe"),
    ],
)
def test_what_cannot_be_made_is_refused(name: str, options: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        make_tokenizer(name, TEXTS, **options)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    path = foreign(tmp_path)
    with pytest.raises(ValueError, match=r"vocab_size=9 is for bpe; .*foreign.json has 302 ids: leave it out"):
        make_tokenizer(str(path), [], vocab_size=9)
    with pytest.raises(ValueError, match=r"end_of_text='<nope>' is no token of this tokenizer"):
        make_tokenizer(str(path), [], end_of_text="<nope>")
    text = path.read_text().replace("</s>", "<end>")
    path.write_text(text)
    with pytest.raises(ValueError, match=r"foreign.json has no end of text spelled <\|endoftext\|>.*give the token"):
        make_tokenizer(str(path), [])
    path.write_text('{"no": "tokenizer"}')
    with pytest.raises(ValueError, match=r"foreign.json: this is no tokenizer.json"):
        load_tokenizer(path)


def test_both_kinds_are_tokenizers() -> None:
    assert all(isinstance(made, Tokenizer) for made in MADE.values())
