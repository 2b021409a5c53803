"""`isoflop diagnose`."""

from __future__ import annotations

import json as json_module

from tyro.conf import Positional

from isoflop.cli.law import waiting
from isoflop.cli.target import Count
from isoflop.counts import number_of
from isoflop.sources.columns import GUESSED, Columns


def diagnose(
    source: Positional[str],
    *,
    law: str = "chinchilla",
    params_count: Count | None = None,
    series: str | None = None,
    columns: Columns = GUESSED,
    json: bool = False,
) -> None:
    """Say what a fit rests on: parameters that the runs determine, runs that carry the answer, where scaling starts.

    Args:
        source: Where the runs are: a study's folder, a CSV or JSON table, or a file of the course.
        law: The law that is fitted.
        params_count: How N is counted; None: as the source says, compute for own runs.
        series: The series of a table that holds several.
        columns: Which columns mean what, where their names do not tell.
        json: Print findings as JSON.
    """
    from isoflop.law.diagnose import diagnose as ask
    from isoflop.sources import read

    records = read(source, series=series, columns=columns)
    records = records if params_count is None else records.under(params_count)
    with waiting(quiet=json) as step:
        found = ask(records, law=law, tell=step)
    if json:
        print(json_module.dumps(found.to_dict()))
        return
    runs = found.fit.records
    print(f"{law}: {number_of(len(runs), 'run')} of {runs.source} · N counted as {runs.convention}")
    print("".join(f"  note: {note}\n" for note in runs.notes))
    for finding in found.findings:
        print(f"  {SIGNS[finding.level]} {finding.check}: {finding.sentence}")
    if any(run.id.startswith("row ") for run in runs.runs):
        print("  rows are counted from 1, without the line of names")
    for run in runs.left_out:
        print(f"  left out: {run}")


SIGNS = {"good": "✓", "note": "·", "warning": "!"}
