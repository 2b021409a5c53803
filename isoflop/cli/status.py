"""`isoflop study status`: a row a run, or a row a budget where there are many; why runs stopped; what was spent."""

from __future__ import annotations

import json as json_module
import shutil
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.config import PARTS

if TYPE_CHECKING:
    from isoflop.record import Record
    from isoflop.study.drive import Planned
    from isoflop.study.ledger import Balance
    from isoflop.study.progress import Progress, Underway
    from isoflop.study.study import Study

SHOWN = 60
"""Runs up to which each has a row; more are summed up by budget unless they are asked for."""
STATES = ("complete", "diverged", "running", "stopped", "failed", "cancelled", "pending")
WIDE = 100
"""Columns of output that goes to no terminal."""


def status(folder: Positional[str], *, runs: bool = False, json: bool = False) -> None:
    """Show what of a study is done, under way, open or lost, and why; and what it spent.

    Args:
        folder: Folder of a study.
        runs: Show each run even where there are more than 60; else those are summed up by budget.
        json: Print one JSON object, with an object for each run.
    """
    from isoflop.study import ledger
    from isoflop.study.progress import progress
    from isoflop.study.timeline import read_planned, read_stretches, timeline, told

    where = Path(folder)
    now = progress(where)
    rows = rows_of(now, where)
    balance = ledger.Ledger(where, now.study).balance(now.records)
    times = timeline(read_stretches(where))
    if json:
        print(json_module.dumps(_plain(where, rows, balance, asdict(times) if times else None)))
        return
    width = shutil.get_terminal_size((WIDE, 0)).columns
    listed = runs or len(rows) <= SHOWN
    lines = table(rows, width) if listed else [*summary(rows), f"`isoflop study status {folder} --runs` lists each run"]
    places = places_of(now, where)
    own = [run for run in now.planned if places[run.folder] == "-"]
    said = [f"{folder}: {counts(rows)}{saved(own, now.records)}", ledger.told(balance)]
    if times:
        said.append(told(times, read_planned(where) if all(row.ended for row in rows if not row.target) else None))
    lines += ["", *(line for text in said for line in wrapped(text, width)), *reasons(rows, folder, width)]
    print("\n".join(lines))


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is told of a run."""

    id: str
    place: str
    """-: of the study's design; a number: of that round of `isoflop next --run`; target: the larger run."""
    seed: int
    d_model: int
    num_layers: int
    setting: str
    """Fields that an ablation varies, as `name=value`."""
    params: float
    """N, counted as compute."""
    tokens: float
    """D."""
    budget: float
    """The length that was asked for."""
    unit: str
    """Its unit: flops, tokens, steps or epochs."""
    flops: float
    done: float
    """Share of its steps."""
    loss: float | None
    """Validation loss, nats per token; of a run that is not done, the last training loss; None before there is any."""
    state: str
    """One of STATES."""
    reason: str = ""
    """Why it failed, diverged or was called off."""

    @property
    def ended(self) -> bool:
        """Whether it has a record."""
        return self.state in ("complete", "diverged")

    @property
    def target(self) -> bool:
        """Whether it is no run that the law is fitted to."""
        return self.place == "target"


def rows_of(now: Progress, folder: Path) -> list[Row]:
    """Return a row for each run: those of the design by budget and size, then the rounds', then the target."""
    places = places_of(now, folder)
    underway = {run.planned.folder: run for run in now.underway}
    varied = _varied(now.study)
    rows = [
        _row(
            run,
            place=places[run.folder],
            record=now.records.get(run.folder),
            going=underway.get(run.folder),
            setting=" ".join(f"{name}={getattr(getattr(run.config, part), name)}" for part, name in varied),
        )
        for run in now.planned
    ]
    order = {"-": -1.0, "target": float("inf")}
    return sorted(
        rows,
        key=lambda row: (
            order[row.place] if row.place in order else float(row.place),
            row.budget,
            row.d_model,
            row.num_layers,
            row.setting,
            row.seed,
        ),
    )


