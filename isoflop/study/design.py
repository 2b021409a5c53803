"""The designs of studies: a question expanded into the runs that answer it."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from isoflop.config import RunConfig
from isoflop.flops import compute, train_steps
from isoflop.lm.branch import branch
from isoflop.lm.schedule import stable_steps, warmup_length
from isoflop.study.ablation import expand
from isoflop.study.rates import RATES
from isoflop.study.study import Study

TOLERANCE = 0.01
"""Largest relative distance between a run's FLOPs, or tokens, and what the design asks for."""


def runs(
    study: Study, *, data_sha256: str, train_tokens: int, centres: Mapping[float, float] | None = None
) -> list[RunConfig]:
    """Expand a study into its runs.

    Args:
        study: The study.
        data_sha256: Fingerprint of its tokens.
        train_tokens: Training tokens of the data.
        centres: N around which a budget's sizes lie, where not around the guess.

    Raises:
        ValueError: a run would miss its budget by more than a hundredth, or two runs would be the same.
    """
    configs = DESIGNS[study.design](study, data_sha256, centres or {})
    for config in configs:
        _meets_budget(config, train_tokens)
    by_id = {config.id: config for config in configs}
    if twice := [config for config in configs if by_id[config.id] is not config]:
        raise ValueError(
            f"d_model={twice[0].model.d_model} is asked for twice at {twice[0].train.length[1]:g} "
            f"{twice[0].train.length[0]}; name each run once"
        )
    return configs


def target(study: Study, *, data_sha256: str, train_tokens: int) -> list[RunConfig]:
    """Return the larger run whose loss the study forecasts, alone in a list.

    Raises:
        ValueError: the study has no target.
    """
    if study.target_flops is None or study.target_d_model is None:
        raise ValueError(
            "the study has no target; add a [target] table (flops, d_model) to its file, or give `isoflop study run` "
            "--target-flops and --target-d-model"
        )
    config = run_of(study, study.target_d_model, study.target_flops, data_sha256)
    _meets_budget(config, train_tokens)
    return [config]


def _meets_budget(config: RunConfig, train_tokens: int) -> None:
    kind, budget = config.train.length
    steps = train_steps(config.model, config.train, train_tokens=train_tokens)
    spent = steps * config.train.batch_size * config.model.context_length
    if kind == "flops":
        spent *= compute(config.model)
    if abs(spent / budget - 1) > TOLERANCE:
        raise ValueError(
            f"d_model={config.model.d_model} meets the budget of {budget:g} {_UNITS[kind]} only within "
            f"{abs(spent / budget - 1):.1%} in {steps} steps; give a larger budget or a smaller batch_size"
        )


_UNITS = {"flops": "FLOPs", "tokens": "tokens"}


def run_of(
    study: Study, width: int, flops: float | None, data_sha256: str = "", *, tokens: int | None = None
) -> RunConfig:
    """Return the run of a width by the study's recipe, for so many FLOPs, or tokens."""
    model = study.model_of(width)
    length = tokens if flops is None else flops / compute(model)
    assert length is not None, "one of flops and tokens is given"
    optim, train = RATES[study.rate](study.optim, study.train, model, length)
    train = study.lasting(train, None if flops is None else float(flops), tokens)
    return RunConfig(model=model, data=study.data, optim=optim, train=train, data_sha256=data_sha256)


def isoflop(study: Study, data_sha256: str, centres: Mapping[float, float]) -> list[RunConfig]:
    """`sizes` models for each budget, at the given widths or around the optimum (arXiv:2203.15556, approach 2)."""
    out = []
    for index, budget in enumerate(study.budgets):
        given = study.widths[index * study.sizes : (index + 1) * study.sizes]
        widths = given or guessed_widths(study, budget, centre=centres.get(budget))
        out += [run_of(study, width, budget, data_sha256) for width in widths]
    return out


def grid(study: Study, data_sha256: str, centres: Mapping[float, float]) -> list[RunConfig]:
    """Every width for each number of tokens, for a parametric law (arXiv:2203.15556, approach 3)."""
    lengths = [round(length) for length in study.lengths]
    return [run_of(study, width, None, data_sha256, tokens=tokens) for tokens in lengths for width in study.widths]


