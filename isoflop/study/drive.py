"""What of a study is done, pending or failed; drives an executor until it is done. What is done is never redone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from isoflop.config import RunConfig, read_run, write_run
from isoflop.data.tokens import META, open_configured, read_meta
from isoflop.files import read_json, write_json
from isoflop.flops import compute, train_steps
from isoflop.places import found, lasting
from isoflop.record import Record
from isoflop.sources.folder import read_folder
from isoflop.sources.index import read_records
from isoflop.study import design
from isoflop.study.failures import note, quarantined
from isoflop.study.launch import EXECUTORS
from isoflop.study.launch.event import PATIENCE, Event, Executor, cancel
from isoflop.study.ledger import Ledger
from isoflop.study.recentre import next_centre
from isoflop.study.rounds import Round, read_rounds
from isoflop.study.study import Study
from isoflop.study.timeline import note_event

CENTRES = "centres.json"
"""N around which each budget's sizes lie, in the folder of a study that recentres."""


@dataclass(frozen=True)
class Planned:
    """A run of a study, and what it will cost."""

    folder: Path
    config: RunConfig
    flops: float

    @property
    def record(self) -> Record | None:
        """Its record, once it is done."""
        path = self.folder / "record.json"
        return Record.read(path) if path.exists() else None


def records(planned: Sequence[Planned]) -> dict[Path, Record]:
    """Read the records of those that are done, by run folder; thousands at once."""
    found = {parent: read_records(parent) for parent in {run.folder.parent for run in planned}}
    return {
        run.folder: found[run.folder.parent][run.folder.name]
        for run in planned
        if run.folder.name in found[run.folder.parent]
    }


def open_study(folder: Path) -> Study:
    """Read the study of a folder.

    Raises:
        ValueError: the folder holds no study.
    """
    path = folder / "study.json"
    if not path.exists():
        if folder.is_file():
            raise ValueError(f"{folder} is a file, no study; name the folder that `isoflop study run` made")
        raise ValueError(f"{folder} holds no study (no study.json); `isoflop study run FILE --out {folder}` makes one")
    return Study.from_dict(found(read_json(path), folder))


def settle(study: Study, folder: Path) -> Study:
    """Write the study into its folder, or add its sizes and budgets to what the folder already holds.

    Its paths are kept from the root, so that the folder may be used from elsewhere, and copied with its tokens.

    Raises:
        ValueError: the folder's runs were made by another recipe, so that one law could not hold for both.
    """
    lasts = lasting(study.to_dict(), folder)
    if (folder / "study.json").exists():
        before, now = open_study(folder).recipe(), Study.from_dict(lasts).recipe()
        different = [f"{name}={now[name]!r} (there {before[name]!r})" for name in now if now[name] != before.get(name)]
        if different:
            raise ValueError(f"{folder} holds runs of another recipe: {', '.join(different)}; choose another --out")
        _keeps_rounds(study, folder)
    write_json(folder / "study.json", lasts)
    return study


def _keeps_rounds(study: Study, folder: Path) -> None:
    """Make sure that the runs of a folder's rounds stay what they are, whatever else of the study changes."""
    before = open_study(folder)
    there = {"aspect": before.aspect, "rate": before.rate, "num_layers": before.model.num_layers}
    now = {"aspect": study.aspect, "rate": study.rate, "num_layers": study.model.num_layers}
    moved = [f"{name}={now[name]!r} (there {there[name]!r})" for name in now if now[name] != there[name]]
    if moved and read_rounds(folder):
        raise ValueError(
            f"{folder} holds rounds of `isoflop next --run`, whose runs would be others by {', '.join(moved)}; leave "
            "that as it is, or choose another --out"
        )


def plan(study: Study, folder: Path, *, targets: bool = False) -> list[Planned]:
    """List a study's runs, those of its rounds included, longest first, or its target; makes no folders.

    Args:
        study: The study, whose data names its tokens.
        folder: The study's folder.
        targets: The larger run that is forecast, instead of the runs that the law is fitted to.

    Raises:
        ValueError: the tokens do not suit, a budget cannot be met, or there is no target.
    """
    tokens = open_configured(study.data, vocab_size=study.model.vocab_size)
    facts: dict[str, Any] = {"data_sha256": tokens.fingerprint, "train_tokens": tokens.train_tokens}
    if targets:
        configs = design.target(study, **facts)
    else:
        configs = design.runs(study, **facts, centres=_centres(folder))
        for made in read_rounds(folder):
            configs += design.runs(made.study(study), **facts)
    out = folder / ("target" if targets else "runs")
    return sorted(_planned(configs, out, tokens.train_tokens), key=lambda run: -run.flops)


def plan_round(study: Study, folder: Path, made: Round) -> list[Planned]:
    """List the runs of a round in the order of their proposal."""
    tokens = open_configured(study.data, vocab_size=study.model.vocab_size)
    facts: dict[str, Any] = {"data_sha256": tokens.fingerprint, "train_tokens": tokens.train_tokens}
    return _planned(design.runs(made.study(study), **facts), folder / "runs", tokens.train_tokens)


