"""`isoflop predict`, `optimal`."""

from __future__ import annotations

import json as json_module
import math
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.cli.hardware import HARDWARE, Hardware
from isoflop.cli.target import WANTED, Target, Wanted, counting, read_source, records_of, with_shape
from isoflop.sources.columns import GUESSED, Columns

if TYPE_CHECKING:
    from isoflop.law.frontier import Frontier
    from isoflop.law.published import Published
    from isoflop.law.uncertainty import Interval


def predict(
    source: Positional[str | None] = None,
    *,
    published: str | None = None,
    run: Wanted = WANTED,
    series: str | None = None,
    columns: Columns = GUESSED,
    json: bool = False,
) -> None:
    """Predict the loss of a run that was not trained: `isoflop predict demo --d-model 96 --flops 1e13`.

    SOURCE is a study, a table of runs, or a fit.json: the answer averages five fits to its runs, with a 90 % interval
    that widens beyond them. --published asks the law of a paper instead, which has no interval. The run is two of
    model, tokens and flops; the model is --params or a shape: --preset, --model-config, or single fields, which in a
    study change the study's own model.

    Args:
        source: Where the runs are.
        published: Constants of a paper instead of a source: hoffmann2022, besiroglu2024, kaplan2020, ….
        run: The run that is asked about.
        series: The series of a table that holds several.
        columns: Which columns mean what, where their names do not tell.
        json: Print JSON.
    """
    if published is not None:
        answer = _by_published(published, _published(published, source), run)
    elif source is None:
        raise ValueError("say where the runs are, `isoflop predict SOURCE`, or ask a published law with --published")
    else:
        answer = _by_runs(source, series, columns, run)
    print(json_module.dumps(answer) if json else _told(answer))


predict.prepare = with_shape(predict)  # type: ignore[attr-defined]


def _published(law: str, source: str | None) -> Published:
    from isoflop.law.published import PUBLISHED

    if source is not None:
        raise ValueError(f"{source} and --published {law} are two answers; leave one out")
    if law not in PUBLISHED:
        raise ValueError(f"{law!r} is no published law; choose one of {', '.join(PUBLISHED)}")
    return PUBLISHED[law]


def _by_published(name: str, law: Published, run: Wanted) -> dict[str, Any]:
    from isoflop.law.laws import LAWS

    if law.convention not in ("given", run.params_count or law.convention):
        raise ValueError(
            f"--published {name} counts N as {law.convention}, not as --params-count {run.params_count} says"
        )
    target = run.under(law.convention)
    loss = LAWS[law.law].loss(law.parameters, N=target.N, D=target.D)
    basis = f"constants of {law.source}; they come without their runs, so there is no interval"
    return _answer(name, target, law.convention) | {"loss": float(loss), "low": None, "high": None, "basis": basis}


def _by_runs(source: str, series: str | None, columns: Columns, run: Wanted) -> dict[str, Any]:
    from isoflop.law.forecast import forecast
    from isoflop.law.lawful import lawful

    records, notes = lawful(run.counted(records_of(source, series, columns)))
    target = run.under(records.convention)
    made = forecast(records, N=target.N, D=target.D, C=target.C)
    interval = {"loss": float(made.mean[0]), "low": float(made.low[0]), "high": float(made.high[0])}
    convention = run.params_count if records.convention == "given" and run.params_count else records.convention
    depth = _below(float(made.depth[0]))
    told = {"basis": made.basis(), "reach": float(made.reach[0]), "notes": [*depth, *notes]}
    return _answer(source, target, convention) | {"runs": records.source} | interval | told


def _answer(source: str, run: Target, convention: str) -> dict[str, Any]:
    return {
        "source": source,
        "runs": source,
        "params": run.N,
        "params_convention": convention,
        "tokens": run.D,
        "flops": run.C,
    }


