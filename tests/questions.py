"""Records of runs that nobody trained, with the configuration that a real one has."""

from __future__ import annotations

from dataclasses import replace

from isoflop.architecture import ParametrizationKind
from isoflop.config import DataConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.flops import compute, params_by_convention
from isoflop.presets import preset
from isoflop.record import Record, Records


def record(
    loss: float,
    *,
    d_model: int = 48,
    num_layers: int = 2,
    num_heads: int | None = 2,
    d_ff: int | None = None,
    tokens: int = 10**6,
    budget: float | None = None,
    seed: int = 0,
    lr: float = 5e-3,
    batch_size: int = 8,
    train_tokens: int | None = None,
    measured: dict | None = None,
    parametrization: ParametrizationKind = "standard",
    base: tuple[int, int] = (16, 2),
) -> Record:
    """A complete run of this shape and length."""
    model = preset("small", d_model=d_model, num_layers=num_layers, num_heads=num_heads, d_ff=d_ff)
    if parametrization != "standard":
        model = model.carried_over(parametrization, replace(model, d_model=base[0], num_layers=base[1]))
    length = {"tokens": tokens} if budget is None else {"flops": budget}
    config = RunConfig(
        model=model,
        data=DataConfig(train_tokens=train_tokens),
        optim=OptimConfig(lr=lr),
        train=TrainConfig(batch_size=batch_size, seed=seed, **length),  # type: ignore[arg-type]
        data_sha256="ab",
    )
    params = params_by_convention(model)
    D = float(tokens) if budget is None else budget / compute(model)
    return Record(
        id=config.id,
        params=params,
        tokens=D,
        flops=D * compute(model),
        loss=loss,
        budget=budget,
        unique_tokens=min(D, train_tokens or D),
        measured={"train_tokens": 10**8, **(measured or {})},
        config=config.to_dict(),
    )


def records(runs: list[Record]) -> Records:
    """Runs as a source reads them."""
    return Records(tuple(runs), source="made up")


def without_config(made: Records) -> Records:
    """The same runs as a table from outside would say them."""
    return replace(made, runs=tuple(replace(run, config={}) for run in made.runs))
