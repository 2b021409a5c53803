"""`isoflop plan`, and what it prints."""

from __future__ import annotations

import json as json_module
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from isoflop.cli.hardware import HARDWARE, Hardware
from isoflop.cli.target import Count, read_source
from isoflop.config import ModelConfig
from isoflop.counts import number_of
from isoflop.law.shape import OUTSIDE, Wishes, in_family, outside
from isoflop.presets import PRESETS, PresetName, preset
from isoflop.sources.columns import GUESSED, Columns

if TYPE_CHECKING:
    from isoflop.law.basis import Basis
    from isoflop.law.plan import Plan


WISHES = Wishes()


def plan(
    source: Positional[str | None] = None,
    *,
    published: str | None = None,
    flops: float | None = None,
    hardware: Hardware = HARDWARE,
    wishes: Wishes = WISHES,
    preset: PresetName | None = None,
    vocab_size: int | None = None,
    context_length: int | None = None,
    params_count: Count | None = None,
    series: str | None = None,
    columns: Columns = GUESSED,
    bootstrap: int = 300,
    seed: int = 0,
    json: bool = False,
) -> None:
    """Turn a budget into a model that can be built, its tokens, batch and learning rate, and the loss to expect.

    The budget is --flops, or --device with --gpu-hours or --hours. SOURCE is a study's folder, a table of
    runs or a fit.json; or give --published with the name of a paper's law.

    Args:
        source: Where the runs or the fit are.
        published: Constants of a paper instead, such as hoffmann2022 or besiroglu2024.
        flops: C, training FLOPs.
        hardware: The budget as time of devices.
        wishes: What the plan must keep to.
        preset: Parts of the model; None: as the runs', or llama where they do not know theirs.
        vocab_size: Token ids; None: as the preset or the runs; else 32000, and fewer where these would fill the model.
        context_length: Longest sequence, tokens; None: as the preset or the runs; else 2048, and less with few ids.
        params_count: How N is counted in own runs, or what the N of a table means; None: compute, or total.
        series: The series of a table that holds several.
        columns: Which columns mean what, where their names do not tell.
        bootstrap: Times that the runs are drawn again for the interval of N*; 0: none.
        seed: Seed of the draws.
        json: Print the plan as JSON.
    """
    from isoflop.law.basis import with_repetition
    from isoflop.law.plan import plan as make_plan

    C = hardware.flops(flops)
    basis = basis_of(
        source, published, count=params_count, series=series, columns=columns, bootstrap=bootstrap, seed=seed
    )
    if wishes.unique_tokens is not None:
        basis = with_repetition(basis)
    if preset is None and (own := _own(basis)):
        wishes = in_family(wishes, own)
    given = {"vocab_size": vocab_size, "context_length": context_length}
    model, note = _model_of(basis, C, preset, {key: value for key, value in given.items() if value is not None}, wishes)
    made = make_plan(replace(basis, notes=(*basis.notes, *note)), C, model, wishes)
    bill = hardware.bill(made.flops)
    print(json_module.dumps({**made.to_dict(), **bill}) if json else _report(made, hardware.told(made.flops)))


def basis_of(
    source: str | None,
    name: str | None,
    *,
    count: Count | None = None,
    series: str | None = None,
    columns: Columns = GUESSED,
    form: str = "chinchilla",
    bootstrap: int,
    seed: int = 0,
) -> Basis:
    """Return what losses are predicted by: a published law, a fit file, or a form of law fitted to runs now.

    Raises:
        ValueError: neither or both of source and published law are given, or the source cannot be read or fitted.
    """
    from isoflop.law.basis import fitted, published
    from isoflop.law.fit import Fit
    from isoflop.law.fit import fit as fit_law
    from isoflop.law.lawful import lawful, sifted
    from isoflop.law.uncertainty import bootstrap as resample
    from isoflop.law.uncertainty import check_draws

    if (source is None) == (name is None):
        said = "neither" if name is None else "both"
        raise ValueError(f"a plan needs runs (a SOURCE) or a published law (--published NAME), but {said} was given")
    check_draws("--bootstrap", bootstrap)
    if name is not None:
        if count is not None:
            raise ValueError(f"--published {name} counts N in its own way; leave --params-count {count} out")
        return published(name)
    assert source is not None
    records = read_source(source, series, columns)
    if isinstance(records, Fit):
        if count is not None:
            raise ValueError(f"{source} is a fit that counts N already; leave --params-count out, or fit the runs anew")
        kept, notes = sifted(records, seed=seed)
        return fitted(kept, tried=records.records, notes=notes)
    outside = records.convention == "given"
    records = records if count is None or outside else records.under(count)
    chosen, notes = lawful(records, law=form)
    fit = fit_law(chosen, law=form)
    basis = fitted(resample(fit, replicates=bootstrap, seed=seed) if bootstrap else fit, tried=records, notes=notes)
    return replace(basis, convention=count) if outside and count is not None else basis


