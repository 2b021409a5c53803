"""`isoflop fit`."""

from __future__ import annotations

import json as json_module
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from isoflop.cli.target import Count
from isoflop.counts import number_of
from isoflop.sources.columns import GUESSED, Columns

GroupBy = Literal["group", "params", "tokens", "budget"]

if TYPE_CHECKING:
    from isoflop.law.approaches import Comparison
    from isoflop.law.fit import Fit
    from isoflop.record import Records


def fit(
    source: Positional[str],
    *,
    params_count: Count | None = None,
    series: str | None = None,
    law: str = "chinchilla",
    objective: str = "huber",
    group: GroupBy = "group",
    bootstrap: int = 1000,
    target: float | None = None,
    seed: int = 0,
    out: str | None = None,
    columns: Columns = GUESSED,
    json: bool = False,
) -> None:
    """Fit a scaling law to runs, with 90 % intervals, and set four approaches to the optimal N and D side by side.

    SOURCE is a study's folder, a CSV, TSV, JSON or Parquet table with the loss and two of params, tokens, flops, or a
    file of the course (isoflops_curves.json, scaling_records_*.npy).

    Args:
        source: Where the runs are.
        params_count: How N is counted; None: as the source says, compute for own runs.
        series: The series of a table that holds several.
        law: Name of the law; the default is L = E + A/N^α + B/D^β.
        objective: What is minimised: huber (of ln L at 1e-3, the literature's), robust, absolute or squared.
        group: Runs alike in this are drawn together: group is what the source says, params makes a run of each size.
        bootstrap: Times that the runs are drawn again for the intervals; 0: no intervals.
        target: FLOPs of the budget at which the approaches are compared; None: ten times the largest run.
        seed: Seed of the draws.
        out: File for the fit; None: fit.json in the study's folder, or NAME.fit.json here.
        columns: Which columns mean what, where their names do not tell.
        json: Print parameters and approaches as JSON.
    """
    from isoflop.files import write_json
    from isoflop.law.approaches import DRAWS, approaches
    from isoflop.law.fit import fit as fit_law
    from isoflop.law.uncertainty import bootstrap as resample
    from isoflop.law.uncertainty import regroup
    from isoflop.sources import read
    from isoflop.sources.curves import read_curves

    _checked(bootstrap, target)
    records = read(source, series=series, columns=columns)
    records = regroup(records if params_count is None else records.under(params_count), group)
    fitted = fit_law(records, law=law, objective=objective)
    fitted = replace(fitted, records=_noted(records, law))
    with waiting(quiet=json) as step:
        if bootstrap:
            step(f"{number_of(bootstrap, 'draw')} of {number_of(len(records), 'run')}")
            fitted = resample(fitted, replicates=bootstrap, seed=seed)
        step("four approaches")
        budget = BEYOND * float(records.C.max()) if target is None else target
        curves, draws = read_curves(source, records), min(DRAWS, bootstrap)
        found = approaches(records, fitted, budget, curves=curves, draws=draws, seed=seed)
    result = _as_dict(fitted, found)
    path = Path(out) if out else _beside(Path(source))
    write_json(path, fitted.to_dict())
    print(json_module.dumps(result) if json else _report(result, path, chosen=target is None))


BEYOND = 10.0
"""The approaches are compared at this factor beyond the largest run, where they begin to part."""


@contextmanager
def waiting(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is computed and for how long; how long it will take depends on the runs."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=None)
        yield lambda said: bar.update(task, description=said)


def _checked(bootstrap: int, target: float | None) -> None:
    from isoflop.law.uncertainty import check_draws
    from isoflop.record import of_a_run

    check_draws("--bootstrap", bootstrap)
    if target is not None:
        of_a_run(f"--target {target:g} FLOPs", target)


def _noted(records: Records, law: str) -> Records:
    """Say which of the runs other commands leave out."""
    from isoflop.law.lawful import lawful

    told = (f"predict, optimal, plan and next: {note}; fit takes all" for note in lawful(records, law=law)[1])
    return replace(records, notes=(*records.notes, *told))


def _exact(fitted: Fit) -> list[str]:
    """Say so where every draw of the runs gave the same numbers."""
    ends = [(p.low, p.high) for p in fitted.parameters.values()]
    if any(low is None or high is None or f"{low:.4g}" != f"{high:.4g}" for low, high in ends):
        return []
    return [
        "the runs lie on the law exactly, as computed ones do, so the intervals have no width; "
        "runs that are trained scatter"
    ]


def _beside(source: Path) -> Path:
    return source / "fit.json" if source.is_dir() else Path(f"{source.stem}.fit.json")


def _as_dict(fitted: Fit, found: Comparison) -> dict[str, Any]:
    records = fitted.records
    return {
        "law": fitted.law,
        "parameters": {
            name: {"value": p.value, "low": p.low, "high": p.high, "status": p.status, "error": p.error}
            for name, p in fitted.parameters.items()
        },
        "objective": fitted.objective,
        "by": fitted.by,
        "runs": len(records),
        "left_out": list(records.left_out),
        "params_convention": records.convention,
        "source": records.source,
        "notes": [*records.notes, *_exact(fitted)],
        "approaches": [answer.to_dict() for answer in found.answers],
        "model_uncertainty": found.uncertainty(),
    }


def _report(result: dict[str, Any], path: Path, *, chosen: bool) -> str:
    from isoflop.law.laws import LAWS

    told = (LAWS[result["law"]].formula.__doc__ or "").split("\n")[0].rstrip(".")
    formula = f"{result['law']}: {told}"
    lines = [
        f"{formula} · {number_of(result['runs'], 'run')} of {result['source']} · "
        f"N counted as {result['params_convention']}",
        *(f"  note: {note}" for note in result["notes"]),
        "",
        f"  {'':<6} {'value':>10} {'90 % interval':>24}   status",
    ]
    for name, p in result["parameters"].items():
        lines.append(f"  {name:<6} {p['value']:>10.4g} {_range(p):>24}   {p['status']}")
    between = result["model_uncertainty"]
    why = ", ten times the largest run; --target asks another" if chosen else ""
    lines += [
        "",
        "  " + LEGEND,
        f"  N* ∝ C^a, and N* at C = {between['flops']:.4g} FLOPs{why}; 90 % intervals in brackets",
    ]
    lines += [_approach(answer) for answer in result["approaches"]]
    lines += [f"  model uncertainty: {between['sentence']}", ""]
    lines += [f"  left out: {run}" for run in result["left_out"]]
    return "\n".join([*lines, f"  written to {path}"])


LEGEND = (
    "approaches of arXiv:2203.15556: 1 the best size along each C, 2 a parabola in ln N at each budget, 3 the law above"
)


def _approach(answer: dict[str, Any]) -> str:
    name = f"  {answer['approach']:<19} "
    if answer["a"] is None:
        return f"{name} refused: {answer['note']}"
    a, N = (_short(answer[key], form) for key, form in (("a", ".3f"), ("params", ".3g")))
    return f"{name} a = {a:<22} N* = {N:<30} {answer['note']}"


def _short(p: dict[str, Any], form: str) -> str:
    return f"{p['value']:{form}}" + ("" if p["low"] is None else f" ({p['low']:{form}} to {p['high']:{form}})")


def _range(p: dict[str, Any]) -> str:
    return "no interval" if p["low"] is None else f"{p['low']:.4g} to {p['high']:.4g}"
