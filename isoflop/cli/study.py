"""`isoflop study run`, and what calls its runs off or lets them be tried again."""

from __future__ import annotations

import contextlib
import io
import json as json_module
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from isoflop.cli.answer import ablation_rows
from isoflop.cli.app import Command, flag_value, main, positional, with_defaults
from isoflop.cli.status import WIDE, saved, waits
from isoflop.cli.steps import Failed, step
from isoflop.config import PARTS
from isoflop.counts import number_of
from isoflop.study.launch import EXECUTORS, ExecutorName
from isoflop.study.launch.event import PATIENCE, Executor
from isoflop.study.launch.ray import RayOptions
from isoflop.study.launch.slurm import SlurmOptions
from isoflop.study.study import VARYING, Study, read_study

if TYPE_CHECKING:
    from isoflop.record import Record
    from isoflop.study.drive import Planned
    from isoflop.study.launch.event import Event


def run(
    file: Positional[str | None] = None,
    *,
    study: Study,
    out: str | None = None,
    target: bool = False,
    ladder: bool = False,
    executor: ExecutorName = "local",
    workers: Annotated[int | None, arg(aliases=["--max-parallel"])] = None,
    patience: float = PATIENCE,
    json: bool = False,
    slurm: SlurmOptions = SlurmOptions(),  # noqa: B008 - frozen, as the next
    ray: RayOptions = RayOptions(),  # noqa: B008
) -> None:
    """Train the runs of a study, here or on a cluster; what is done is never redone, so the same command goes on.

    A study is a TOML file (studies/demo.toml is one), the folder of an earlier one, or the flags below; flags change
    single fields of a file. `isoflop study run --data T --budgets 1e11 2e11 4e11` guesses the sizes.

    Args:
        file: Study file, or the folder of a study.
        study: The question, and what all runs share.
        out: Folder of the study; None: its name.
        target: Train the larger run of [target], not the runs of the design.
        ladder: Train the runs, fit the law, write the forecast of the target down, train it, and score the forecast.
        executor: Who trains: processes of this machine, Slurm's queue, or Ray.
        workers: Runs at once; None: one a GPU or a core here, as many as there is room for on a cluster.
        patience: Seconds without progress after which a run is ended as failed.
        json: Print one JSON object at the end: the runs, those lost, what --ladder or a question added, what failed.
        slurm: What Slurm is asked for.
        ray: What Ray is asked for.
    """
    from isoflop.lm.tracker import check_trackers
    from isoflop.study import drive
    from isoflop.study.ledger import Ledger

    check_trackers(study.train.trackers)
    launch = _executor(executor, slurm=slurm, ray=ray)

    folder = Path(out or (file if file and Path(file).is_dir() else study.name))
    study = with_tokens(study, folder)
    ladder = ladder or (study.design == "ladder" and not target)
    drive.plan(study, folder)  # what cannot be trained is told before the study is written
    if target or ladder:
        drive.plan(study, folder, targets=True)
    before = drive.open_study(folder) if (folder / "study.json").exists() else None
    drive.settle(study, folder)
    if before and (changed := _changed(before, drive.open_study(folder))):
        print(f"isoflop: {folder / 'study.json'} says from now on {', '.join(changed)}", file=sys.stderr)
    planned: list[Planned] = []
    failures: list[Event] = []
    ledger = Ledger(folder, study)
    for wave in [drive.plan(study, folder, targets=True)] if target else drive.waves(study, folder):
        planned += wave
        with display(wave, quiet=json) as show:
            waits: dict[str, Any] = {"workers": workers, "patience": patience, "ledger": ledger}
            failures += drive.drive(wave, executor=launch, **waits, on_event=show)
    after = (ladder, bool(study.question) and not target)
    _end(folder, study, planned, failures, after=after, workers=workers, json=json)


def _end(
    folder: Path,
    study: Study,
    planned: Sequence[Planned],
    failures: Sequence[Event],
    *,
    after: tuple[bool, bool],
    workers: int | None,
    json: bool,
) -> None:
    """Say what came out; where no run is missing, go on to the target and the study's question, as `after` says."""
    told = _report(folder, planned, failures, vary=study.vary, json=json)
    climbs, answers = after
    code: Any = 1 if failures else 0
    try:
        if climbs and not failures:
            _climb(told, folder, workers, json=json)
        if answers and not failures:
            told["answer"] = step(["study", "answer", str(folder)], json=json)
    except Failed as failed:
        told["failed"], code = failed.told, failed.code
    if json:
        print(json_module.dumps(told))
    if code:
        sys.exit(code)


