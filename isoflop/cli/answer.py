"""`isoflop study answer`."""

from __future__ import annotations

import json as json_module
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.config import PARTS
from isoflop.counts import number_of
from isoflop.report.words import Lang
from isoflop.study.study import QuestionKind

if TYPE_CHECKING:
    from isoflop.law.transfer import Verdict
    from isoflop.record import Record, Records
    from isoflop.study.drive import Planned
    from isoflop.study.questions.answer import Answer


def answer(
    folder: Positional[str],
    question: Positional[QuestionKind | None] = None,
    *,
    at: float | None = None,
    lang: Lang = "en",
    json: bool = False,
) -> None:
    """Answer a question from the runs of a study: verdict, measured numbers, what others found, and a figure.

    `isoflop study run studies/heads.toml` trains the runs of one and ends with its answer.

    Args:
        folder: Folder of a study, or its export.
        question: What is asked; None: the question of the study's file.
        at: For batch: give the critical batch of a run of so many tokens.
        lang: Language of the figure.
        json: Print the answer as JSON.
    """
    from isoflop.files import write_bytes
    from isoflop.report.axes import picture
    from isoflop.report.questions import DRAWINGS
    from isoflop.sources import read
    from isoflop.study.questions import QUESTIONS
    from isoflop.study.questions.batch import critical_batch
    from isoflop.study.questions.rate import rate

    name = question or _asked(Path(folder))
    if at is not None and name != "batch":
        raise ValueError(f"at={at:g} asks for a critical batch, but the question is {name}; leave it out")
    made = read(folder)
    if name == "rate":
        found = rate(made, _checks(made, Path(folder), quiet=json))
    else:
        found = QUESTIONS[name].answer(_with_noise_scale(made, Path(folder)))
    given = None if at is None else critical_batch(found, at)
    parent = Path(folder) if Path(folder).is_dir() else Path(folder).parent
    path = parent / "figures" / f"{name}.png"
    write_bytes(path, picture(partial(DRAWINGS[name], found, lang=lang), lang))
    if json:
        critical = None if given is None else given._asdict()
        print(json_module.dumps({**found.to_dict(), "critical_batch": critical, "figure": str(path)}))
        return
    print(_told(QUESTIONS[name].asks, found))
    if given is not None:
        ends = f"{given.low:.0f} to {given.high:.0f}"
        print(f"  at D = {at:g} tokens the critical batch is {given.value:.0f} tokens ({ends})\n")
    print(f"  drawn in {path}")


def ablation_rows(planned: Sequence[Planned], known: Mapping[Path, Record], vary: Sequence[str]) -> list[str]:
    """Draw one row a length, shape and setting, with the loss of each seed."""
    from isoflop.study.ablation import parse

    owners = {f.name: part for part, kind in PARTS.items() for f in fields(kind)}
    names = [name for name in parse(vary) if name not in ("d_model", "num_layers")]
    rows: dict[tuple[Any, ...], list[str]] = {}
    for run in sorted(planned, key=lambda run: run.config.train.seed):
        (kind, size), model = run.config.train.length, run.config.model
        key = (kind, size, model.d_model, model.num_layers)
        setting = tuple(getattr(getattr(run.config, owners[name]), name) for name in names)
        record = known.get(run.folder)
        said = "-" if record is None else record.status if record.loss is None else f"{record.loss:.4f}"
        rows.setdefault((*key, *setting), []).append(f"{said:>8}")
    head = f"{'length':>16} {'d_model':>8} {'layers':>7} " + " ".join(f"{name:>12}" for name in names)
    lines = [f"{head}  loss, nats per token, of each seed"]
    for (kind, size, width, depth, *values), cells in sorted(
        rows.items(), key=lambda row: (*row[0][:4], str(row[0][4:]))
    ):
        length = f"{size:.3g} {'FLOPs' if kind == 'flops' else kind}"
        shown = " ".join(f"{value!s:>12}" for value in values)
        lines.append(f"{length:>16} {width:>8} {depth:>7} {shown}  {' '.join(cells)}")
    return lines


def _asked(folder: Path) -> QuestionKind:
    from isoflop.study.drive import open_study

    asked = open_study(folder).question if (folder / "study.json").exists() else None
    if asked is None:
        raise ValueError(
            f"{folder} does not say what it asks; name the question, such as `isoflop study answer {folder} heads`; "
            f"which size is best at each budget is what `isoflop fit {folder}` tells"
        )
    return asked


def _checks(made: Records, folder: Path, *, quiet: bool) -> list[Verdict]:
    """Return the coordinate check of the parametrizations that these runs compare, made here if it is not there."""
    from isoflop.cli.transfer import progress
    from isoflop.study.gate import gate

    return gate(folder, made.runs, progress=partial(progress, quiet=quiet))


QUARTERS = 4
"""Parts of a run whose gradient noise scale is told."""


def _with_noise_scale(records: Records, folder: Path) -> Records:
    """Let each record know the median gradient noise scale of each quarter of its log, where it was logged."""
    return replace(records, runs=tuple(_noisy(run, folder / "runs" / run.id / "log.jsonl") for run in records.runs))


def _noisy(run: Record, log: Path) -> Record:
    if not log.exists():
        return run
    lines = [json_module.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    values = [line["noise_scale"] for line in lines if line.get("noise_scale") is not None]
    if len(values) < QUARTERS:
        return run
    ends = [len(values) * k // QUARTERS for k in range(QUARTERS + 1)]
    # medians: where the signal's average nears 0, single values are tens of times the rest
    along = [median(values[start:end]) for start, end in pairwise(ends)]
    return replace(run, measured={**run.measured, "noise_scales": along})


def _told(asks: str, found: Answer) -> str:
    lines = [asks, "", *textwrap.wrap(found.verdict, 118, initial_indent="  ", subsequent_indent="  "), ""]
    lines += [f"  {line}" for line in found.measured]
    lines += [
        "",
        f"  {number_of(found.runs, 'run')}" + (f", left out: {'; '.join(found.left_out)}" if found.left_out else ""),
    ]
    lines += ["", "  What others found"]
    for cited in found.literature:
        lines += textwrap.wrap(f"{cited.source}: {cited.says}", 116, initial_indent="    ", subsequent_indent="      ")
    return "\n".join([*lines, ""])