def ablation(study: Study, data_sha256: str, centres: Mapping[float, float]) -> list[RunConfig]:
    """Every width for each budget, or `sizes` of them in turn, and for each length, under every setting and seed.

    Where depths are given, widths have the first, and the least width has the others too: one thing grows at a time.
    """
    listed = len(study.budgets) > 1 and len(study.widths) == study.sizes * len(study.budgets)
    base = [
        run_of(study, width, budget, data_sha256)
        for index, budget in enumerate(study.budgets)
        for width in (study.widths[index * study.sizes : (index + 1) * study.sizes] if listed else study.widths)
    ]
    base += grid(study, data_sha256, centres)
    if study.depths:
        least = min(study.widths)
        base = [
            replace(run, model=replace(run.model, num_layers=depth))
            for depth in study.depths
            for run in base
            if depth == study.depths[0] or run.model.d_model == least
        ]
    return expand(base, study.vary, seeds=study.seeds, same_params=study.same_params)


def trunk(study: Study, data_sha256: str, centres: Mapping[float, float]) -> list[RunConfig]:
    """A warmup–stable–decay run a width, and branches of it for the shorter lengths (arXiv:2405.18392).

    A branch costs no more than its decay. All share one warm-up, that of the shortest, and one batch.
    """
    lengths = sorted(round(length) for length in study.lengths)
    out = []
    for width in study.widths:
        whole = run_of(study, width, None, data_sha256, tokens=lengths[-1])
        # a length in tokens needs no count of the data
        steps = [train_steps(whole.model, replace(whole.train, tokens=n), train_tokens=0) for n in lengths]
        optim = replace(whole.optim, warmup_steps=warmup_length(whole.optim, steps[0]), warmup_fraction=0.0)
        leaves = [stable_steps(optim, n) for n in steps]
        whole = replace(whole, optim=optim, train=replace(whole.train, keep_steps=tuple(leaves)))
        shared: dict[str, Any] = {"train_tokens": 0, "folder": f"../{whole.id}", "decay_fraction": optim.decay_fraction}
        out.append(whole)
        out += [branch(whole, step, tokens=n, **shared) for step, n in zip(leaves[:-1], lengths[:-1], strict=True)]
    return out


def ladder(study: Study, data_sha256: str, centres: Mapping[float, float]) -> list[RunConfig]:
    """Every width for each number of tokens per parameter, up to a target that is forecast (arXiv:2412.04403)."""
    return [
        run_of(study, width, None, data_sha256, tokens=round(ratio * _compute_params(study, width)))
        for ratio in study.ratios
        for width in study.widths
    ]


def proposed(study: Study, data_sha256: str, centres: Mapping[float, float]) -> list[RunConfig]:
    """A run for each width and budget in turn, as `isoflop next` proposes them; one that comes again, a seed on."""
    pairs = list(zip(study.widths, study.budgets, strict=True))
    out = []
    for index, (width, budget) in enumerate(pairs):
        run = run_of(study, width, budget, data_sha256)
        seed = run.train.seed + pairs[:index].count((width, budget))
        out.append(replace(run, train=replace(run.train, seed=seed)))
    return out


def guessed_widths(study: Study, budget: float, *, centre: float | None = None) -> list[int]:
    """Widths whose N are evenly spaced in the logarithm over span around the centre.

    The centre is √(C / 6r), r = tokens_per_param, unless it is known better. Widths are multiples of a head's smallest
    size times the number of heads, so that every one splits into heads.

    Raises:
        ValueError: the budget is too small for that many different widths.
    """
    centre = math.sqrt(budget / (6 * study.tokens_per_param)) if centre is None else centre
    exponents = [0.0] if study.sizes == 1 else [2 * i / (study.sizes - 1) - 1 for i in range(study.sizes)]
    widths = [width_near(study, centre * study.span**exponent) for exponent in exponents]
    if len(set(widths)) < study.sizes:
        raise ValueError(
            f"a budget of {budget:g} FLOPs has room for {len(set(widths))} different widths within ×/÷ {study.span:g} "
            f"of the guessed optimum, not sizes={study.sizes}; give a larger budget, a larger span, or --widths"
        )
    return widths


def _compute_params(study: Study, width: int) -> float:
    return compute(run_of(study, width, 1.0, "").model) / 6


def width_near(study: Study, wanted: float) -> int:
    """Return the width that splits into heads and whose N, compute count, is nearest to the wanted one in ln N."""
    grain = math.lcm(2 * (study.model.num_heads or 1), 4)
    most = 1
    while _compute_params(study, most * grain) < wanted:
        most *= 2
    above = bisect.bisect_left(range(1, most), wanted, key=lambda n: _compute_params(study, n * grain)) + 1
    both = [max(1, above - 1), above]
    return grain * min(both, key=lambda n: abs(math.log(_compute_params(study, n * grain) / wanted)))


DESIGNS: Mapping[str, Callable[[Study, str, Mapping[float, float]], list[RunConfig]]] = {
    "isoflop": isoflop,
    "grid": grid,
    "trunk": trunk,
    "ladder": ladder,
    "ablation": ablation,
    "next": proposed,
}
