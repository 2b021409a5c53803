"""The course's `scaling_records_*.npy`: a pickled object array of dicts, read without running what it says."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.record import Records
from isoflop.sources.columns import GUESSED, Columns
from isoflop.sources.table import from_rows

PATTERN = "scaling_records_*.npy"
MAGIC = b"\x93NUMPY"


def read_npys(paths: Sequence[Path]) -> Records:
    """Read the records of several runs, each in its file.

    Raises:
        ValueError: as `read_npy`.
    """
    parts = [read_npy(path, None) for path in paths]
    runs = tuple(run for part in parts for run in part.runs)
    return replace(parts[0], runs=runs, source=", ".join(part.source for part in parts))


def read_npy(path: Path, series: str | None, said: Columns = GUESSED) -> Records:
    """Read the points along one run that the course's trainer wrote: dicts of step, tokens, flops and loss.

    They share a group, since points of one run are not independent.

    Raises:
        ValueError: the file is no such array, or tries to do more than hold values.
    """
    rows = _rows(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} holds something else than dicts with tokens, flops and loss; save one dict a record")
    if any(not isinstance(value, int | float | str | None) for row in rows for value in row.values()):
        raise ValueError(f"{path} holds records with something else than numbers and texts; save plain values")
    return from_rows(
        [{"id": f"{path.stem} {i}", "group": path.stem, **row} for i, row in enumerate(rows)], path, series, said
    )


def _rows(path: Path) -> Any:
    raw = path.read_bytes()
    if not raw.startswith(MAGIC):
        raise ValueError(f"{path} is no .npy file; write it with numpy.save")
    # numpy.lib.format: magic, version, length of the header, header; read here, since numpy's reader evaluates it
    width = 2 if raw[6:7] == b"\x01" else 4
    start = 8 + width
    end = start + int.from_bytes(raw[8:start], "little")
    try:
        if not re.search(rb"'descr': *'\|?O'", raw[start:end]):
            raise ValueError("it holds no objects")
        return _PlainUnpickler(io.BytesIO(raw[end:])).load().rows
    except Exception as error:  # a hostile or broken pickle may raise anything
        raise ValueError(
            f"{path} is no array of records ({' '.join(str(error).split())[:200]}); it should hold dicts with "
            "tokens, flops and loss"
        ) from None


class _PlainUnpickler(pickle.Unpickler):
    """Knows stand-ins for what a pickled array names, so that not even numpy's own code runs."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.known = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for what a pickle names."""
        if (module, name) not in self.known:
            raise ValueError(f"it names {module}.{name}, which could run code")
        return self.known[module, name]


def _stand_ins() -> Mapping[tuple[str, str], Callable[..., Any]]:
    """Make them anew for each file: a pickle can set attributes of what it is given."""

    class Dtype:
        def __init__(self, code: object = "", *_: object) -> None:
            self.code = code

        def __setstate__(self, state: object) -> None:
            """Byte order and fields, which plain little-endian numbers do not need."""

    class Array:
        rows: object = None

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            self.rows = state[4]

    def reconstruct(*_: object) -> Array:
        return Array()

    def scalar(dtype: Dtype, raw: bytes) -> float:
        if not re.fullmatch(r"[fiu][1248]", str(dtype.code)):
            raise ValueError(f"it holds a {dtype.code}, which is no number")
        return float(np.frombuffer(raw, "<" + str(dtype.code))[0])

    def encode(text: str, _: str) -> bytes:
        return text.encode("latin1")

    made: dict[str, Callable[..., Any]] = {"_reconstruct": reconstruct, "scalar": scalar}
    return {
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        # NumPy 1 and 2 keep them in different places; protocol 2 writes bytes as encoded text
        **{(f"numpy.{core}.multiarray", name): value for core in ("core", "_core") for name, value in made.items()},
        ("_codecs", "encode"): encode,
    }
