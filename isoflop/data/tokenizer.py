"""Tokenizers: bytes, byte-pair encoding trained here, or any tokenizer.json."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer

from isoflop.config import DataConfig
from isoflop.files import write_bytes
from isoflop.places import parse_mix

Ids = Integer[np.ndarray, " ids"]

END_OF_TEXT = "<|endoftext|>"
"""The special token of the tokenizers that are made here."""
# how published tokenizers spell it: GPT-2 and Qwen, Llama 3, Llama 2 and Mistral, Gemma
END_SPELLINGS = (END_OF_TEXT, "<|end_of_text|>", "</s>", "<eos>")


@dataclass(frozen=True)
class ByteTokenizer:
    """Ids are the bytes of UTF-8; byte 0, which no text contains, ends a document."""

    vocab_size = 256
    end_of_text = 0

    @cached_property
    def content(self) -> bytes:
        """The same tokenizer as tokenizer.json, for other programs."""
        letters = {letter: byte for byte, letter in enumerate(_letters()) if byte != self.end_of_text}
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
        special = {"id": self.end_of_text, "content": END_OF_TEXT, "special": True, "normalized": False}
        added = special | {"single_word": False, "lstrip": False, "rstrip": False}
        vocab = {END_OF_TEXT: self.end_of_text, **letters}
        whole: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [added]}
        whole |= {"normalizer": None, "pre_tokenizer": level, "post_processor": None, "decoder": level}
        whole["model"] = {"type": "BPE", "vocab": vocab, "merges": []}
        return json.dumps(whole).encode()

    @property
    def sha256(self) -> str:
        """Hash of `content`."""
        return hashlib.sha256(self.content).hexdigest()

    def spelled(self, text: str) -> Counter[str]:
        """Count the special token in a text, where it is text like any other."""
        return _count_spelled(text, (END_OF_TEXT,))

    def encode(self, text: str) -> Ids:
        """Turn text into ids; NUL is dropped."""
        ids = np.frombuffer(text.encode(), dtype=np.uint8)
        return ids if ids.all() else ids[ids != self.end_of_text]

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Turn ids into text, without the ends of documents; a broken character becomes U+FFFD."""
        known = _known(ids, self.vocab_size)
        text: bytes = known[known != self.end_of_text].astype(np.uint8).tobytes()
        return text.decode(errors="replace")

    def spelling(self, token: int) -> str | None:
        """Return how tokenizer.json spells an id; None: it has no such id."""
        return END_OF_TEXT if token == self.end_of_text else dict(enumerate(_letters())).get(token)

    def save(self, path: Path) -> None:
        """Write as tokenizer.json."""
        write_bytes(path, self.content)


def _letters() -> list[str]:
    """List the letters that stand for the 256 bytes in a byte-level tokenizer.json (GPT-2's encoder.py)."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]


@dataclass(frozen=True)
class JsonTokenizer:
    """Any tokenizer that the `tokenizers` library reads, used without the text treatment of one model's chat.

    Nothing is cut, padded or put around the text, and a special token spelled in the text is text.
    """

    content: bytes
    """The tokenizer.json, as it is."""
    end_spelling: str | None = None
    """The token that ends a document; None: whichever of END_SPELLINGS it has."""

    def __post_init__(self) -> None:
        if self.end_spelling is not None and self.end_of_text is None:
            raise ValueError(f"end_of_text={self.end_spelling!r} is no token of this tokenizer; see its added_tokens")

    @cached_property
    def _inner(self) -> Any:
        # bytes need no library, and a command that only looks at a token folder does not pay for it
        from tokenizers import Tokenizer

        try:
            inner = Tokenizer.from_buffer(self.content)
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(
                f"this is no tokenizer.json ({error}); save one with tokenizers or transformers"
            ) from error
        inner.no_truncation()
        inner.no_padding()
        inner.encode_special_tokens = True
        return inner

    @cached_property
    def vocab_size(self) -> int:
        """Number of ids: one more than the largest, since a vocabulary may have holes."""
        return int(max(self._inner.get_vocab(with_added_tokens=True).values())) + 1

    @cached_property
    def end_of_text(self) -> int | None:
        """Id that ends a document; None: there is none."""
        spellings = END_SPELLINGS if self.end_spelling is None else (self.end_spelling,)
        ids = (self._inner.token_to_id(spelling) for spelling in spellings)
        return next((found for found in ids if found is not None), None)

    @property
    def sha256(self) -> str:
        """Hash of `content`."""
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def specials(self) -> tuple[str, ...]:
        """Spellings that stand for one id each, wherever they come from: special tokens, and the end of text."""
        added = {str(token) for token in self._inner.get_added_tokens_decoder().values() if token.special}
        end = None if self.end_of_text is None else self.spelling(self.end_of_text)
        return tuple(sorted(added if end is None else added | {end}))

    def spelled(self, text: str) -> Counter[str]:
        """Count the special tokens in a text, where they are text like any other."""
        return _count_spelled(text, self.specials)

    def encode(self, text: str) -> Ids:
        """Turn text into ids, none of which is the end of text.

        Raises:
            ValueError: the tokenizer has no other ids for the text that spells its end of text.
        """
        ids, end = self._ids(text), self.end_of_text
        if end is None or not (ids == end).any():
            return ids
        # an end of text that is not marked as special is found in the text: cut it in two
        spelling = self.spelling(end) or ""
        apart = [
            self._ids(part) for part in re.split(f"(?<={re.escape(spelling[:1])})(?={re.escape(spelling[1:])})", text)
        ]
        if (ids := np.concatenate(apart))[ids == end].size:
            raise ValueError(
                f"this tokenizer turns text into its end of text {spelling!r}; name another token as end_of_text"
            )
        return ids

    def _ids(self, text: str) -> Ids:
        # of the library's ways in, this one computes no offsets and lets other threads run
        encoding = self._inner.encode_batch_fast([text], add_special_tokens=False)[0]
        return np.array(encoding.ids, dtype=np.uint32)

    def decode(self, ids: Sequence[int] | Ids) -> str:
        """Turn ids into text, without special tokens; a broken character becomes U+FFFD."""
        return str(self._inner.decode(_known(ids, self.vocab_size).tolist()))

    def spelling(self, token: int) -> str | None:
        """Return how tokenizer.json spells an id; None: it has no such id."""
        known: str | None = self._inner.id_to_token(token)
        return known

    def save(self, path: Path) -> None:
        """Write as tokenizer.json."""
        write_bytes(path, self.content)


Tokenizer = ByteTokenizer | JsonTokenizer


def _count_spelled(text: str, spellings: Sequence[str]) -> Counter[str]:
    # most texts hold not even the beginning of one, and some tokenizers have hundreds
    begun = {start for start in {spelling[:2] for spelling in spellings} if start in text}
    counts = {spelling: text.count(spelling) for spelling in spellings if spelling[:2] in begun}
    return Counter({spelling: number for spelling, number in counts.items() if number})


def _known(ids: Sequence[int] | Ids, vocab_size: int) -> Ids:
    known = np.asarray(ids, dtype=np.int64)
    if len(wrong := np.flatnonzero((known < 0) | (known >= vocab_size))):
        raise ValueError(
            f"id {known[wrong[0]]} at position {wrong[0]} is not below vocab_size={vocab_size}; "
            "decode with the tokenizer that made the ids"
        )
    return known


def load_tokenizer(path: Path, *, end_of_text: str | None = None) -> Tokenizer:
    """Read a tokenizer.json, or the one in a folder; what `bytes` writes is known by its content.

    Raises:
        ValueError: the file is no tokenizer.
    """
    path = path / "tokenizer.json" if path.is_dir() else path
    content = path.read_bytes()
    if content == ByteTokenizer().content:
        return ByteTokenizer()
    try:
        tokenizer = JsonTokenizer(content, end_of_text)
        assert tokenizer.vocab_size
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return tokenizer


def run_tokenizer(run: Path, data: DataConfig) -> Path | None:
    """Return the tokenizer.json of a run: an imported one's own, a raw file's, or its token folder's; None: unknown."""
    places = [run / "tokenizer.json"]
    if data.tokenizer_file:
        places.append(Path(data.tokenizer_file))
    # the folders of a mixture share their tokenizer
    places += [Path(data.data) / name / "tokenizer.json" for name in parse_mix(data.mix)]
    if data.data:
        places.append(Path(data.data) / "tokenizer.json")
    return next((path for path in places if path.is_file()), None)