def _own(basis: Basis) -> list[dict[str, Any]]:
    """Return the models of runs that know theirs."""
    return [] if basis.records is None else [run.config["model"] for run in basis.records.runs if run.config]


def _model_of(
    basis: Basis, flops: float, name: PresetName | None, given: dict[str, Any], wishes: Wishes
) -> tuple[ModelConfig, tuple[str, ...]]:
    """Return what a shape leaves open, and the size of its heads; say if its vocabulary had to be small."""
    from isoflop.law.plan import optimal_size

    if name is None and (own := _own(basis)):
        return replace(ModelConfig(**own[-1]), **given), ()
    start, asked = preset(name or "llama"), bool({"vocab_size", "context_length"} & given.keys())
    given = {key: value for key, value in PRESETS[name or "llama"].items() if key in OUTSIDE[0]} | given
    N = min(float(optimal_size(basis, flops, wishes.unique_tokens).N), wishes.max_params or math.inf)
    model = outside(basis.counted, N, start, wishes, given)
    if asked or {"vocab_size": model.vocab_size, "context_length": model.context_length} == {**OUTSIDE[0], **given}:
        return model, ()
    note = f"vocabulary and context are kept small, for {OUTSIDE[0]['vocab_size']} token ids would take over half of a "
    return model, (f"{note}model of {N:.3g} parameters; --vocab-size and --context-length choose others",)


def _report(made: Plan, bill: list[str]) -> str:
    model, counts = made.model, made.params
    batch = made.batch_size * model.context_length
    lines = [
        f"plan for {made.budget:.3g} FLOPs by {made.basis}; N counted as {made.convention}",
        "",
        f"  shape       d_model {model.d_model}, {number_of(model.num_layers, 'layer')}, "
        f"{number_of(model.heads, 'head')} of {model.head_size}, "
        f"d_ff {model.mlp_width}, vocabulary {model.vocab_size}, context {model.context_length}",
        f"  parameters  {counts['total']:.3g} in all: body {counts['body']:.3g}, embedding {counts['embedding']:.3g}, "
        f"read-out {'tied' if model.tied_head else format(counts['head'], '.3g')}, norms {counts['norms']:.3g}; "
        f"compute count {counts['compute']:.3g}",
        f"  tokens      {made.tokens:.4g}, {made.tokens / counts[made.convention]:.3g} for each parameter"
        + ("" if made.epochs is None else f"; {made.epochs:.3g} epochs"),
        f"  FLOPs       {made.flops:.4g} by the shape's own count",
        f"  batch       {number_of(made.batch_size, 'sequence')} ({batch:,} tokens); {number_of(made.steps, 'step')}",
        f"  peak lr     {made.lr:.3g}, by {made.rate}",
        f"  loss        {_loss(made)}",
    ]
    lines += [f"  time        {line}" for line in bill]
    if made.inference_flops is not None:
        lines.append(
            f"  serving     {made.inference_flops:.3g} FLOPs; training and serving together {made.saving:.1%} less "
            f"than with the shape that is best for the training budget alone"
        )
    return "\n".join([*lines, "", *_prices(made), *(f"  note: {note}" for note in made.notes)])


def _loss(made: Plan) -> str:
    if made.low is None:
        return f"{made.loss:.4f} nats per token by the law; it comes without its runs, so there is no interval"
    return (
        f"{made.loss:.4f} nats per token, 90 % interval {made.low:.4f} to {made.high:.4f}, forecast from the runs as "
        "`isoflop predict` does"
    )


def _prices(made: Plan) -> list[str]:
    low, high = made.optimum_low, made.optimum_high
    interval = "" if low is None else f" (90 %: {low:.3g} to {high:.3g})"
    lines = [
        f"  other sizes for the same C = 6ND, against the law's own optimum N* = {made.optimum.N:.3g}{interval}, "
        f"D* = {made.optimum.D:.3g}:",
        f"  {'N/N*':>6} {'N':>10} {'tokens':>10} {'more loss':>9} {'FLOPs for the loss at N*':>26}",
    ]
    for row in made.deviations:
        match = "never" if row.flops_to_match is None else f"× {row.flops_to_match / made.budget:.3f}"
        lines.append(f"  {row.factor:>6g} {row.params:>10.3g} {row.tokens:>10.3g} {row.excess:>+9.4f} {match:>26}")
    return lines
