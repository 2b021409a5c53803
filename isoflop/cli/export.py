"""`isoflop study export`."""

from __future__ import annotations

import json as json_module
from pathlib import Path

from tyro.conf import Positional


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
        study=study.to_dict(),
        runs=list(found["runs"].values()),
        targets=list(found[TARGET].values()),
        forecasts=[kept[FORECAST]] if FORECAST in kept else [],
        fit=kept.get("fit.json"),
    )
    base = Path(out) if out else Path(where.resolve().name)
    written = write_export(whole, base)
    if json:
        print(json_module.dumps({"runs": len(whole.runs), "files": [str(path) for path in written]}))
        return
    for path in written:
        print(f"{path}: {len(whole.runs)} runs; `isoflop fit {path}` fits them")
    if len(written) == 1:
        print("a Parquet file needs pyarrow; install it with `pip install 'isoflop[parquet]'`")