def places_of(now: Progress, folder: Path) -> dict[Path, str]:
    """Say of each run, by its folder, what it belongs to: `Row.place`."""
    from isoflop.sources.folder import TARGET
    from isoflop.study.drive import plan_round
    from isoflop.study.rounds import read_rounds

    rounds = {run.folder: f"{one.number}" for one in read_rounds(folder) for run in plan_round(now.study, folder, one)}
    return {
        run.folder: "target" if run.folder.parent.name == TARGET else rounds.get(run.folder, "-") for run in now.planned
    }


def _row(run: Planned, *, place: str, record: Record | None, going: Underway | None, setting: str) -> Row:
    from isoflop.flops import compute

    model, per_token = run.config.model, compute(run.config.model)
    if record is not None:
        state, share, loss = str(record.status), 1.0, record.loss
        reason = str(record.measured.get("diverged", ""))
    else:
        state, reason = waits(run)
        state = "stopped" if state == "pending" and going is not None else state
        share, loss = (0.0, None) if going is None else (going.step / going.steps, going.loss)
    return Row(
        id=run.config.id,
        place=place,
        seed=run.config.train.seed,
        d_model=model.d_model,
        num_layers=model.num_layers,
        setting=setting,
        params=per_token / 6,
        tokens=run.flops / per_token if record is None else record.tokens,
        budget=run.config.train.length[1],
        unit=run.config.train.length[0],
        flops=run.flops,
        done=share,
        loss=loss,
        state=state,
        reason=reason,
    )


def waits(run: Planned) -> tuple[str, str]:
    """Why a run has no record, and what was said: it is at work, called off, failed too often, or nobody is at it."""
    from isoflop.lm.lease import held
    from isoflop.study.failures import quarantined
    from isoflop.study.launch.event import cancelled

    if held(run.folder):
        return "running", ""
    if (reason := cancelled(run.folder)) is not None:
        return "cancelled", reason
    if reason := quarantined(run.folder):
        return "failed", reason
    return "pending", ""


def _varied(study: Study) -> list[tuple[str, str]]:
    """Name what an ablation varies beside sizes and seeds: part of the configuration, and field."""
    from isoflop.study.ablation import parse

    owners = {field.name: part for part, kind in PARTS.items() for field in fields(kind)}
    return [(owners[name], name) for name in parse(study.vary) if name not in ("d_model", "num_layers", "seed")]


def table(rows: Sequence[Row], width: int) -> list[str]:
    """Draw a line a run that fits the width: layers and names go first where it is narrow."""
    lowest = _lowest(rows)
    columns: list[tuple[str, str, list[str]]] = [
        ("round", ">", [row.place for row in rows]),
        ("seed", ">", [f"{row.seed}" for row in rows]),
        ("d_model", ">", [f"{row.d_model}" for row in rows]),
        ("layers", ">", [f"{row.num_layers}" for row in rows]),
        (_names(rows[0].setting), "<", ["/".join(_values(row.setting)) for row in rows]),
        ("N", ">", [f"{row.params:.3g}" for row in rows]),
        ("D", ">", [f"{row.tokens:.3g}" for row in rows]),
        ("FLOPs", ">", [f"{row.flops:.3g}" for row in rows]),
        ("done", ">", [f"{row.done:.0%}" for row in rows]),
        ("loss", ">", [_loss(row, lowest) for row in rows]),
        ("state", "<", [row.state for row in rows]),
        ("run", "<", [row.id for row in rows]),
    ]
    columns = [column for column in columns if not (column[0] in ("round", "") and set(column[2]) <= {"-", ""})]
    for optional in ("layers", "run", "N", "D"):
        if _wide(columns) > width:
            columns = [column for column in columns if column[0] != optional]
    wide = [max(map(len, (name, *cells))) for name, _, cells in columns]
    lines = [
        "  ".join(f"{cell:{columns[k][1]}{wide[k]}}" for k, cell in enumerate(line)).rstrip()
        for line in zip(*([name, *cells] for name, _, cells in columns), strict=True)
    ]
    notes = ["loss in nats per token"]
    notes += ["the lowest of a budget in brackets"] if lowest else []
    notes += ["~ of the training text, run not done"] if any(not row.ended and row.loss for row in rows) else []
    return [*wrapped("; ".join(notes), width), "", *lines]


def _names(setting: str) -> str:
    return "/".join(one.partition("=")[0] for one in setting.split())