def _told(answer: dict[str, Any]) -> str:
    reach = answer.get("reach")
    beyond = "" if reach is None else f", {_times(reach)}"
    loss = answer["loss"]
    return "\n".join(
        [
            f"{answer['runs']}: N = {answer['params']:.4g} ({counting(answer['params_convention'])}), "
            f"D = {answer['tokens']:.4g} tokens, C = {answer['flops']:.4g} FLOPs{beyond}",
            f"  loss {loss:.4g} nats per token{_range(answer)}{_perplexity(loss)}",
            f"  {answer['basis']}",
            *(f"  note: {note}" for note in [*_warned(reach), *answer.get("notes", [])]),
        ]
    )


FAR = 100.0
"""Reach beyond which no back-test on public series went (they reach C_max/30 to C_max)."""


def _warned(reach: float | None) -> list[str]:
    if reach is None or reach <= FAR:
        return []
    return [f"forecasts were never tested beyond {FAR:.0f} times the largest run; train larger ones first"]


def _below(depth: float) -> list[str]:
    if depth >= BELOW:
        return []
    return [f"this is {1 / depth:.3g} times below the smallest run, where laws bend and no interval was ever tested"]


BELOW = 0.8
"""C over the smallest run's from which an answer still counts as among the runs: budgets differ by rounding."""


def _perplexity(loss: float) -> str:
    """e^loss; no law means it where it exceeds every vocabulary."""
    return f", perplexity {math.exp(loss):.4g}" if loss < 20 else ""


def _times(reach: float) -> str:
    return f"{reach:.3g} times the largest run" if reach > 1 else f"{reach:.2g} of the largest run"


def _range(answer: dict[str, Any]) -> str:
    return "" if answer["low"] is None else f", 90 % interval {answer['low']:.4g} to {answer['high']:.4g}"


