"""The course's `scaling_records_*.npy`: pickled arrays of dictionaries, read without running what is in them."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from isoflop.record import Record, Records

PATTERN = "scaling_records_*.npy"
FIELDS = ("tokens", "flops", "loss")


def read_records(paths: Sequence[Path]) -> Records:
    """Read the points along some training runs; N = C/(6D), and the points of a file share a group.

    Raises:
        ValueError: a file is no such array, asks for code to be run, or holds a value that is no positive number.
    """
    runs = tuple(run for path in paths for run in _runs(path))
    names = ", ".join(map(str, paths))
    return Records(runs, source=f"{names} (N = flops/(6·tokens), points along runs)", convention="given")


def _runs(path: Path) -> list[Record]:
    runs = []
    for i, row in enumerate(_rows(path)):
        if not isinstance(row, dict) or not set(FIELDS) <= set(row):
            raise ValueError(f"{path}, record {i}: it has no {', '.join(FIELDS)}; export the records again")
        tokens, flops, loss = (row[field] for field in FIELDS)
        for field, value in zip(FIELDS, (tokens, flops, loss), strict=True):
            if not isinstance(value, (int, float)) or not 0 < value < np.inf:
                raise ValueError(f"{path}, record {i}: {field}={value} must be a positive number; leave the record out")
        runs.append(
            Record(
                id=f"{path.stem}[{i}]",
                params={"given": flops / (6 * tokens)},
                tokens=float(tokens),
                flops=float(flops),
                loss=float(loss),
                group=path.stem,
            )
        )
    if not runs:
        raise ValueError(f"{path} holds no records; repeat the training that wrote it")
    return runs


def _rows(path: Path) -> list[Any]:
    with path.open("rb") as file:
        if not re.search(rb"'descr': *'\|?O'", _header(file)):
            raise ValueError(f"{path} is not a NumPy array of records; give a {PATTERN}, a CSV or a JSON table")
        try:
            array = _Reader(file).load()
        # a damaged or hostile pickle can raise anything; whatever it is, the file is not what it should be
        except Exception as error:
            raise ValueError(
                f"{path} holds more than numbers in an array ({error}); it was not read and none of its code was run"
            ) from error
    rows = getattr(array, "rows", None)
    if not isinstance(rows, list):
        raise ValueError(f"{path} is not an array of records; export the records again")
    return rows


def _header(file: BinaryIO) -> bytes:
    """Return the text that describes a NumPy file's array (numpy.lib.format); empty if this is none."""
    start = file.read(8)
    if len(start) < 8 or start[:6] != b"\x93NUMPY":
        return b""
    width = 2 if start[6] == 1 else 4
    return file.read(int.from_bytes(file.read(width), "little"))


class _Reader(pickle.Unpickler):
    """An unpickler that finds stand-ins for NumPy's array, dtype and scalar, and nothing else."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self.admitted = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in, never the thing itself."""
        if (module, name) not in self.admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.admitted[module, name]


def _stand_ins() -> Mapping[tuple[str, str], Callable[..., Any]]:
    """Make them anew for each file, so that a pickle that alters one alters nothing that lasts."""

    class Dtype:
        def __init__(self, code: object = "", *_: object) -> None:
            self.code = code

        def __setstate__(self, state: object) -> None:
            """Byte order and fields: all files seen are little-endian and plain."""

    class Array:
        rows: object = None

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            self.rows = state[4]

    def reconstruct(*_: object) -> Array:
        return Array()

    def scalar(dtype: Dtype, raw: bytes) -> float:
        if not re.fullmatch(r"[fiu][1248]", str(dtype.code)):
            raise pickle.UnpicklingError(f"it holds a scalar of type {dtype.code}")
        return float(np.frombuffer(raw, "<" + str(dtype.code))[0])

    def encode(text: str, _: str) -> bytes:
        return text.encode("latin1")

    numpy: dict[str, Callable[..., Any]] = {"ndarray": Array, "dtype": Dtype}
    arrays: dict[str, Callable[..., Any]] = {"_reconstruct": reconstruct, "scalar": scalar}
    return {
        **{("numpy", name): value for name, value in numpy.items()},
        # NumPy 1 and 2 keep them in different places, and old protocols write bytes as encoded text
        **{(f"numpy.{core}.multiarray", name): value for core in ("core", "_core") for name, value in arrays.items()},
        ("_codecs", "encode"): encode,
    }
