"""Slurm: one job array for the runs, one task a run. Whoever watches the queue may die and come back.

The study's folder keeps what was queued: `slurm/NAME.txt` lists the runs of an array, one a line, `NAME.sh` is its
batch script, `NAME.json` its job, `NAME-INDEX.log` what a task printed, `told.jsonl` the tasks whose end was reported.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import filelock

from isoflop.files import read_json, write_bytes, write_json
from isoflop.study.launch import squeue
from isoflop.study.launch.event import CANCEL, Event, cancelled
from isoflop.study.launch.watch import Watch, devices_of, end

TICK = 0.5
"""Seconds between looks at the folders."""
ASK = 4.0
"""Seconds between questions to Slurm's controller, which serves the whole cluster."""
NOTICE = 120
"""Seconds before the time limit at which Slurm warns a task; it may be up to 60 s early."""
DRAIN = 60.0
"""Seconds that a task gets to save its checkpoint before it is cancelled."""
LAG = 20.0
"""Seconds after a task's end until its record must be seen: shared file systems show new files late."""
ARRAY = 1000
"""Tasks of one array; Slurm takes 1000 unless it is told otherwise (slurm.conf(5), MaxArraySize)."""


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """How Slurm is asked for each run, with --executor slurm; words and values are those of sbatch."""

    partition: str | None = None
    """Partition to run in."""
    account: str | None = None
    """Account to charge."""
    qos: str | None = None
    """Quality of service."""
    time: str | None = None
    """Time limit of one sitting, as 2:00:00; a run that takes longer saves a checkpoint and queues again."""
    gres: str | None = None
    """Generic resources, as gpu:1."""
    cpus_per_task: int | None = None
    """CPU cores a run, one thread on each; None: one for each device of the run."""
    mem: str | None = None
    """Memory a run, as 8G."""
    constraint: str | None = None
    """Features that a node must have."""

    def __post_init__(self) -> None:
        """Refuse what would break the batch script."""
        for name, value in asdict(self).items():
            if value is not None and not re.fullmatch(r"[\w.,:;=+*/&|()\[\]@-]+", str(value)):
                raise ValueError(f"{name}={value!r} is nothing that sbatch takes; write it as after `sbatch --{name}=`")
        if self.cpus_per_task is not None and self.cpus_per_task < 1:
            raise ValueError(f"cpus_per_task={self.cpus_per_task} must be at least 1")

    def lines(self) -> list[str]:
        """Return the options as sbatch reads them."""
        given = {name.replace("_", "-"): value for name, value in asdict(self).items() if value is not None}
        return [f"#SBATCH --{name}={value}" for name, value in given.items()]


@dataclass
class _Task:
    """A run in the squeue."""

    name: str
    where: squeue.Task
    watch: Watch
    state: str = "PENDING"
    stopping: str | None = None
    """Why it was asked to end for hanging."""
    asked: float | None = None
    """When it was asked to end."""
    ended: float | None = None
    """When it was first seen to have ended."""

    @property
    def run(self) -> Path:
        """Its folder."""
        return self.watch.run


