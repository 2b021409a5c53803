"""`isoflop lock`, `score`."""

from __future__ import annotations

import json as json_module
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional, Suppress

from isoflop.cli.target import Count, asked, records_of, with_shape
from isoflop.config import ModelConfig, PresetName
from isoflop.sources.columns import GUESSED, Columns

if TYPE_CHECKING:
    from isoflop.study.locked import Locked, Score


def lock(
    source: Positional[str],
    *,
    params: float | None = None,
    preset: PresetName | None = None,
    model_config: str | None = None,
    count: Count | None = None,
    tokens: float | None = None,
    flops: float | None = None,
    series: str | None = None,
    columns: Columns = GUESSED,
    out: str | None = None,
    json: bool = False,
    model: ModelConfig = ModelConfig(),  # noqa: B008 - frozen
    shaped: Suppress[bool] = False,
) -> None:
    """Write a forecast down before its run exists: `isoflop lock demo`, later `isoflop score demo`.

    Of a study with a [target] the target is forecast, into forecast.json in the study's folder; of any source a run
    that is given as in `isoflop predict`, into --out. The file holds the hashes of all that it was made from. It is
    never replaced, and a run that has begun to train is refused.

    Args:
        source: Where the runs are.
        params: N, parameters, as the source counts them.
        preset: Model to start from; flags change single fields of it.
        model_config: JSON file with the fields of a model, or a run's config.json.
        count: How a shape's N is counted, where a table does not say.
        tokens: D, training tokens.
        flops: C, training FLOPs.
        series: The series of a table that holds several.
        columns: Which columns mean what, where their names do not tell.
        out: File for the forecast; None: forecast.json in the study's folder.
        json: Print JSON.
        model: Shape.
        shaped: Whether a shape was given.
    """
    from isoflop.study.locked import lock as write_down
    from isoflop.study.locked import lock_target

    del preset, model_config  # `with_shape` made them the model
    run: dict[str, Any] = {"params": params, "model": model if shaped else None, "tokens": tokens, "flops": flops}
    folder = Path(source)
    if all(value is None for value in run.values()):
        if not folder.is_dir():
            raise ValueError(f"{source} is no study with a target; say which run, as in `isoflop predict {source} …`")
        path = Path(out) if out else folder / "forecast.json"
        locked = lock_target(folder, path=path)
    else:
        if out is None:
            raise ValueError("say with --out in which file the forecast is to stand, such as --out big.forecast.json")
        path, records = Path(out), records_of(source, series, columns)
        N, D, C = asked(records.convention, count=count, **run)
        inputs = sorted(folder.glob("**/record.json")) if folder.is_dir() else [folder]
        locked = write_down(records, path, N=N, D=D, C=C, inputs=inputs)
    print(json_module.dumps(asdict(locked)) if json else f"{_told_locked(locked)}\n  written to {path}")


lock.prepare = with_shape(lock)  # type: ignore[attr-defined]


def _told_locked(locked: Locked) -> str:
    return (
        f"{f'run {locked.run}' if locked.run else 'the run'}: N = {locked.params:.4g} (counted as "
        f"{locked.params_convention}), D = {locked.tokens:.4g} tokens, C = {locked.flops:.4g} FLOPs\n"
        f"  forecast  {locked.loss:.4f} nats per token, {_percent(locked)} interval {locked.low:.4f} to "
        f"{locked.high:.4f}\n  {locked.basis}; from {_files(len(locked.inputs))}, {locked.made}"
    )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def _percent(locked: Locked) -> str:
    return f"{100 * locked.level:.0f} %"


def score(
    where: Positional[tuple[str, ...]],
    *,
    run: str | None = None,
    measured: float | None = None,
    json: bool = False,
) -> None:
    """Set forecasts that were written down beside what was measured: `isoflop score demo`.

    Args:
        where: Folders of studies, or files that `isoflop lock` wrote; of several the share inside is told too.
        run: Folder of the run that was forecast, where the file does not know it.
        measured: Its loss, nats per token, where it was trained elsewhere.
        json: Print JSON.
    """
    if not where:
        raise ValueError("say which forecast: `isoflop score STUDY`, or a file that `isoflop lock` wrote")
    if measured is not None and not 0 < measured < math.inf:
        raise ValueError(f"--measured {measured:g} is no loss; give nats per token, above 0")
    if len(where) > 1 and (run is not None or measured is not None):
        raise ValueError("--run and --measured speak of one forecast; score the others by themselves")
    scores = {name: _score(Path(name), run, measured) for name in where}
    inside = sum(score.inside for score, _ in scores.values())
    if json:
        rows = [
            {"where": name, **asdict(s.locked), "measured": s.measured, "error": s.error, "inside": s.inside}
            | {"changed": changed}
            for name, (s, changed) in scores.items()
        ]
        print(json_module.dumps({"scores": rows, "inside": inside, "of": len(rows)}))
        return
    for name, (score, changed) in scores.items():
        print(_told_score(name, score, changed))
    if len(scores) > 1:
        mean = sum(abs(score.error) for score, _ in scores.values()) / len(scores)
        print(f"{inside} of {len(scores)} inside their intervals; mean error {mean:.2%}")


def _score(where: Path, run: str | None, measured: float | None) -> tuple[Score, list[str]]:
    from isoflop.record import Record
    from isoflop.study.locked import FORECAST, Score, read_locked, read_target

    path = where / FORECAST if where.is_dir() else where
    if not path.exists():
        raise ValueError(f"{path} does not exist; `isoflop lock` writes a forecast down before its run")
    locked = read_locked(path)
    changed = locked.changed(path.parent)
    if (run is not None or measured is not None) and read_target(path.parent, locked) is not None:
        raise ValueError(f"{where} has its own measured run; leave --run and --measured out")
    if measured is not None:
        return Score(locked, measured), changed
    record = Record.read(Path(run) / "record.json") if run else read_target(path.parent, locked)
    if record is None:
        how = f"`isoflop study run {where} --target` trains it" if locked.run else "give --run DIR or --measured LOSS"
        raise ValueError(f"the run that {path} speaks of is not measured yet; {how}")
    spent = record.flops / locked.flops
    if not 0.98 < spent < 1.02:
        raise ValueError(
            f"run {record.id} spent {record.flops:.4g} FLOPs, but {locked.flops:.4g} were forecast; name that run"
        )
    if record.loss is None:
        raise ValueError(f"run {record.id} ended as {record.status} and has no loss to set beside the forecast")
    return Score(locked, record.loss), changed


def _told_score(name: str, score: Score, changed: list[str]) -> str:
    locked = score.locked
    verdict = "inside" if score.inside else "outside"
    lines = [
        f"{name}: C = {locked.flops:.4g} FLOPs, nats per token",
        f"  forecast  {locked.loss:.4f}  ({locked.low:.4f} to {locked.high:.4f}, {_percent(locked)} interval)  "
        f"written {locked.made}",
        f"  measured  {score.measured:.4f}  {score.error:+.2%}: {verdict} the interval, "
        f"{'a hit' if score.inside else 'a miss'}",
    ]
    if changed:
        lines.append(
            f"  note: {len(changed)} of its {len(locked.inputs)} inputs have changed since, {changed[0]} first"
        )
    return "\n".join(lines)
