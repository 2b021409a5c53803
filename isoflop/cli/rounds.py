"""`isoflop next STUDY --run`: fit, propose, train, and again."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoflop.cli.study import display
from isoflop.counts import number_of
from isoflop.flops import compute
from isoflop.law.advise import FAR
from isoflop.law.repetition import MUCH
from isoflop.record import of_a_run
from isoflop.study import drive, propose
from isoflop.study.failures import quarantined
from isoflop.study.ledger import Amount, Ledger
from isoflop.study.rounds import Known, Round, keep, read_rounds

if TYPE_CHECKING:
    from isoflop.cli.next import Going
    from isoflop.law.fit import Fit
    from isoflop.record import Record
    from isoflop.study.drive import Planned
    from isoflop.study.study import Study


def run_rounds(
    folder: Path, going: Going, *, allowance: float, law: str, json: bool, **wishes: float | int | None
) -> None:
    """Train rounds until their runs together have spent the allowance, or the forecast is narrow enough; print each.

    A round is written down before it is trained, so whoever repeats the command goes on with it.
    """
    for name, value in {"flops": allowance, "target": wishes["target"], "smallest": wishes["smallest"]}.items():
        if value is not None:
            of_a_run(f"--{name} {value:g}", value)
    study = drive.open_study(folder)
    propose.check_study(study)
    told = [one for one in read_rounds(folder) if one.after is not None]
    if not json:
        _tell_before(told, folder, study, allowance, again=going.all_rounds)
    try:
        reason = _go_on(told, folder, study, going, allowance=allowance, law=law, json=json, wishes=wishes)
    except ValueError as refusal:
        if json and (done := told + _trained(folder, study, after=len(told))):
            _end(done, folder, study, allowance, str(refusal), json=True)
        raise
    _end(told, folder, study, allowance, reason, json=json)


def _go_on(
    told: list[Round],
    folder: Path,
    study: Study,
    going: Going,
    *,
    allowance: float,
    law: str,
    json: bool,
    wishes: Mapping[str, float | int | None],
) -> str:
    """Train rounds, each added to `told` once it is done; return why there is no further one."""
    while True:
        made = read_rounds(folder)
        if not made or made[-1].after is not None:
            fitted = propose.fit_folder(folder, law)
            target = wishes["target"] or (made[-1].target if made else propose.default_target(fitted, allowance))
            before = made[-1].after if made and made[-1].target == target else None
            before = before or propose.known(fitted, target)
            left = allowance - charged(folder, study, made)
            if reason := _enough(before, fitted, left, going, len(made), wishes):
                return reason
            part = _part(left / (going.rounds - len(made)), left, _least(fitted, wishes))
            asked: dict[str, Any] = {**wishes, "target": target, "unique": drive.train_tokens(study)}
            new = propose.propose(study, fitted, before, number=len(made) + 1, allowance=part, **asked)
            made.append(keep(folder, new))
            _tell_left_out(made[-1], folder)
        if lost := _train(folder, study, made[-1], workers=going.workers, quiet=json):
            if json:
                _end(told, folder, study, allowance, f"{lost} of round {made[-1].number} came to no end", json=True)
            sys.exit(1)
        after = propose.known(propose.fit_folder(folder, law), made[-1].target)
        told.append(keep(folder, replace(made[-1], after=after)))
        if not json:
            _tell(told[-1], folder, study, allowance)


def _trained(folder: Path, study: Study, *, after: int) -> list[Round]:
    """Return the rounds beyond the first `after` whose runs are all done, though nothing was fitted to them."""
    rest = read_rounds(folder)[after:]
    return [made for made in rest if all(run.record is not None for run in drive.plan_round(study, folder, made))]


def _tell_left_out(made: Round, folder: Path) -> None:
    if made.left_out:
        print(f"{folder}: round {made.number} goes without {_left_out(made)}", file=sys.stderr)


def _left_out(made: Round) -> str:
    runs = number_of(made.left_out, "proposed run")
    return f"{runs} that would have repeated the training tokens more than {MUCH:g} times; no fit takes those"


def _tell_before(told: list[Round], folder: Path, study: Study, allowance: float, *, again: bool) -> None:
    """Say that there were rounds, or print them again."""
    for done in told if again else []:
        _tell(done, folder, study, allowance)
    if told and not again:
        assert told[-1].after is not None
        numbers = "round 1" if len(told) == 1 else f"rounds 1–{len(told)}"
        print(
            f"{numbers} as before: the interval of the loss went from ± {told[0].before.width:.2%} to "
            f"± {told[-1].after.width:.2%}; --all-rounds prints them\n",
            flush=True,
        )


def _end(told: list[Round], folder: Path, study: Study, allowance: float, reason: str, *, json: bool) -> None:
    if not json:
        print(f"{folder}: {reason}")
        return
    rounds = []
    for made in told:
        planned, rows = _rows(made, folder, study)
        rounds.append({**_plain(made), "flops": sum(run.flops for run in planned), "runs": rows})
    print(json_module.dumps({"folder": str(folder), "allowance": allowance, "rounds": rounds, "ended": reason}))


def _enough(
    now: Known, fitted: Fit, left: float, going: Going, rounds: int, wishes: Mapping[str, float | int | None]
) -> str | None:
    """Why there is no further round; None if there is."""
    if going.until_width is not None and now.width <= going.until_width:
        return f"the loss is known within ± {now.width:.2%}, as narrow as asked"
    if FAR * max(left, 0.0) < _least(fitted, wishes):
        return f"the allowance is spent: {max(left, 0.0):.3g} FLOPs are left, too few for a round"
    if rounds >= going.rounds:
        done = number_of(rounds, "round")
        return f"{done} of {going.rounds} done and {left:.3g} FLOPs left; a larger --rounds spends them"
    return None


def _least(fitted: Fit, wishes: Mapping[str, float | int | None]) -> float:
    return wishes.get("smallest") or float(fitted.records.C.min())


def _part(share: float, left: float, least: float) -> float:
    """FLOPs of a round: its share, or what is left where a share more would leave too few for another."""
    part = max(share, least / FAR)
    return left if left - part < least / FAR else part


def charged(folder: Path, study: Study, rounds: list[Round]) -> float:
    """FLOPs that rounds took of the allowance: each run once, however often it began; a failed one what it used."""
    used = Ledger(folder, study).charges()
    total = 0.0
    for made in rounds:
        for run in drive.plan_round(study, folder, made):
            failed = run.record is None and quarantined(run.folder)
            total += used.get(f"runs/{run.config.id}", Amount()).flops if failed else run.flops
    return total


def _train(folder: Path, study: Study, made: Round, *, workers: int | None, quiet: bool) -> str:
    """Train what of a round is not done; say how many runs were lost, if any."""
    planned = sorted(drive.plan_round(study, folder, made), key=lambda run: -run.flops)
    with display(planned, quiet=quiet) as show:
        failures = drive.drive(planned, workers=workers, ledger=Ledger(folder, study), on_event=show)
    for failure in failures:
        print(f"isoflop: {failure.run.name} {failure.kind}: {failure.reason}", file=sys.stderr)
    if failures:
        print(f"isoflop: `isoflop study retry {folder}` lets these be tried again", file=sys.stderr)
    return number_of(len(failures), "run") if failures else ""


def _rows(made: Round, folder: Path, study: Study) -> tuple[list[Planned], list[dict[str, Any]]]:
    """Return the runs of a round, and what is told of each."""
    planned = drive.plan_round(study, folder, made)
    records = drive.records(planned)
    return planned, [_row(made, i, run, records.get(run.folder)) for i, run in enumerate(planned)]


def _tell(made: Round, folder: Path, study: Study, allowance: float) -> None:
    planned, rows = _rows(made, folder, study)
    assert made.after is not None
    spent = sum(run.flops for run in planned)
    lines = [
        f"round {made.number}: {number_of(len(rows), 'run')} for {spent:.3g} of {allowance:.3g} FLOPs",
        f"  before, {_known(made.before, made.target)}",
        f"  {'d_model':>7} {'seed':>4} {'tokens':>9} {'FLOPs':>9} {'expected':>8} {'measured':>8}  for",
    ]
    for row in rows:
        measured = row["status"] if row["loss"] is None else f"{row['loss']:.4f}"
        lines.append(
            f"  {row['d_model']:>7} {row['seed']:>4} {row['tokens']:>9.3g} {row['flops']:>9.3g} "
            f"{row['expected']:>8.4f} {measured:>8}  {row['why']}"
        )
    before, after = made.before.width, made.after.width
    lines += [f"  without {_left_out(made)}"] if made.left_out else []
    lines += [
        f"  after, {_known(made.after, made.target)}",
        f"  the interval of the loss went from ± {before:.2%} to ± {after:.2%}, that of the exponent from "
        f"{_breadth(made.before):.3f} to {_breadth(made.after):.3f}",
        "",
    ]
    print("\n".join(lines), flush=True)


def _row(made: Round, index: int, run: Planned, record: Record | None) -> dict[str, Any]:
    return {
        "id": run.config.id,
        "d_model": run.config.model.d_model,
        "seed": run.config.train.seed,
        "tokens": run.flops / compute(run.config.model),
        "flops": run.flops,
        "expected": made.expected[index],
        "loss": None if record is None else record.loss,
        "status": "pending" if record is None else record.status,
        "why": made.why[index],
    }


def _plain(made: Round) -> dict[str, Any]:
    after = None if made.after is None else asdict(made.after)
    said = {"round": made.number, "target": made.target, "left_out": made.left_out}
    return {**said, "before": asdict(made.before), "after": after}


def _known(now: Known, target: float) -> str:
    return (
        f"from {number_of(now.runs, 'run')}: N* ∝ C^{now.exponent:.3f} "
        f"({now.exponent_low:.3f} to {now.exponent_high:.3f}); at {target:.3g} FLOPs N* {now.params:.3g}, "
        f"loss {now.loss:.4f} ± {now.width:.2%}"
    )


def _breadth(now: Known) -> float:
    return now.exponent_high - now.exponent_low
