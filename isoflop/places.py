"""Where a run's tokens lie: the folders of a mixture with their weights, and paths that outlive a move."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_PATHS = ("data", "val", "tokenizer_file")
"""Fields of a DataConfig that are paths."""


def parse_mix(mix: str | None) -> dict[str, float]:
    """Return the folders of a mixture with their weights, which sum to 1; none where there is no mixture.

    Raises:
        ValueError: the text is no mixture, or a weight is no positive number.
    """
    weights: dict[str, float] = {}
    for part in () if mix is None else mix.split(","):
        name, _, number = part.strip().rpartition("=")
        try:
            weight = float(number)
        except ValueError:
            weight = math.nan
        if not name or not 0 < weight < math.inf or name in weights:
            raise ValueError(f"mix={mix!r} must name each folder once, with a weight above 0: web=0.7,code=0.3")
        weights[name] = weight
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def lasting(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a run's configuration as its folder keeps it: paths from the root, and where the folder lay then."""

    def from_root(path: Path) -> Path:
        return path.absolute() if path.exists() else path

    return {"folder": str(folder.absolute()), **_with_paths(config, from_root)}


def found(config: Any, folder: Path) -> Any:
    """Return what `lasting` wrote with the paths that hold now: as written, or else as seen from the run's folder.

    So a run is found from any working directory, and one that was copied with its tokens beside it finds the copy.
    """
    if not isinstance(config, Mapping) or not isinstance(config.get("data"), Mapping):
        return config
    written = config.get("folder")
    if not isinstance(written, str):
        return config

    def now(path: Path) -> Path:
        if path.exists() or not path.is_absolute():
            return path
        beside = Path(os.path.normpath(folder.absolute() / os.path.relpath(path, written)))
        return beside if beside.exists() else path

    return _with_paths(config, now)


def _with_paths(config: Mapping[str, Any], change: Callable[[Path], Path]) -> dict[str, Any]:
    paths = {name: config["data"].get(name) for name in _PATHS}
    if config["data"].get("mix") and not paths["data"]:
        paths["data"] = "."  # a mixture's folders are named from the working directory
    changed = {name: str(change(Path(path))) for name, path in paths.items() if path}
    return {**config, "data": {**config["data"], **changed}}
