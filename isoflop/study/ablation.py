"""One or several fields take the values of a list, everything else equal: the runs of a comparison, paired by seed."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from isoflop.architecture import BASES
from isoflop.config import LENGTHS, PARTS, ModelConfig, RunConfig
from isoflop.flops import count_params

SAME_PARAMS = 0.01
"""Models of one N, counted as matrices of attention and MLP, differ by less than this part."""
SAME_RATIO = 0.1
"""d_ff over d_model may leave the study's by this part, to meet N where whole widths do not."""
ELSEWHERE = ("d_model", "seed", *LENGTHS)
"""Fields that a study says otherwise: by widths, seeds, budgets and lengths."""

Value = int | float | bool | str


def parse(vary: Sequence[str]) -> dict[str, tuple[Value, ...]]:
    """Read `num_heads=1,2,4` as a field and its values.

    Raises:
        ValueError: no such field, one that belongs elsewhere, no values, or no such parametrization.
    """
    owners = {f.name for part in PARTS.values() for f in fields(part)}
    out: dict[str, tuple[Value, ...]] = {}
    for item in vary:
        name, equals, values = item.partition("=")
        if not equals or not values:
            raise ValueError(f"vary={item!r} names no values; write it like num_heads=1,2,4")
        if name in ELSEWHERE:
            raise ValueError(f"vary={item!r}: {name} is said by widths, seeds, budgets and lengths; leave it out")
        if name not in owners:
            close = get_close_matches(name, owners, n=1)
            hint = f"perhaps you meant {close[0]}" if close else "`isoflop train --help` lists them"
            raise ValueError(f"vary={item!r}: there is no field {name}; {hint}")
        out[name] = tuple(map(_value, values.split(",")))
    if unknown := [kind for kind in out.get("parametrization", ()) if kind not in BASES]:
        raise ValueError(f"vary: there is no parametrization={unknown[0]}; there are {', '.join(BASES)}")
    if {"parametrization", "num_layers"} <= out.keys():
        raise ValueError(
            "vary has num_layers beside parametrization, whose base model has one depth; give depths in its place"
        )
    return out


def _value(text: str) -> Value:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text, text)


def written(vary: Mapping[str, Sequence[Value]]) -> tuple[str, ...]:
    """Write fields and their values as `parse` reads them."""
    return tuple(f"{name}={','.join(_text(value) for value in values)}" for name, values in vary.items())


def _text(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def expand(base: Sequence[RunConfig], vary: Sequence[str], *, seeds: int, same_params: bool) -> list[RunConfig]:
    """Return every base run under every combination of the values, with each seed; what comes out twice is one run.

    Args:
        base: Runs of the given widths and lengths.
        vary: Fields and their values, as `parse` reads them; `d_model/8` stands for an eighth of the run's width, and a
            parametrization carries over from the smallest base run.
        seeds: Seeds of each combination, from the base's on.
        same_params: Let the width follow, so that the matrices of the blocks hold as many numbers as the base's.

    Raises:
        ValueError: a value does not suit its field or width.
    """
    names, values = zip(*parse(vary).items(), strict=True)
    least = min(base, key=lambda config: (config.model.d_model, config.model.num_layers))
    out: dict[str, RunConfig] = {}
    for config in base:
        for chosen in itertools.product(*values):
            setting: dict[str, Any] = dict(zip(names, chosen, strict=True))
            kind = setting.pop("parametrization", None)
            for seed in range(seeds):
                made = _under(config, setting, same_params)
                if kind is not None:
                    carried = made.model.carried_over(kind, _under(least, setting, same_params).model)
                    made = replace(made, model=carried)
                made = replace(made, train=replace(made.train, seed=config.train.seed + seed))
                out.setdefault(made.id, made)
    return list(out.values())


def _under(config: RunConfig, setting: Mapping[str, Value], same_params: bool) -> RunConfig:
    width = config.model.d_model
    resolved = {name: _resolve(name, value, width) for name, value in setting.items()}
    parts: dict[str, Any] = {
        part: replace(getattr(config, part), **own)
        for part, kind in PARTS.items()
        if (own := {name: value for name, value in resolved.items() if name in {f.name for f in fields(kind)}})
    }
    made: RunConfig = replace(config, **parts)
    return replace(made, model=of_params(made.model, count_params(config.model).body)) if same_params else made


def _resolve(name: str, value: Value, width: int) -> Value:
    found = re.fullmatch(r"d_model/(\d+)", value) if isinstance(value, str) else None
    if found is None:
        return value
    if width % int(found[1]):
        raise ValueError(f"{name}={value} is no whole number at d_model={width}; choose widths that {found[1]} divides")
    return width // int(found[1])


def of_params(model: ModelConfig, body: int) -> ModelConfig:
    """Return the model with the width, a multiple of what its heads need, and the d_ff whose matrices hold N_body.

    Raises:
        ValueError: no width does with a d_ff near the model's own ratio.
    """
    grain = math.lcm(2 * (model.num_heads or 1), 2)
    guess = model.d_model * math.sqrt(body / count_params(model).body)
    ratio = model.mlp_width / model.d_model
    tried = []
    for width in {max(grain, grain * round(guess / grain + step)) for step in (-1, 0, 1)}:
        wide = replace(model, d_model=width, d_ff=1)
        # body is linear in d_ff
        one, two = (count_params(replace(wide, d_ff=d_ff)).body for d_ff in (1, 2))
        wide = replace(wide, d_ff=max(1, 1 + round((body - one) / (two - one))))
        tried.append((abs(math.log(wide.mlp_width / width / ratio)), width, wide))
    off, _, best = min(tried, key=lambda item: item[:2])
    if off > SAME_RATIO or abs(count_params(best).body / body - 1) > SAME_PARAMS:
        raise ValueError(
            f"num_layers={model.num_layers} and num_heads={model.num_heads} meet N={body:,} only with "
            f"d_model={best.d_model} and d_ff={best.d_ff}; choose another depth, fewer heads or a larger width"
        )
    return best
