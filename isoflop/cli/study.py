"""`isoflop study run`, `isoflop study status`."""

from __future__ import annotations

import contextlib
import io
import json as json_module
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.cli.app import Command, main, positional, with_defaults
from isoflop.study.design import Study, read_study
from isoflop.study.launch.event import PATIENCE

if TYPE_CHECKING:
    from isoflop.study.drive import Planned
    from isoflop.study.launch.event import Event


def run(
    file: Positional[str | None] = None,
    *,
    study: Study,
    out: str | None = None,
    target: bool = False,
    ladder: bool = False,
    workers: int | None = None,
    patience: float = PATIENCE,
    json: bool = False,
) -> None:
    """Train the runs of a study, one process a core; what is done is never redone, so the same command goes on.

    A study is a TOML file (studies/demo.toml is one), the folder of an earlier one, or the flags below; flags change
    single fields of a file. `isoflop study run --data T --budgets 1e11 2e11 4e11` guesses the sizes.

    Args:
        file: Study file, or the folder of a study.
        study: The question, and what all runs share.
        out: Folder of the study; None: its name.
        target: Train the larger run of [target], not the runs of the design.
        ladder: Train the runs, fit the law, write the forecast of the target down, train it, and score the forecast.
        workers: Processes; None: one a core.
        patience: Seconds without progress after which a run is ended as failed.
        json: Print the records as JSON lines.
    """
    from isoflop.study import drive

    folder = Path(out or (file if file and Path(file).is_dir() else study.name))
    study = with_tokens(study, folder)
    ladder = ladder or (study.design == "ladder" and not target)
    if target or ladder:
        drive.plan(study, folder, targets=True)  # a study without target is told at once
    drive.settle(study, folder)
    planned: list[Planned] = []
    failures: list[Event] = []
    for wave in [drive.plan(study, folder, targets=True)] if target else drive.waves(study, folder):
        planned += wave
        with _display(wave, quiet=json) as show:
            failures += drive.drive(wave, workers=workers, patience=patience, on_event=show)
    if json:
        for planned_run in planned:
            if record := planned_run.record:
                print(json_module.dumps({"id": record.id, "status": record.status, "loss": record.loss}))
    else:
        print(_table(planned))
        print(f"{folder}: {_counts(planned)}")
    for failure in failures:
        print(f"isoflop: {failure.run.name} {failure.kind}: {failure.reason}", file=sys.stderr)
    if failures:
        print(f"isoflop: `isoflop study retry {folder}` lets these {len(failures)} be tried again", file=sys.stderr)
        sys.exit(1)
    if ladder:
        _climb(folder, workers)


def _climb(folder: Path, workers: int | None) -> None:
    """Go from the runs to a forecast that is written down, and from there to its test."""
    more = [] if workers is None else ["--workers", str(workers)]
    name = str(folder)
    for step in (["fit", name], ["lock", name], ["study", "run", name, "--target", *more], ["score", name]):
        print(f"\n$ isoflop {shlex.join(step)}", flush=True)
        if code := main(step):
            sys.exit(code)


def prepare_study(command: Command) -> Callable[[Sequence[str]], Command]:
    """Let the study file, or the folder of a study, be the defaults that single flags change."""

    def prepare(args: Sequence[str]) -> Command:
        file = positional(args, command)
        if file is None:
            return command
        from isoflop.study.drive import open_study

        return with_defaults(command, study=open_study(Path(file)) if Path(file).is_dir() else read_study(Path(file)))

    return prepare


run.prepare = prepare_study(run)  # type: ignore[attr-defined]


def status(folder: Positional[str], *, json: bool = False) -> None:
    """Show what of a study is done, and what is not.

    Args:
        folder: Folder of a study.
        json: Print one JSON object a run.
    """
    from isoflop.study import drive

    planned = drive.plan(drive.open_study(Path(folder)), Path(folder))
    if not json:
        print(_table(planned))
        print(f"{folder}: {_counts(planned)}")
        return
    for planned_run in planned:
        record = planned_run.record
        done = (
            {"status": record.status, "loss": record.loss} if record else {"status": _waits(planned_run), "loss": None}
        )
        print(json_module.dumps({"id": planned_run.config.id, "flops": planned_run.flops, **done}))


def cancel(folder: Positional[str], runs: Positional[tuple[str, ...]] = (), *, reason: str = "by hand") -> None:
    """Call runs of a study off: whoever trains them saves a checkpoint and stops, and nobody starts them.

    Args:
        folder: Folder of a study.
        runs: Names of runs; none: all that are not done.
        reason: Why, for whoever sees it later.
    """
    from isoflop.study.launch.event import cancel as call_off

    chosen = _chosen(folder, runs)
    for run_folder in chosen:
        call_off(run_folder, f"called off {reason}")
    print(f"{folder}: {len(chosen)} runs called off; `isoflop study retry {folder}` takes that back")


def retry(folder: Positional[str], runs: Positional[tuple[str, ...]] = ()) -> None:
    """Forget failures and cancel marks, so that `isoflop study run` tries these runs again from their checkpoints.

    Args:
        folder: Folder of a study.
        runs: Names of runs; none: all that are not done.
    """
    from isoflop.study.failures import forgive

    freed = sum(forgive(run_folder) for run_folder in _chosen(folder, runs))
    print(f"{folder}: {freed} runs may be tried again; `isoflop study run {folder}` does")


