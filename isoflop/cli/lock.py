"""`isoflop lock`, `score`."""

from __future__ import annotations

import json as json_module
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.cli.hardware import HARDWARE, Hardware
from isoflop.cli.target import WANTED, Wanted, counting, records_of, with_shape
from isoflop.counts import number_of
from isoflop.sources.columns import GUESSED, Columns

if TYPE_CHECKING:
    from isoflop.study.calibration import Calibration, Outcome
    from isoflop.study.locked import Locked, Score


def lock(
    source: Positional[str],
    *,
    run: Wanted = WANTED,
    hardware: Hardware = HARDWARE,
    series: str | None = None,
    columns: Columns = GUESSED,
    out: str | None = None,
    json: bool = False,
) -> None:
    """Write a forecast down before its run exists: `isoflop lock demo`, later `isoflop score demo`.

    Of a study with a [target] the target is forecast, into forecast.json in the study's folder; of any source a run
    that is given as in `isoflop predict`, into --out. The file holds the hashes of all that it was made from. It is
    never replaced, and a run that has begun to train is refused.

    Args:
        source: Where the runs are.
        run: The run that is forecast.
        hardware: Its FLOPs as time of devices.
        series: The series of a table that holds several.
        columns: Which columns mean what, where their names do not tell.
        out: File for the forecast, such as big.forecast.json; None: forecast.json in the study's folder.
        json: Print JSON.
    """
    from isoflop.study.locked import FORECAST, lock_target
    from isoflop.study.locked import lock as write_down

    run, folder = hardware.of(run), Path(source)
    path, stood = Path(out) if out else folder / FORECAST, False
    if not run.anything:
        if not folder.is_dir():
            what = "is no study, so it has no target" if folder.exists() else "is not there"
            raise ValueError(f"{source} {what}; name a study, or say which run, as in `isoflop predict RUNS …`")
        stood = path.exists()
        locked = lock_target(folder, out=Path(out) if out else None)
    else:
        if out is None:
            raise ValueError("say with --out in which file the forecast is to stand, such as --out big.forecast.json")
        records = run.counted(records_of(source, series, columns))
        N, D, C = run.under(records.convention)
        inputs = sorted(folder.glob("**/record.json")) if folder.is_dir() else [folder]
        locked = write_down(records, path, N=N, D=D, C=C, inputs=inputs)
    where = "it stands unchanged in" if stood else "written to"
    bill = {} if hardware.device is None else hardware.bill(locked.flops)
    said = "".join(f"\n  time      {line}" for line in hardware.told(locked.flops))
    print(json_module.dumps(asdict(locked) | bill) if json else f"{_told_locked(locked)}{said}\n  {where} {path}")


lock.prepare = with_shape(lock)  # type: ignore[attr-defined]


def _told_locked(locked: Locked) -> str:
    return (
        f"{f'run {locked.run}' if locked.run else 'the run'}: N = {locked.params:.4g} "
        f"({counting(locked.params_convention)}), D = {locked.tokens:.4g} tokens, C = {locked.flops:.4g} FLOPs\n"
        f"  forecast  {locked.loss:.4f} nats per token, {_percent(locked)} interval {locked.low:.4f} to "
        f"{locked.high:.4f}\n  {locked.basis}; from {number_of(len(locked.inputs), 'file')}, {locked.made}"
    )


def _percent(locked: Locked) -> str:
    return f"{100 * locked.level:.0f} %"


def score(
    where: Positional[tuple[str, ...]] = (),
    *,
    run: str | None = None,
    measured: float | None = None,
    json: bool = False,
) -> None:
    """Set forecasts that were written down beside what was measured: `isoflop score demo`.

    Every forecast below the folders given is found; of several the running calibration is told: how many of the
    intervals held, and how many should have. What --run or --measured says is kept beside the forecast's file, and
    counts from then on.

    Args:
        where: Folders, of studies or above them, or files that `isoflop lock` wrote; none: everything below here.
        run: Folder of the run that was forecast, where the forecast does not know it.
        measured: Its loss, nats per token, where it was trained elsewhere.
        json: Print JSON.
    """
    from isoflop.study.calibration import calibrate, distinct, find, keep, look

    paths = find([Path(name) for name in where or (".",)])
    if run is not None or measured is not None:
        if len(paths) > 1:
            raise ValueError(f"--run and --measured speak of one forecast, but {len(paths)} are here; name its file")
        keep(paths[0], _loss_elsewhere(paths[0], run, measured), run=run)
    found: list[Outcome] = []
    damaged: list[str] = []
    for path in paths:
        try:
            found.append(look(path))
        except ValueError as error:
            if len(paths) == 1:
                raise
            damaged.append(str(error))
    found, copies = distinct(found)
    done = [one for one in found if one.score is not None]
    if len(paths) == 1 and not done:
        raise ValueError(f"{paths[0]}: {found[0].lacks}")
    overall = calibrate([one.score for one in done if one.score is not None]) if done else None
    if json:
        print(json_module.dumps(_as_dict(found, damaged, overall) | {"notes": copies}))
    elif len(paths) == 1 and done[0].score is not None:
        print(_told_score(done[0], done[0].score))
    else:
        print("\n".join([_told_scores(found, damaged, overall), *(f"note: {copy}" for copy in copies)]))