def _changed(before: Study, now: Study) -> list[str]:
    """Say what of a folder's study is another than before; the recipe cannot be (`isoflop.study.drive.settle`)."""
    names = [field.name for field in fields(Study) if field.name not in (*PARTS, "name", "source", "tokenizer")]
    pairs = {name: (getattr(now, name), getattr(before, name)) for name in names}
    pairs |= {name: (getattr(getattr(now, part), name), getattr(getattr(before, part), name)) for part, name in VARYING}
    return [f"{name}={mine!r} (before {theirs!r})" for name, (mine, theirs) in pairs.items() if mine != theirs]


def _report(
    folder: Path, planned: Sequence[Planned], failures: Sequence[Event], *, vary: Sequence[str], json: bool
) -> dict[str, Any]:
    """Say what came out, and which runs failed, are quarantined or were called off; return it as plain values."""
    from isoflop.study import drive

    known = drive.records(planned)
    if not json:
        print(_told(folder, planned, known, vary))
    for failure in failures:
        print(f"isoflop: {failure.run.name} {failure.kind}: {failure.reason}", file=sys.stderr)
    if failures:
        these = "this" if len(failures) == 1 else f"these {len(failures)}"
        print(f"isoflop: `isoflop study retry {folder}` lets {these} be tried again", file=sys.stderr)
    return {
        "folder": str(folder),
        "runs": [{"id": one.id, "status": one.status, "loss": one.loss} for one in known.values()],
        "lost": [{"id": one.run.name, "status": one.kind, "reason": one.reason} for one in failures],
    }


def _climb(told: dict[str, Any], folder: Path, workers: int | None, *, json: bool) -> None:
    """Go from the runs to a forecast that is written down, and from there to its test; add what each step answers."""
    more = [] if workers is None else ["--workers", str(workers)]
    name = str(folder)
    for key, words in {
        "fit": ["fit", name],
        "lock": ["lock", name],
        "target": ["study", "run", name, "--target", *more],
        "score": ["score", name],
    }.items():
        if not json:
            print(f"\n$ isoflop {shlex.join(words)}", flush=True)
        told[key] = step(words, json=json)


def _executor(name: ExecutorName, **options: SlurmOptions | RayOptions) -> Executor:
    """Return an executor with its options bound.

    Raises:
        ValueError: options were given that belong to another executor.
    """
    for owner, given in options.items():
        changed = [field for field, value in asdict(given).items() if value != getattr(type(given)(), field)]
        if changed and owner != name:
            flag = f"--{changed[0].replace('_', '-')}"
            raise ValueError(f"{flag} is an option of the executor {owner}; add --executor {owner}, or leave it out")
    launch: Callable[..., None] = EXECUTORS[name]
    return partial(launch, options=options[name]) if name in options else launch


def _options(args: Sequence[str]) -> str:
    """List the options of the executor that a command names, for whoever misspells one."""
    owner = {"slurm": SlurmOptions, "ray": RayOptions}.get(flag_value(args, "--executor") or "")
    if owner is None:
        return ""
    names = ["workers", "max_parallel", "patience", *(field.name for field in fields(owner))]
    return f"this executor takes {', '.join('--' + name.replace('_', '-') for name in names)}"


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
run.options = _options  # type: ignore[attr-defined]


def cancel(
    folder: Positional[str], runs: Positional[tuple[str, ...]] = (), *, reason: str = "by hand", json: bool = False
) -> None:
    """Call runs of a study off: whoever trains them saves a checkpoint and stops, and nobody starts them.

    Args:
        folder: Folder of a study.
        runs: Names of runs; none: all that are not done.
        reason: Why, for whoever sees it later.
        json: Print the runs that were called off as JSON.
    """
    from isoflop.study.launch.event import cancel as call_off

    chosen = _chosen(folder, runs)
    for run_folder in chosen:
        call_off(run_folder, f"called off {reason}")
    if json:
        print(json_module.dumps({"folder": folder, "cancelled": [path.name for path in chosen]}))
        return
    if not chosen:
        print(f"{folder}: nothing to call off: {_ended(folder, runs)}")
        return
    print(f"{folder}: {number_of(len(chosen), 'run')} called off; `isoflop study retry {folder}` takes that back")


