"""`isoflop plan` and `isoflop next`, and what they print."""

from __future__ import annotations

import json as json_module
import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from tyro.conf import Positional

from isoflop.cli.target import read_source
from isoflop.config import ModelConfig
from isoflop.devices import flops_of_hours, hours_of_flops
from isoflop.law.shape import Wishes
from isoflop.presets import PresetName, preset
from isoflop.record import ParamConvention
from isoflop.sources.columns import GUESSED, Columns

if TYPE_CHECKING:
    from isoflop.law.advise import Advice
    from isoflop.law.plan import Basis, Plan
    from isoflop.record import Records

OUTSIDE: dict[str, Any] = {"vocab_size": 32_000, "context_length": 2048}
"""Vocabulary and context of a model planned by a law from outside (those of arXiv:2112.11446 and arXiv:2203.15556)."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What there is to spend: --flops, or --device with --hours."""

    flops: float | None = None
    """Training FLOPs."""
    device: str | None = None
    """Accelerator, such as h100 or tpu-v5p, which turns hours into FLOPs and FLOPs into hours."""
    count: int = 1
    """How many of them."""
    hours: float | None = None
    """Hours on the clock, instead of --flops."""
    mfu: float = 0.4
    """Part of their peak that training reaches (arXiv:2407.21783 reports 0.38 to 0.43 for 405B parameters)."""
    price: float | None = None
    """Price of one device for one hour, in any currency."""


BUDGET, WISHES = Budget(), Wishes()