def train_tokens(study: Study) -> int:
    """Count the training tokens of a study's text."""
    return open_configured(study.data, vocab_size=study.model.vocab_size).train_tokens


def _planned(configs: Sequence[RunConfig], out: Path, train_tokens: int) -> list[Planned]:
    return [Planned(out / config.id, config, _flops(config, train_tokens)) for config in configs]


def waves(study: Study, folder: Path) -> Iterator[list[Planned]]:
    """Yield the runs that may be trained together: trunks before their branches, budgets in turn where each recentres.

    A centre is written down before its budget is trained, and then stays: the runs of a study do not move.
    """
    if not study.recentre:
        planned = plan(study, folder)
        for branches in (False, True):
            if wave := [run for run in planned if (run.config.trunk is not None) is branches]:
                yield wave
        return
    for budget in study.budgets:
        centres = _centres(folder)
        if budget not in centres and budget != study.budgets[0]:
            known = next_centre(read_folder(folder), budget)
            if known is not None:
                write_json(folder / CENTRES, {repr(C): N for C, N in {**centres, budget: known}.items()})
        yield [run for run in plan(study, folder) if run.config.train.flops == budget]


def _centres(folder: Path) -> dict[float, float]:
    path = folder / CENTRES
    return {float(C): N for C, N in read_json(path).items()} if path.exists() else {}


def drive(
    planned: Sequence[Planned],
    *,
    executor: str | Executor = "local",
    workers: int | None = None,
    patience: float = PATIENCE,
    ledger: Ledger | None = None,
    on_event: Callable[[Event], None],
) -> list[Event]:
    """Train what is not done yet; return what did not come to its end, one event a run with the reason.

    A failed run stops no other. It is tried again from its last checkpoint, until it is quarantined. What the caps of
    the ledger leave no room for is not started, and what is running when one is used up saves and stops. The executor
    is a name of EXECUTORS, or one of them with its options bound.
    """
    todo = [run for run in planned if run.record is None]
    lost: dict[Path, Event] = {}

    def watch(event: Event) -> None:
        if event.kind == "failed":
            note(event.run, event.reason)
        if event.kind in ("failed", "cancelled"):
            lost[event.run] = event
        if ledger:
            _settle(ledger, event, todo)
        note_event(event)
        on_event(event)

    for run in todo:
        if not _damaged(run.folder):
            write_run(run.config, run.folder.parent)
        if reason := quarantined(run.folder):
            lost[run.folder] = Event(kind="failed", run=run.folder, reason=f"not tried: it {reason}")
    batch = [run.folder for run in todo if run.folder not in lost]
    launch = EXECUTORS[executor] if isinstance(executor, str) else executor
    while batch:
        refused = _refused(ledger, [run for run in todo if run.folder in batch])
        lost |= refused
        batch = [run for run in batch if run not in refused]
        launch(batch, workers=workers, patience=patience, on_event=watch)
        batch = [run for run, event in lost.items() if event.kind == "failed" and not quarantined(run)]
        for run_folder in batch:
            del lost[run_folder]
    return list(lost.values())


def _damaged(run: Path) -> bool:
    """Whether a run's configuration cannot be read; its trainer says why, and the other runs go on."""
    try:
        return (run / "config.json").exists() and not read_run(run)
    except ValueError:
        return True


def _settle(ledger: Ledger, event: Event, runs: Sequence[Planned]) -> None:
    """Free what an ended run had reserved; call the rest off when a cap is used up."""
    if event.kind in ("done", "diverged", "failed", "cancelled"):
        ledger.release([event.run])
    elif event.kind == "progress" and (reason := ledger.exhausted()):
        for run in runs:
            if run.record is None:
                cancel(run.folder, f"{reason}, after `isoflop study retry FOLDER`")


def _refused(ledger: Ledger | None, runs: Sequence[Planned]) -> dict[Path, Event]:
    """Reserve what runs need; return those for which the caps leave no room."""
    refused = ledger.reserve({run.folder: run.flops for run in runs}) if ledger else {}
    return {run: Event(kind="cancelled", run=run, reason=f"not started: {why}") for run, why in refused.items()}


def with_data(study: Study) -> Study:
    """Return the study with the vocabulary that its token folder has."""
    if not (Path(study.data.data) / META).exists():
        return study
    return replace(study, model=replace(study.model, vocab_size=read_meta(Path(study.data.data))["vocab_size"]))


def _flops(config: RunConfig, train_tokens: int) -> float:
    """What a run will cost: of a branch, what comes after its trunk."""
    steps = train_steps(config.model, config.train, train_tokens=train_tokens) - config.first_step
    return float(steps * config.train.batch_size * config.model.context_length * compute(config.model))
