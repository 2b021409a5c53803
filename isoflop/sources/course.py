"""The course's `scaling_records_*.npy`: a pickled object array of dicts, read without running what it says."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from isoflop.record import Records
from isoflop.sources.table import from_rows

ADMITTED = frozenset(
    (module, name)
    for module in ("numpy._core.multiarray", "numpy.core.multiarray")
    for name in ("_reconstruct", "scalar")
) | {("numpy", "ndarray"), ("numpy", "dtype")}
"""What a pickle of a numpy object array names; everything else that a pickle can name could run code."""
MAGIC = b"\x93NUMPY"


class _PlainUnpickler(pickle.Unpickler):
    """Admits numpy arrays and plain values, and nothing that could act."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, if it is among the admitted."""
        if (module, name) not in ADMITTED:
            raise ValueError(f"it names {module}.{name}, which could run code")
        return super().find_class(module, name)


def read_npy(path: Path, series: str | None) -> Records:
    """Read the records of a run that the course's trainer wrote: dicts of step, tokens, flops and loss.

    Raises:
        ValueError: the file is no such array, or tries to do more than hold values.
    """
    raw = path.read_bytes()
    if not raw.startswith(MAGIC):
        raise ValueError(f"{path} is no .npy file; write it with numpy.save")
    stream = io.BytesIO(raw)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = header(stream)
        if dtype != np.dtype(object):
            raise ValueError(f"it holds {dtype} of shape {shape}")
        value = _PlainUnpickler(stream).load()
        rows = list(value.flat)
    except Exception as error:  # a hostile or broken pickle may raise anything
        raise ValueError(
            f"{path} is no array of records ({' '.join(str(error).split())[:200]}); it should hold dicts with "
            "tokens, flops and loss"
        ) from None
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} holds something else than dicts with tokens, flops and loss; save one dict a record")
    return from_rows(rows, path, series)
