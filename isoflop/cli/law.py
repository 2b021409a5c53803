"""`isoflop fit`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from isoflop.record import ParamConvention

GroupBy = Literal["group", "params", "tokens", "budget"]

if TYPE_CHECKING:
    from isoflop.law.fit import Fit
    from isoflop.law.frontier import Frontier
    from isoflop.record import Records


def fit(
    source: Positional[str],
    *,
    params: Annotated[ParamConvention | None, arg(name="params-count", aliases=("--params",))] = None,
    series: str | None = None,
    law: str = "chinchilla",
    objective: str = "huber",
    group: GroupBy = "group",
    bootstrap: int = 1000,
    seed: int = 0,
    out: str | None = None,
    json: bool = False,
) -> None:
    """Fit a scaling law to runs, with 90 % intervals, and the exponents of N* and D* by approaches 2 and 3.

    SOURCE is a study's folder, a CSV or JSON table with the loss and two of params, tokens, flops, or a file of the
    course (isoflops_curves.json, scaling_records_*.npy).

    Args:
        source: Where the runs are.
        params: How N is counted; None: as the source says, compute for own runs.
        series: The series of a table that holds several.
        law: Name of the law; the default is L = E + A/N^α + B/D^β.
        objective: What is minimised: huber (of ln L at 1e-3, the literature's), robust, absolute or squared.
        group: Runs alike in this are drawn together: group is what the source says, params makes a run of each size.
        bootstrap: Times that the runs are drawn again for the intervals; 0: no intervals.
        seed: Seed of the draws.
        out: File for the fit; None: fit.json in the study's folder, or NAME.fit.json here.
        json: Print parameters and exponents as JSON.
    """
    from isoflop.files import write_json
    from isoflop.law.fit import fit as fit_law
    from isoflop.law.frontier import approach3
    from isoflop.law.laws import LAWS
    from isoflop.law.uncertainty import bootstrap as resample
    from isoflop.law.uncertainty import regroup
    from isoflop.sources import read

    if bootstrap < 0:
        raise ValueError(f"--bootstrap {bootstrap} must be 0 (no intervals) or more, such as 1000")
    records = read(source, series=series)
    records = regroup(records if params is None else records.under(params), group)
    fitted = fit_law(records, law=law, objective=objective)
    if bootstrap:
        fitted = resample(fitted, replicates=bootstrap, seed=seed)
    frontiers: dict[int, Frontier | None] = {}
    refused = f"{law} does not tell N from D, so it has no optimum"
    if LAWS[law].terms is not None:
        by_parabolas, refused = _approach2(records, bootstrap, seed)
        frontiers = {3: approach3(fitted), 2: by_parabolas}
    result = _as_dict(fitted, frontiers)
    path = (
        Path(out)
        if out
        else Path(source) / "fit.json"
        if Path(source).is_dir()
        else Path(f"{Path(source).stem}.fit.json")
    )
    write_json(path, fitted.to_dict())
    print(json_module.dumps(result) if json else _report(result, refused, path))


def _approach2(records: Records, replicates: int, seed: int) -> tuple[Frontier | None, str]:
    from isoflop.law.frontier import approach2

    try:
        return approach2(records, replicates=replicates, seed=seed), ""
    except ValueError as error:
        return None, str(error)


def _as_dict(fitted: Fit, frontiers: dict[int, Frontier | None]) -> dict[str, Any]:
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
        "exponents": {
            f"approach {number}": {letter: _interval(getattr(frontier, letter)) for letter in ("a", "b")}
            for number, frontier in frontiers.items()
            if frontier is not None
        },
    }


def _interval(interval: Any) -> dict[str, float | None]:
    return {name: None if value is None else float(value) for name, value in interval._asdict().items()}


def _report(result: dict[str, Any], refused: str, path: Path) -> str:
    from isoflop.law.laws import LAWS

    told = (LAWS[result["law"]].formula.__doc__ or "").split("\n")[0].rstrip(".")
    formula = f"{result['law']}: {told}"
    lines = [
        f"{formula} · {result['runs']} runs of {result['source']} · N counted as {result['params_convention']}",
        "",
        f"  {'':<6} {'value':>10} {'90 % interval':>24}   status",
    ]
    for name, p in result["parameters"].items():
        lines.append(f"  {name:<6} {p['value']:>10.4g} {_range(p):>24}   {p['status']}")
    for approach, exponents in result["exponents"].items():
        a, b = exponents["a"], exponents["b"]
        lines.append(f"  {approach}: N* ∝ C^{a['value']:.3f} ({_range(a)}), D* ∝ C^{b['value']:.3f} ({_range(b)})")
    if refused:
        lines.append(f"  approach 2 is refused: {refused}")
    lines += [f"  left out: {run}" for run in result["left_out"]]
    return "\n".join([*lines, f"  written to {path}"])


def _range(p: dict[str, Any]) -> str:
    return "no interval" if p["low"] is None else f"{p['low']:.4g} to {p['high']:.4g}"
