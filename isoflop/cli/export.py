"""`isoflop study export`."""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from isoflop.counts import number_of


def export(folder: Positional[str], *, out: str | None = None, json: bool = False) -> None:
    """Write a study as NAME.json (everything) and NAME.parquet (a row a run), from which `isoflop fit` fits elsewhere.

    Args:
        folder: Folder of a study.
        out: Path of both files without their endings; None: the study's name, here.
        json: Print what was written as JSON.
    """
    from isoflop.files import read_json
    from isoflop.sources.export import Export, write_export
    from isoflop.sources.folder import TARGET
    from isoflop.sources.index import read_records
    from isoflop.study.drive import open_study
    from isoflop.study.locked import FORECAST

    where = Path(folder)
    study = open_study(where)
    found = {name: read_records(where / name) if (where / name).is_dir() else {} for name in ("runs", TARGET)}
    if not found["runs"]:
        raise ValueError(f"{folder} has no record yet; `isoflop study run {folder}` trains its runs")
    kept = {name: read_json(where / name) for name in (FORECAST, "fit.json") if (where / name).exists()}
    whole = Export(
        name=study.name,
        study=_at_home(study.to_dict(), where),
        runs=[replace(record, config=_at_home(record.config, where)) for record in found["runs"].values()],
        targets=[replace(record, config=_at_home(record.config, where)) for record in found[TARGET].values()],
        forecasts=[kept[FORECAST]] if FORECAST in kept else [],
        fit=kept.get("fit.json"),
    )
    base = Path(out) if out else Path(where.resolve().name)
    written = write_export(whole, base)
    if json:
        print(json_module.dumps({"runs": len(whole.runs), "files": [str(path) for path in written]}))
        return
    for path in written:
        print(f"{path}: {number_of(len(whole.runs), 'run')}; `isoflop fit {path}` fits them")
    if len(written) == 1:
        print("a Parquet file needs pyarrow; install it with `pip install 'isoflop[parquet]'`")


def _at_home(config: Mapping[str, Any], study: Path) -> dict[str, Any]:
    """Name tokens that lie in the study's folder from there: where that is on this machine helps nobody elsewhere."""
    home, data = study.resolve(), config.get("data")
    if not isinstance(data, Mapping) or not isinstance(data.get("data"), str):
        return dict(config)
    tokens = Path(data["data"]).resolve()
    if not data["data"] or not tokens.is_relative_to(home):
        return dict(config)
    return {**config, "data": {**data, "data": tokens.relative_to(home).as_posix()}}