def optimal(
    source: Positional[str | None] = None,
    *,
    flops: tuple[float, ...] = (),
    hardware: Hardware = HARDWARE,
    published: str | None = None,
    series: str | None = None,
    columns: Columns = GUESSED,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Find the size and the tokens that give the lowest loss for a budget: `isoflop optimal demo --flops 1e13 1e14`.

    SOURCE is a study, a table of runs, or a fit.json; --published asks the law of a paper instead. The budget is
    --flops, one or several, or --device with --gpu-hours or --hours.

    Args:
        source: Where the runs are.
        flops: C, training FLOPs of each budget.
        hardware: The budget as time of devices.
        published: Constants of a paper instead of a source: hoffmann2022, besiroglu2024, kaplan2020, ….
        series: The series of a table that holds several.
        columns: Which columns mean what, where their names do not tell.
        seed: Seed of the draws for the intervals.
        json: Print JSON.
    """
    budgets = _budgets(flops, hardware)
    if published is not None:
        answer = _optima_published(published, source, budgets)
    elif source is None:
        raise ValueError("say where the runs are, `isoflop optimal SOURCE`, or ask a published law with --published")
    else:
        answer = _optima(source, series, columns, budgets, seed)
    for row in answer["budgets"]:
        row |= hardware.bill(row["flops"])
    print(json_module.dumps(answer) if json else _told_optima(answer, hardware))


def _budgets(flops: tuple[float, ...], hardware: Hardware) -> tuple[float, ...]:
    if len(flops) > 1 and hardware.gpu_hours is None and hardware.hours is None:
        return tuple(hardware.flops(value) for value in flops)
    return (hardware.flops(flops[0] if flops else None),)


def _optima_published(name: str, source: str | None, budgets: tuple[float, ...]) -> dict[str, Any]:
    from isoflop.law.laws import LAWS

    known = _published(name, source)
    law = LAWS[known.law]
    rows = []
    for C in budgets:
        N, D = law.optimum(known.parameters, C)
        plain = {"params": N, "tokens": D, "tokens_per_param": D / N}
        approach = {key: {"value": float(value), "low": None, "high": None} for key, value in plain.items()}
        loss = {"value": float(law.loss(known.parameters, N=N, D=D)), "low": None, "high": None}
        rows.append({"flops": C, "approaches": {"the law": approach}, "loss": loss})
    note = f"constants of {known.source}; they come without their runs, so there is no interval"
    return {"source": name, "runs": name, "params_convention": known.convention, "budgets": rows, "notes": [note]}


def _optima(source: str, series: str | None, columns: Columns, budgets: tuple[float, ...], seed: int) -> dict[str, Any]:
    from isoflop.law.basis import fitted as basis
    from isoflop.law.fit import Fit, fit
    from isoflop.law.forecast import forecast
    from isoflop.law.frontier import approach2, approach3
    from isoflop.law.lawful import lawful, sifted
    from isoflop.law.uncertainty import bootstrap

    read, notes = read_source(source, series, columns), list[str]()
    if isinstance(read, Fit):
        fitted, said = sifted(read, seed=seed)
        notes = list(said)
    else:
        kept, said = lawful(read)
        fitted, notes = bootstrap(fit(kept), seed=seed), list(said)
    frontiers = [approach3(fitted)]
    try:
        frontiers.append(approach2(fitted.records, seed=seed))
    except ValueError as reason:
        notes.append(f"approach 2 is refused: {reason}")
    notes += [frontier.note for frontier in frontiers if frontier.note]
    rows, worths = [], basis(fitted).worths()
    for C in budgets:
        best = frontiers[0]
        made = forecast(worths, N=best.params(C).value, D=best.tokens(C).value, C=C)
        loss = {"value": float(made.mean[0]), "low": float(made.low[0]), "high": float(made.high[0])}
        found = {f"approach {frontier.approach}": _at(frontier, C) for frontier in frontiers}
        rows.append({"flops": C, "reach": float(made.reach[0]), "approaches": found, "loss": loss})
        notes += [f"C = {C:.4g}: {note}" for note in _below(float(made.depth[0]))]
    runs = fitted.records
    told = {"source": source, "runs": runs.source, "params_convention": runs.convention}
    return told | {"budgets": rows, "notes": notes}


def _at(frontier: Frontier, C: float) -> dict[str, Any]:
    named = {
        "params": frontier.params(C),
        "tokens": frontier.tokens(C),
        "tokens_per_param": frontier.tokens_per_param(C),
    }
    return {name: _plain(interval) for name, interval in named.items()}


def _plain(interval: Interval) -> dict[str, float | None]:
    return {name: None if value is None else float(value) for name, value in interval._asdict().items()}


def _told_optima(answer: dict[str, Any], hardware: Hardware) -> str:
    brackets = "; 90 % intervals in brackets" if answer["budgets"][0]["loss"]["low"] is not None else ""
    lines = [f"{answer['runs']}, N {counting(answer['params_convention'])}{brackets}"]
    for row in answer["budgets"]:
        reach = row.get("reach")
        lines.append(f"C = {row['flops']:.4g} FLOPs{'' if reach is None else f', {_times(reach)}'}")
        for name, found in row["approaches"].items():
            told = (f"{label} = {_short(found[key])}" for key, label in _LABELS.items())
            lines.append(f"  {name:<11} {'   '.join(told)}")
        lines.append(f"  {'loss there':<11} {_short(row['loss'])} nats per token")
        lines += [f"  {'time':<11} {line}" for line in hardware.told(row["flops"])]
    farthest = max((row.get("reach") or 0.0 for row in answer["budgets"]), default=0.0)
    return "\n".join([*lines, *(f"note: {note}" for note in [*_warned(farthest), *answer["notes"]])])


_LABELS = {"params": "N*", "tokens": "D*", "tokens_per_param": "D*/N*"}


def _short(number: dict[str, float | None]) -> str:
    if number["low"] is None:
        return f"{number['value']:.4g}"
    return f"{number['value']:.4g} ({number['low']:.3g} to {number['high']:.3g})"