def _chosen(folder: str, names: Sequence[str]) -> list[Path]:
    """Run folders that are not done: those named, or all."""
    made = {path.parent.name: path.parent for path in sorted(Path(folder).glob("*/*/config.json"))}
    if unknown := [name for name in names if name not in made]:
        raise ValueError(f"{folder} has no run {unknown[0]}; `isoflop study status {folder} --json` names them")
    return [path for name, path in made.items() if name in (names or made) and not (path / "record.json").exists()]


def with_tokens(study: Study, folder: Path) -> Study:
    """Make the token folder that the study's source asks for, unless its data names one."""
    from isoflop.study.drive import with_data

    if not study.data.data:
        if not study.source:
            raise ValueError("the study names no text; give --data T (a token folder) or --source (texts)")
        tokens = str(folder / "tokens")
        # a study says one line of its tokens; `isoflop data` alone tells more
        with contextlib.redirect_stdout(io.StringIO()) as said:
            code = main(["data", *study.source, "--tokenizer", study.tokenizer, "--out", tokens])
        if code:
            sys.exit(code)
        print(said.getvalue().partition("\n")[0], file=sys.stderr)
        study = replace(study, data=replace(study.data, data=tokens))
    return with_data(study)


@contextmanager
def _display(planned: Sequence[Planned], *, quiet: bool) -> Iterator[Callable[[Event], None]]:
    """Show the study live: share of its FLOPs done, time left, the runs under way with their loss, the last results."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    flops = {run.folder: run.flops for run in planned}
    configs = {run.folder: run.config for run in planned}
    done = {run.folder for run in planned if run.record is not None}
    share: dict[Path, float] = {}
    columns: tuple[Any, ...] = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    columns = (*columns, TextColumn("{task.fields[said]}"), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=quiet, speed_estimate_period=120) as bars:
        total = bars.add_task("study", total=sum(flops[run] for run in flops if run not in done), said="")
        tasks: dict[Path, Any] = {}

        def show(event: Event) -> None:
            name = f"d_model {configs[event.run].model.d_model}"
            if event.kind == "started":
                if event.run not in tasks:
                    tasks[event.run] = bars.add_task(name, total=1.0, said="")
            elif event.kind == "progress":
                share[event.run] = event.step / event.steps
                bars.update(tasks[event.run], completed=share[event.run], said=f"loss {event.loss:.3f}")
            else:
                share[event.run] = 1.0
                bars.remove_task(tasks.pop(event.run)) if event.run in tasks else None
                done.add(event.run)
                bars.console.print(_result(flops[event.run], name, event), highlight=False)
            bars.update(
                total,
                completed=sum(flops[run] * part for run, part in share.items()),
                said=f"{len(done)}/{len(planned)} runs",
            )

        yield show


def _result(flops: float, name: str, event: Event) -> str:
    from isoflop.record import Record

    path = event.run / "record.json"
    if event.kind in ("failed", "cancelled", "stopped") or not path.exists():
        return f"  {flops:8.2g} FLOPs  {name:<12}  {event.kind} {event.reason}"
    record = Record.read(path)
    said = record.status if record.loss is None else f"loss {record.loss:.4f}  {record.measured['seconds']:6.1f} s"
    return f"  {flops:8.2g} FLOPs  {name:<12}  {said}"


def _table(planned: Sequence[Planned]) -> str:
    """Draw one row a budget and one column a size: width and loss, the lowest of each budget marked."""
    kind = "FLOPs" if any(run.config.train.flops for run in planned) else "tokens"
    marked = " (lowest of the budget in brackets)" if kind == "FLOPs" else ""
    lines = [f"{kind:>9}   d_model: loss, nats per token{marked}"]
    for budget in sorted({_length(run) for run in planned}):
        group = sorted((r for r in planned if _length(r) == budget), key=lambda r: r.config.model.d_model)
        losses = [run.record.loss if run.record else None for run in group]
        lowest = min((loss for loss in losses if loss is not None and kind == "FLOPs"), default=None)
        cells = [
            f"{run.config.model.d_model:>5}: {_cell(run, loss, lowest)}"
            for run, loss in zip(group, losses, strict=True)
        ]
        lines.append(f"{budget:9.3g}  {' '.join(cells)}")
    return "\n".join(lines)


def _length(run: Planned) -> float:
    return run.config.train.length[1]


def _cell(run: Planned, loss: float | None, lowest: float | None) -> str:
    if loss is None:
        return f" {run.record.status if run.record else _waits(run):<7}"
    return f"[{loss:.4f}]" if loss == lowest else f" {loss:.4f} "


def _waits(run: Planned) -> str:
    """Why a run without record has none: nobody has come to it, it was called off, or it failed too often."""
    from isoflop.study.failures import quarantined
    from isoflop.study.launch.event import cancelled

    return "cancelled" if cancelled(run.folder) else "failed" if quarantined(run.folder) else "pending"


def _counts(planned: Sequence[Planned]) -> str:
    records = [run.record for run in planned]
    complete = sum(record is not None and record.status == "complete" for record in records)
    diverged = sum(record is not None and record.status == "diverged" for record in records)
    lost = f", {diverged} diverged" if diverged else ""
    return f"{complete} of {len(planned)} runs complete{lost}{_saved(planned)}"


def _saved(planned: Sequence[Planned]) -> str:
    """Say what trunks saved, from what the records say that they cost."""
    records = [run.record for run in planned if run.record is not None]
    if all(run.config.trunk is None for run in planned) or not records:
        return ""
    spent, apart = (sum(value) for value in zip(*((r.measured["spent_flops"], r.flops) for r in records), strict=True))
    return f"; {spent:.3g} FLOPs spent, {spent / apart:.2f} of what separate runs would cost"