def make_tokenizer(
    name: str, texts: Iterable[str], *, vocab_size: int | None = None, end_of_text: str | None = None
) -> Tokenizer:
    """Make one of TOKENIZERS, trained on `texts` if it learns, or read the tokenizer.json of that name.

    Raises:
        ValueError: there is no such tokenizer, or it cannot have this vocabulary or end of text.
    """
    if name in TOKENIZERS:
        if end_of_text is not None:
            raise ValueError(f"end_of_text={end_of_text!r} is for a tokenizer.json; {name} ends texts by itself")
        return TOKENIZERS[name](texts, vocab_size)
    if not Path(name).is_file():
        raise ValueError(f"tokenizer={name!r} is neither a file nor one of {', '.join(TOKENIZERS)}")
    tokenizer = load_tokenizer(Path(name), end_of_text=end_of_text)
    if vocab_size is not None:
        raise ValueError(f"vocab_size={vocab_size} is for bpe; {name} has {tokenizer.vocab_size} ids: leave it out")
    if tokenizer.end_of_text is None:
        raise ValueError(
            f"{name} has no end of text spelled {', '.join(END_SPELLINGS)}; give the token's spelling as end_of_text"
        )
    return tokenizer


def make_bytes(_texts: Iterable[str], vocab_size: int | None) -> ByteTokenizer:
    """Make the tokenizer that learns nothing.

    Raises:
        ValueError: another vocabulary is asked for.
    """
    if vocab_size not in (None, ByteTokenizer.vocab_size):
        raise ValueError(f"vocab_size={vocab_size} is for bpe; bytes have {ByteTokenizer.vocab_size} ids: leave it out")
    return ByteTokenizer()


BPE_VOCAB = 4096
"""Ids of a BPE unless said otherwise: 3.1 to 3.4 bytes a token on Python, and a head that fits small models."""


def train_bpe(texts: Iterable[str], vocab_size: int | None) -> JsonTokenizer:
    """Learn byte-level byte-pair encoding (arXiv:1508.07909, in GPT-2's byte-level form) with END_OF_TEXT as id 0.

    A text too short for the merges leaves fewer ids than asked for.

    Raises:
        ValueError: the vocabulary does not hold every byte.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    size = BPE_VOCAB if vocab_size is None else vocab_size
    if size < 257:
        raise ValueError(f"vocab_size={size} does not hold the 256 bytes and the end of text; try 512, or bytes")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    # lists let the library count in parallel, twice as fast as text by text, with the same result
    inner.train_from_iterator(_lists(texts), trainer)
    return JsonTokenizer(inner.to_str().encode())


def _lists(texts: Iterable[str]) -> Iterator[list[str]]:
    stream = iter(texts)
    while some := list(islice(stream, 64)):
        yield some


TOKENIZERS: Mapping[str, Callable[[Iterable[str], int | None], Tokenizer]] = {"bytes": make_bytes, "bpe": train_bpe}