def plan(
    source: Positional[str | None] = None,
    *,
    law: str | None = None,
    budget: Budget = BUDGET,
    wishes: Wishes = WISHES,
    preset: PresetName | None = None,
    vocab_size: int | None = None,
    context_length: int | None = None,
    params: ParamConvention | None = None,
    series: str | None = None,
    columns: Columns = GUESSED,
    bootstrap: int = 300,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Turn a budget into a model that can be built, its tokens, batch and learning rate, and the loss to expect.

    The budget is --flops, or --device with --hours. SOURCE is a study's folder, a table of runs or a fit.json; or
    give --law with the name of a published one.

    Args:
        source: Where the runs or the fit are.
        law: A published law instead, such as hoffmann2022 or besiroglu2024.
        budget: What there is to spend.
        wishes: What the plan must keep to.
        preset: Parts of the model; None: as the runs', or llama for a law from outside.
        vocab_size: Token ids; None: as the preset or the runs, 32000 for a law from outside.
        context_length: Longest sequence, tokens; None: as the preset or the runs, 2048 for a law from outside.
        params: How N is counted in own runs, or what the N of a table from outside means; None: compute, or total.
        series: The series of a table that holds several.
        columns: Which columns mean what, where their names do not tell.
        bootstrap: Times that the runs are drawn again for the interval of N*.
        seed: Seed of the draws.
        json: Print the plan as JSON.
    """
    from isoflop.law.plan import plan as make_plan

    flops = flops_of(budget)
    basis = basis_of(source, law, params=params, series=series, columns=columns, bootstrap=bootstrap, seed=seed)
    model = _model_of(basis.records, preset, {"vocab_size": vocab_size, "context_length": context_length})
    made = make_plan(basis, flops, model, wishes)
    bill = _bill(made, budget)
    print(json_module.dumps({**made.to_dict(), **bill}) if json else _report(made, bill))


def flops_of(budget: Budget) -> float:
    """Return the FLOPs that are given, or those of the device's hours.

    Raises:
        ValueError: neither or both are given, or hours of no device.
    """
    flops, hours = budget.flops, budget.hours
    if (flops is None) == (hours is None):
        said = "neither" if flops is None else "both"
        raise ValueError(f"a budget is --flops, or --hours with --device, but {said} was given; give one of them")
    if flops is not None:
        return flops
    assert hours is not None
    if budget.device is None:
        raise ValueError(f"--hours {hours:g} needs --device, whose peak turns hours into FLOPs; give one, such as h100")
    return flops_of_hours(budget.device, budget.count, hours, budget.mfu)


def basis_of(
    source: str | None,
    law: str | None,
    *,
    params: ParamConvention | None = None,
    series: str | None = None,
    columns: Columns = GUESSED,
    bootstrap: int,
    seed: int,
) -> Basis:
    """Return what losses are predicted by: a published law, a fit file, or runs fitted now.

    Raises:
        ValueError: neither or both of source and law are given, or the source cannot be read or fitted.
    """
    from isoflop.law.fit import Fit
    from isoflop.law.fit import fit as fit_law
    from isoflop.law.plan import fitted, published
    from isoflop.law.uncertainty import bootstrap as resample

    if (source is None) == (law is None):
        said = "neither" if law is None else "both"
        raise ValueError(f"a plan needs runs (a SOURCE) or a published law (--law NAME), but {said} was given")
    if law is not None:
        return published(law)
    assert source is not None
    records = read_source(source, series, columns)
    if isinstance(records, Fit):
        if params is not None:
            raise ValueError(f"{source} is a fit that counts N already; leave --params out, or fit the runs anew")
        return fitted(records)
    outside = records.convention == "given"
    fit = fit_law(records if params is None or outside else records.under(params))
    basis = fitted(resample(fit, replicates=bootstrap, seed=seed) if bootstrap else fit)
    return replace(basis, convention=params) if outside and params is not None else basis


def _model_of(records: Records | None, name: PresetName | None, changes: dict[str, int | None]) -> ModelConfig:
    """Return what a shape leaves open, and the size of its heads."""
    given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
    own = [] if records is None else [run.config["model"] for run in records.runs if run.config]
    if name is None and own:
        return replace(ModelConfig(**own[-1]), **given)
    return preset(name or "llama", **{**OUTSIDE, **given})


def _bill(made: Plan, budget: Budget) -> dict[str, float | None]:
    if budget.device is None:
        if budget.price is not None:
            raise ValueError(f"--price {budget.price:g} is for an hour of a device; give --device too")
        return {"hours": None, "cost": None}
    hours = hours_of_flops(budget.device, budget.count, made.flops, budget.mfu)
    return {"hours": hours, "cost": None if budget.price is None else budget.price * budget.count * hours}


def _report(made: Plan, bill: dict[str, float | None]) -> str:
    model, counts = made.model, made.params
    batch = made.batch_size * model.context_length
    interval = "no interval: a published law tells none" if made.low is None else f"{made.low:.4f} to {made.high:.4f}"
    lines = [
        f"plan for {made.budget:.3g} FLOPs by {made.basis}; N counted as {made.convention}",
        "",
        f"  shape       d_model {model.d_model}, {model.num_layers} layers, {model.heads} heads of {model.head_size}, "
        f"d_ff {model.mlp_width}, vocabulary {model.vocab_size}, context {model.context_length}",
        f"  parameters  {counts['total']:.3g} in all: body {counts['body']:.3g}, embedding {counts['embedding']:.3g}, "
        f"read-out {counts['head']:.3g}, position {counts['position']:.3g}, norms {counts['norms']:.3g}; "
        f"compute count {counts['compute']:.3g}",
        f"  tokens      {made.tokens:.4g}, {made.tokens / counts[made.convention]:.3g} for each parameter"
        + ("" if made.epochs is None else f"; {made.epochs:.3g} epochs"),
        f"  FLOPs       {made.flops:.4g} by the shape's own count",
        f"  batch       {made.batch_size} sequences ({batch} tokens); {made.steps} steps",
        f"  peak lr     {made.lr:.3g}, by {made.rate}",
        f"  loss        {made.loss:.4f} nats per token ({interval})",
    ]
    if bill["hours"] is not None:
        cost = "" if bill["cost"] is None else f", cost {bill['cost']:.4g}"
        lines.append(f"  time        {bill['hours']:.3g} hours{cost}")
    if made.inference_flops is not None:
        lines.append(
            f"  serving     {made.inference_flops:.3g} FLOPs; training and serving together {made.saving:.1%} less "
            f"than with the shape that is best for the training budget alone"
        )
    lines += ["", *_prices(made), *(f"  note: {note}" for note in made.notes)]
    return "\n".join(lines)


def _prices(made: Plan) -> list[str]:
    low, high = made.optimum_low, made.optimum_high
    interval = "" if low is None else f" (90 %: {low:.3g} to {high:.3g})"
    lines = [
        f"  N* = {made.optimum.N:.3g}{interval}, D* = {made.optimum.D:.3g}; what another size costs:",
        f"  {'N/N*':>6} {'N':>10} {'loss':>8} {'FLOPs for the same loss':>26}",
    ]
    for row in made.deviations:
        match = "never" if row.flops_to_match is None else f"× {row.flops_to_match / made.budget:.3f}"
        lines.append(f"  {row.factor:>6g} {row.params:>10.3g} {row.loss:>8.4f} {match:>26}")
    return lines


def next_runs(
    source: Positional[str],
    *,
    flops: float,
    target: float | None = None,
    overhead: float | None = None,
    noise: float | None = None,
    smallest: float | None = None,
    most: int | None = None,
    params: ParamConvention | None = None,
    series: str | None = None,
    columns: Columns = GUESSED,
    json: bool = False,
) -> None:
    """Choose the runs to train next: those that tell most, for their FLOPs, of the loss ahead and of the optimal size.

    The first run is a far one, which could contradict the law. The others are chosen greedily; runs that branch from
    a trunk of SOURCE (its column or field `group`) cost only what the trunk lacks.

    Args:
        source: The runs so far: a study's folder, a table, or a fit.json.
        flops: FLOPs to spend on all of them.
        target: FLOPs of the forecast that they should improve; None: ten times the largest run, the new ones included.
        overhead: FLOPs that a run costs beside its own; None: a hundredth of --flops.
        noise: Standard deviation of ln loss between equal runs; None: from the residuals of the fit.
        smallest: Fewest FLOPs of a run; None: an eighth of the smallest budget of SOURCE.
        most: Most runs; None: as many as the FLOPs pay for.
        params: How N is counted in own runs, or what the N of a table from outside means; None: as the source says.
        series: The series of a table that holds several.
        columns: Which columns mean what, where their names do not tell.
        json: Print the advice as JSON.
    """
    from isoflop.law.advise import advise

    fit = basis_of(source, None, params=params, series=series, columns=columns, bootstrap=0, seed=0).fit
    assert fit is not None
    told = advise(fit, flops, target=target, overhead=overhead, noise=noise, smallest=smallest, most=most)
    print(json_module.dumps(asdict(told)) if json else _advice(told, fit.records))


def _shape_like(records: Records, N: float) -> str:
    """Name the shape of nearly N parameters with the parts and the aspect of the runs, where they know their own."""
    from isoflop.law.shape import shapes

    own = [run.config["model"] for run in records.runs if run.config]
    if not own:
        return ""
    model = ModelConfig(**own[-1])
    grid = shapes(records.convention, N, model, Wishes(aspect=model.d_model / model.num_layers), reach=2.0)
    best = int(abs(np.log(grid.N / N)).argmin())
    return f"d_model {grid.d_model[best]:.0f}, {grid.num_layers[best]:.0f} layers; "


def _advice(told: Advice, records: Records) -> str:
    lines = [
        f"{len(told.runs)} runs for {told.spent:.3g} of {told.allowance:.3g} FLOPs, after those of {records.source}; "
        f"N counted as {records.convention}; noise of ln loss {told.noise:.2g}",
        "",
        f"  {'times':>5} {'N':>9} {'tokens':>9} {'FLOPs':>9} {'loss':>8}  for",
    ]
    for run, times in Counter(told.runs).items():
        trunk = "" if run.group is None else f", a branch of {run.group}"
        lines.append(
            f"  {times:>5} {run.params:>9.3g} {run.tokens:>9.3g} {run.flops:>9.3g} {run.loss:>8.4f}  "
            f"{_shape_like(records, run.params)}{run.why}{trunk}"
        )
    far = told.runs[0]
    low, high = far.loss * math.exp(-2 * told.far_sd), far.loss * math.exp(2 * told.far_sd)
    lines += [
        "",
        f"  standard deviations at {told.target:.3g} FLOPs, expected if the law holds:",
        f"    ln loss  {told.loss_sd[0]:.4f} → {told.loss_sd[1]:.4f}",
        f"    ln N*    {told.size_sd[0]:.3f} → {told.size_sd[1]:.3f}",
        f"  the first run contradicts the law if its loss lies outside {low:.4f} to {high:.4f} (two deviations)",
        *(f"  note: {note}" for note in told.notes),
    ]
    return "\n".join(lines)