def retry(folder: Positional[str], runs: Positional[tuple[str, ...]] = (), *, json: bool = False) -> None:
    """Forget failures and cancel marks, so that `isoflop study run` tries these runs again from their checkpoints.

    Args:
        folder: Folder of a study.
        runs: Names of runs; none: all that are not done.
        json: Print the runs that may be tried again as JSON.
    """
    from isoflop.study.failures import forgive

    chosen = _chosen(folder, runs)
    freed = [run_folder.name for run_folder in chosen if forgive(run_folder)]
    if json:
        print(json_module.dumps({"folder": folder, "retried": freed}))
        return
    if not freed:
        waiting = f"{number_of(len(chosen), 'run')} not done, none of them failed or called off"
        print(f"{folder}: nothing to retry: {waiting if chosen else _ended(folder, runs)}")
        return
    print(f"{folder}: {number_of(len(freed), 'run')} may be tried again; `isoflop study run {folder}` does")


def _ended(folder: str, names: Sequence[str]) -> str:
    """Say that all runs that were chosen have their record already, or that there are none."""
    from isoflop.record import Record

    found = [Record.read(path) for path in sorted(Path(folder).glob("*/*/record.json"))]
    ended = Counter(record.status for record in found if record.id in (names or {record.id}))
    if not ended:
        return "no run has begun"
    lost = f", {ended['diverged']} of them diverged" if ended["diverged"] else ""
    total = ended.total()
    return f"{f'all {total} runs are' if total > 1 else 'the run is'} {'done' if lost else 'complete'}{lost}"


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
def display(planned: Sequence[Planned], *, quiet: bool) -> Iterator[Callable[[Event], None]]:
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


def _told(folder: Path, planned: Sequence[Planned], known: Mapping[Path, Record], vary: Sequence[str] = ()) -> str:
    """Draw one row a budget and one column a size, width and loss, the lowest of each budget marked; then counts.

    Of an ablation, one row a setting and one column a seed.
    """
    if vary:
        return "\n".join([*ablation_rows(planned, known, vary), f"{folder}: {_counts(planned, known)}"])
    kind = "FLOPs" if any(run.config.train.flops for run in planned) else "tokens"
    marked = " (lowest of the budget in brackets)" if kind == "FLOPs" else ""
    lines = [f"{kind:>9}   d_model: loss, nats per token{marked}"]
    rows: dict[float, list[Planned]] = {}
    for run in planned:
        rows.setdefault(_length(run), []).append(run)
    for budget, group in sorted(rows.items()):
        losses = {run.folder: known[run.folder].loss for run in group if run.folder in known}
        lowest = min((loss for loss in losses.values() if loss is not None and kind == "FLOPs"), default=None)
        cells = [
            f"{run.config.model.d_model:>5}: {_cell(run, known.get(run.folder), lowest)}"
            for run in sorted(group, key=lambda run: run.config.model.d_model)
        ]
        # more sizes than the width holds go on below
        fit = max(1, (shutil.get_terminal_size((WIDE, 0)).columns - 10) // 17)
        for k in range(0, len(cells), fit):
            lines.append(f"{f'{budget:.3g}' if k == 0 else '':>9}  {' '.join(cells[k : k + fit])}")
    return "\n".join([*lines, f"{folder}: {_counts(planned, known)}"])


def _length(run: Planned) -> float:
    return run.config.train.length[1]


def _cell(run: Planned, record: Record | None, lowest: float | None) -> str:
    if record is None or record.loss is None:
        return f" {record.status if record else waits(run)[0]:<7}"
    return f"[{record.loss:.4f}]" if record.loss == lowest else f" {record.loss:.4f} "


def _counts(planned: Sequence[Planned], known: Mapping[Path, Record]) -> str:
    found = [record.status for record in known.values()]
    complete, diverged = found.count("complete"), found.count("diverged")
    lost = f", {diverged} diverged" if diverged else ""
    return f"{complete} of {len(planned)} runs complete{lost}{saved(planned, known)}"