def _loss_elsewhere(path: Path, run: str | None, measured: float | None) -> float:
    from isoflop.record import Record
    from isoflop.study.calibration import loss_of
    from isoflop.study.locked import read_locked

    if run is not None and measured is not None:
        raise ValueError("--run and --measured both give the loss; leave one out")
    if run is not None:
        return loss_of(Record.read(Path(run) / "record.json"), read_locked(path))
    assert measured is not None
    if not 0 < measured < math.inf:
        raise ValueError(f"--measured {measured:g} is no loss; give nats per token, above 0")
    return measured


def _as_dict(found: Sequence[Outcome], damaged: Sequence[str], overall: Calibration | None) -> dict[str, Any]:
    rows = [
        {"where": one.name, **asdict(one.locked), "measured": one.score.measured, "error": one.score.error}
        | {"inside": one.score.inside, "interval_score": one.score.interval_score, "changed": list(one.changed)}
        for one in found
        if one.score is not None
    ]
    waiting = [{"where": one.name, "lacks": one.lacks} for one in found if one.score is None]
    known = {"inside": 0, "of": 0} if overall is None else {**asdict(overall), "verdict": overall.verdict}
    return {"scores": rows, "waiting": waiting, "damaged": list(damaged), **known}


def _told_score(one: Outcome, score: Score) -> str:
    locked = one.locked
    verdict = "inside" if score.inside else "outside"
    lines = [
        f"{one.name}: C = {locked.flops:.4g} FLOPs, nats per token",
        f"  forecast  {locked.loss:.4f}  ({locked.low:.4f} to {locked.high:.4f}, {_percent(locked)} interval)  "
        f"written {locked.made}",
        f"  measured  {score.measured:.4f}  {score.error:+.2%}: {verdict} the interval, "
        f"{'a hit' if score.inside else 'a miss'}",
    ]
    return "\n".join(lines + [f"  note: {note}" for note in _changed(one)])


def _changed(one: Outcome) -> list[str]:
    if not one.changed:
        return []
    return [f"{len(one.changed)} of its {len(one.locked.inputs)} inputs have changed since, {one.changed[0]} first"]


def _told_scores(found: Sequence[Outcome], damaged: Sequence[str], overall: Calibration | None) -> str:
    """One line a forecast, and the running calibration."""
    wide = max(len(one.name) for one in found) if found else 0
    lines = [f"{'':<{wide}}  {'FLOPs':>9}  {'forecast':>8}  {'90 % interval':<17}  {'measured':>8}  {'error':>7}"]
    for one in found:
        if one.score is None:
            continue
        locked = one.locked
        lines.append(
            f"{one.name:<{wide}}  {locked.flops:>9.3g}  {locked.loss:>8.4f}  {locked.low:.4f} to {locked.high:.4f}  "
            f"{one.score.measured:>8.4f}  {one.score.error:>+7.2%}  {'a hit' if one.score.inside else 'a miss'}"
        )
    if overall is None:
        lines = ["no forecast here has been measured yet"]
    else:
        low, high = overall.expected
        lines += [
            f"{overall.inside} of {overall.of} inside their intervals, {overall.verdict}: of right ones "
            f"{low if low == high else f'{low} to {high}'} of {overall.of} hold nine times in ten",
            f"median error {overall.median_abs_rel_error:.2%}, interval score {overall.interval_score:.4f} in ln loss",
        ]
    lines += [f"note: {one.name}: {note}" for one in found for note in _changed(one)]
    lines += [f"waits: {one.name}: {one.lacks}" for one in found if one.score is None]
    return "\n".join(lines + [f"damaged: {reason}" for reason in damaged])