@dataclass
class _Array:
    """The tasks that are watched, and the folder that keeps what was queued."""

    book: Path
    tell: Callable[[Event], None]
    patience: float
    tasks: list[_Task] = field(default_factory=list)
    asked: float = 0.0
    """When Slurm was last asked."""

    def ask(self) -> None:
        """Learn the states of all tasks, unless Slurm does not answer."""
        self.asked = time.monotonic()
        known = squeue.queued(sorted({task.name for task in self.tasks}))
        if known is None:
            return
        gone = [task.where for task in self.tasks if task.where not in known]
        known |= {where: "UNKNOWN" for where in gone} | squeue.ended(gone)
        for task in self.tasks:
            task.state = known[task.where]

    def look(self) -> None:
        """Tell what has happened, and end what hangs or was called off."""
        if time.monotonic() - self.asked > ASK:
            self.ask()
        for task in list(self.tasks):
            stage = squeue.stage(task.state)
            if stage != "waiting" and not task.watch.started:
                task.watch.started, task.watch.moved = True, time.monotonic()
                self.tell(Event(kind="started", run=task.run))
            elif stage == "waiting":
                task.watch.started, task.watch.moved = False, time.monotonic()
            if (progress := task.watch.look()) and task.watch.started:
                self.tell(progress)
            if stage == "ended":
                self._close(task)
            else:
                self._end(task, stage)

    def _end(self, task: _Task, stage: squeue.Stage) -> None:
        """Cancel a task that hangs or was called off; a running one sees the mark itself and saves first."""
        now = time.monotonic()
        if task.asked is not None:
            if now - task.asked > DRAIN:
                task.asked = now
                squeue.call("scancel", _id(task.where))
        elif cancelled(task.run):
            task.asked = now
            if stage == "waiting":
                squeue.call("scancel", _id(task.where))
        elif stage == "running" and now - task.watch.moved > self.patience:
            task.asked, task.stopping = now, f"no progress for {self.patience:g} seconds"
            squeue.call("scancel", _id(task.where))

    def _close(self, task: _Task) -> None:
        """Tell how a task ended, once its folder has had the time to show it."""
        now = time.monotonic()
        task.ended = task.ended or now
        event = end(task.run)
        if event is None and task.state == "COMPLETED" and now - task.ended < LAG:
            return
        reason = task.stopping or _reason(task, self.book)
        self.tasks.remove(task)
        # noted before it is told: a controller that dies in between tries the run again, rather than count it twice
        with (self.book / "told.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"name": task.name, "index": task.where[1]}) + "\n")
        self.tell(event or Event(kind="failed", run=task.run, reason=reason))


def run(
    folders: Sequence[Path],
    *,
    workers: int | None,
    patience: float,
    on_event: Callable[[Event], None],
    options: SlurmOptions = SlurmOptions(),
) -> None:
    """Queue run folders, or find them queued, and watch until each is done, has failed or was called off.

    Args:
        folders: Run folders, on a disk that the nodes see under the same path.
        workers: Tasks that run at once; None: as many as Slurm likes.
        patience: Seconds without a sign of progress after which a running task is ended as failed.
        on_event: Called with everything that happens.
        options: What Slurm is asked for.

    Raises:
        ValueError: Slurm is not here, or refuses the options.
        KeyboardInterrupt: passed on; the tasks stay queued.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers} must be at least 1; leave it out for as many as Slurm likes")
    given = {folder.resolve(): folder for folder in folders}
    folders = list(given)
    array = _Array(
        folders[0].parent.parent / "slurm", lambda event: on_event(replace(event, run=given[event.run])), patience
    )
    array.book.mkdir(parents=True, exist_ok=True)
    if options.cpus_per_task is None and (devices := max(map(devices_of, folders))) > 1:
        options = replace(options, cpus_per_task=devices)
    with filelock.FileLock(array.book / "lock"):
        array.tasks = _adopt(array.book, folders)
        known = {task.run for task in array.tasks}
        fresh = [folder for folder in folders if folder not in known and not cancelled(folder)]
        array.tasks += _submit(array.book, fresh, workers, options)
    for folder in set(folders) - known - set(fresh):
        array.tell(Event(kind="cancelled", run=folder, reason=cancelled(folder) or ""))
    try:
        array.ask() if array.tasks else None
        while array.tasks:
            array.look()
            time.sleep(TICK)
    except KeyboardInterrupt:
        jobs = ", ".join(sorted({str(task.where[0]) for task in array.tasks}))
        raise KeyboardInterrupt(
            f"Slurm goes on with {len(array.tasks)} runs (job {jobs}); the same command watches them again, "
            "`isoflop study cancel` ends them"
        ) from None


def _adopt(book: Path, folders: Sequence[Path]) -> list[_Task]:
    """Find those of the runs that an earlier command queued, and whose end nobody has told yet."""
    told = {(line["name"], line["index"]) for line in _lines(book / "told.jsonl")}
    wanted = set(folders)
    found: dict[Path, _Task] = {}
    for listing in sorted(book.glob("*.txt"), reverse=True):
        runs = [Path(line) for line in listing.read_text(encoding="utf-8").splitlines()]
        mine = [k for k, run in enumerate(runs) if run in wanted and (listing.stem, k) not in told]
        states = squeue.queued([listing.stem]) or {} if mine else {}
        job = _job(book, listing.stem, states) if mine else None
        if job is None:
            continue
        states |= squeue.ended([(job, k) for k in mine if (job, k) not in states])
        for k in mine:
            if (job, k) in states and runs[k] not in found:
                found[runs[k]] = _Task(listing.stem, (job, k), Watch(runs[k]), states[job, k])
    return list(found.values())


def _job(book: Path, name: str, states: Iterable[squeue.Task]) -> int | None:
    """Job of an array: as noted, or, where its submitter died before it could note it, as the queue has it."""
    path = book / f"{name}.json"
    if path.exists():
        return int(read_json(path)["job"])
    return next((job for job, _ in states), None)


def _submit(book: Path, folders: Sequence[Path], workers: int | None, options: SlurmOptions) -> list[_Task]:
    tasks: list[_Task] = []
    after: list[str] = []
    for first in range(0, len(folders), ARRAY):
        part = folders[first : first + ARRAY]
        name = (
            f"{re.sub(r'[^A-Za-z0-9_.-]', '-', book.parent.name)}-{time.strftime('%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        )
        write_bytes(book / f"{name}.txt", "".join(f"{folder}\n" for folder in part).encode())
        text = script(book / name, len(part), workers, options, python=sys.executable)
        write_bytes(book / f"{name}.sh", text.encode())
        job = squeue.submit(book / f"{name}.sh", *after)
        write_json(book / f"{name}.json", {"job": job})
        after = [f"--dependency=afterany:{job}"]  # so that the limit holds across arrays
        tasks += [_Task(name, (job, k), Watch(folder)) for k, folder in enumerate(part)]
    return tasks


def script(stem: Path, tasks: int, workers: int | None, options: SlurmOptions, *, python: str) -> str:
    """Return the batch script of an array.

    Args:
        stem: Path of its files, without their endings.
        tasks: Runs in its list.
        workers: Tasks that run at once; None: no limit.
        options: What Slurm is asked for.
        python: Interpreter that has isoflop.
    """
    head = [
        f"#SBATCH --job-name={stem.name}",
        f"#SBATCH --array=0-{tasks - 1}{f'%{workers}' if workers else ''}",
        f'#SBATCH --output="{str(stem).replace("%", "%%")}-%a.log"',
        "#SBATCH --open-mode=append",
        "#SBATCH --requeue",
        f"#SBATCH --signal=B:USR1@{NOTICE}",
        *options.lines(),
    ]
    body = _BODY.replace("PYTHON", shlex.quote(python)).replace("LIST", shlex.quote(f"{stem}.txt"))
    return "\n".join(["#!/bin/bash", *head, body.replace("CANCEL", CANCEL)])


_BODY = """
# First of all: Slurm may warn of the time limit a minute early, before anything below has begun.
why=
trap 'why=limit' USR1
trap 'why=term' TERM

# not $SLURM_JOB_ID, which for one task is the job of the whole array
task=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
run=$(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" LIST)
newest() { ls "$run/checkpoints" 2>/dev/null | tail -n 1; }
before=$(newest)
[ -e "$run/CANCEL" ] && exit 0

# The trainer hears no signal until it listens, and is told until it ends.
(trap '' USR1 TERM; exec PYTHON -m isoflop train "$run" --json --threads "${SLURM_CPUS_ON_NODE:-1}") &
trainer=$!
while kill -0 "$trainer" 2>/dev/null; do
  [ -n "$why" ] || [ -e "$run/CANCEL" ] && kill -USR1 "$trainer" 2>/dev/null
  sleep 0.5
done
wait "$trainer"
code=$?

# Stopped from outside, and neither done nor called off: queue again. A task that Slurm cancels runs no longer.
if [ -n "$why" ] && [ ! -e "$run/record.json" ] && [ ! -e "$run/CANCEL" ] &&
  [ "$(squeue --noheader --jobs="$task" --format=%T)" = RUNNING ]; then
  if [ "$why" = limit ] && [ "$(newest)" = "$before" ]; then
    echo "the time limit left no room for a checkpoint; give a longer --time" >&2
    exit 1
  fi
  scontrol requeue "$task" && exit 0
fi
[ "$code" -gt 128 ] && [ "$code" -ne 130 ] && echo "its process was killed by signal $((code - 128))" >&2
exit "$code"
"""


def _reason(task: _Task, book: Path) -> str:
    """Why a task has no record: what Slurm says, or the last words of its log."""
    if task.state == "OUT_OF_MEMORY":
        return f"out of memory{squeue.peak(task.where)}: Slurm ended it; give more --mem"
    words: list[str] = []
    with contextlib.suppress(OSError):
        text = (book / f"{task.name}-{task.where[1]}.log").read_text(encoding="utf-8", errors="replace")
        words = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("slurmstepd")]
    if task.state == "FAILED" and words:
        return words[-1].removeprefix("isoflop: ")
    return f"Slurm says {task.state} of task {_id(task.where)}{f': {words[-1]}' if words else ''}"


def _id(where: squeue.Task) -> str:
    return f"{where[0]}_{where[1]}"


def _lines(path: Path) -> list[dict[str, object]]:
    """Lines of a journal; one that a crash cut short is passed over."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]