def _values(setting: str) -> list[str]:
    return [one.partition("=")[2] for one in setting.split()]


def _wide(columns: Sequence[tuple[str, str, list[str]]]) -> int:
    return sum(max(map(len, (name, *cells))) + 2 for name, _, cells in columns) - 2


def _lowest(rows: Sequence[Row]) -> set[str]:
    """Names of the runs with the least loss of each budget of FLOPs that two sizes have."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        if row.state == "complete" and row.unit == "flops" and row.loss is not None and not (row.target or row.setting):
            groups.setdefault((row.place, row.budget), []).append(row)
    return {
        min(group, key=lambda row: row.loss or 0.0).id
        for group in groups.values()
        if len({row.d_model for row in group}) > 1
    }


def _loss(row: Row, lowest: set[str]) -> str:
    if row.loss is None:
        return "- "
    return f"[{row.loss:.4f}]" if row.id in lowest else f"{'' if row.ended else '~'}{row.loss:.4f} "


def summary(rows: Sequence[Row]) -> list[str]:
    """Draw a line a budget: how many runs are in which state, and the least loss."""
    states = [state for state in STATES if any(row.state == state for row in rows)]
    lines = [f"{'length':>16} {'runs':>6} " + " ".join(f"{state:>9}" for state in states) + "  lowest loss"]
    groups: dict[tuple[bool, str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.target, "FLOPs" if row.unit == "flops" else row.unit, row.budget), []).append(row)
    for (target, unit, budget), group in sorted(groups.items()):
        found = Counter(row.state for row in group)
        done = [row for row in group if row.state == "complete" and row.loss is not None]
        best = min(done, key=lambda row: row.loss or 0.0, default=None)
        said = "-" if best is None else f"{best.loss:.4f} at d_model {best.d_model}"
        said += ", the target" if target else ""
        cells = " ".join(f"{found[state]:>9}" for state in states)
        lines.append(f"{f'{budget:.3g} {unit}':>16} {len(group):>6} {cells}  {said}")
    return lines


def counts(rows: Sequence[Row]) -> str:
    """Say how many runs are in which state, the target apart."""
    own = [row for row in rows if not row.target]
    found = Counter(row.state for row in own)
    others = "".join(f", {found[state]} {state}" for state in STATES[1:] if found[state])
    target = "".join(f"; the target {row.state}" for row in rows if row.target)
    return f"{found['complete']} of {len(own)} runs complete{others}{target}"


def saved(planned: Sequence[Planned], known: Mapping[Path, Record]) -> str:
    """Say what the trunks of a design saved, from what the records of its runs say that they cost."""
    records = [known[run.folder] for run in planned if run.folder in known]
    if all(run.config.trunk is None for run in planned) or not records:
        return ""
    costs = [(record.measured["spent_flops"], record.flops) for record in records]
    spent, apart = (sum(value) for value in zip(*costs, strict=True))
    return f"; {spent:.3g} FLOPs spent, {spent / apart:.2f} of what separate runs would cost"


def reasons(rows: Sequence[Row], folder: str, width: int) -> list[str]:
    """Say why runs were lost, and what lets them be tried again."""
    lost = [row for row in rows if row.reason]
    lines = [line for row in lost for line in wrapped(f"{row.id} {row.state}: {row.reason}", width)]
    if any(row.state in ("failed", "cancelled") for row in lost):
        lines += wrapped(f"`isoflop study retry {folder}` lets failed and cancelled runs be tried again", width)
    return ["", *lines] if lines else []


def wrapped(text: str, width: int) -> list[str]:
    """Break a sentence at the width, what goes on indented."""
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _plain(folder: Path, rows: Sequence[Row], balance: Balance, times: Mapping[str, Any] | None) -> dict[str, Any]:
    named = [{"status" if name == "state" else name: value for name, value in asdict(row).items()} for row in rows]
    for row in named:
        row["round"] = int(row["place"]) if row["place"].isdigit() else None
        row["target"] = row.pop("place") == "target"
    return {
        "folder": str(folder),
        "runs": named,
        "spent": balance.spent._asdict(),
        "reserved": balance.reserved._asdict(),
        "left": dict(balance.left),
        "times": times,
    }
