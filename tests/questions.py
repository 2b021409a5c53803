"""Records of runs that nobody trained, with the configuration that a real one has."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from isoflop.architecture import ParametrizationKind
from isoflop.config import DataConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.flops import compute, params_by_convention
from isoflop.law.laws import LAWS
from isoflop.law.transfer import Verdict
from isoflop.presets import preset
from isoflop.record import Record, Records
from isoflop.study.ablation import of_params


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


LAW = {"E": 1.2, "A": 90.0, "B": 90.0, "alpha": 0.5, "beta": 0.4}
BODY = 55_296


def grid(*, bend: float = 0.0, noise: float = 0.002) -> Records:
    """A law, whose losses lie above it by `bend` times the smallness of N below 3e4."""
    rng, runs = np.random.default_rng(0), []
    for width in (8, 12, 16, 24, 32, 48, 64):
        for tokens in (3e5, 9e5, 2.7e6, 8.1e6):
            made = record(1.0, d_model=width, tokens=round(tokens))
            N = made.params["compute"]
            loss = LAWS["chinchilla"](N=N, D=made.tokens, **LAW) + bend * max(0.0, np.log(3e4 / N)) ** 2
            runs.append(replace(made, loss=float(loss * np.exp(noise * rng.standard_normal()))))
    return records(runs)


def sweep(
    shift: float, *, noise: float = 1e-4, seeds: int = 3, edge: bool = False, kinds: tuple = ("standard",)
) -> Records:
    """The best rate of each shape moves by a factor width^-shift under standard, and not at all otherwise."""
    rng, runs = np.random.default_rng(1), []
    for kind in kinds:
        for width, depth in ((16, 2), (64, 2), (128, 2), (16, 8)):
            moved = shift if kind == "standard" else 0.0
            best = (0.005 if not edge else 5.0) * (width / 16 * depth / 2) ** -moved
            for lr in (0.00125, 0.0025, 0.005, 0.01, 0.02):
                for seed in range(seeds):
                    loss = 3 - 0.1 * np.log(width * depth) + 0.1 * np.log(lr / best) ** 2
                    made: dict = {
                        "d_model": width,
                        "num_layers": depth,
                        "lr": lr,
                        "seed": seed,
                        "parametrization": kind,
                    }
                    runs.append(record(float(loss + noise * rng.standard_normal()), **made))
    return records(runs)


def checked(kind: str, *passed: bool | None) -> list[Verdict]:
    """A coordinate check along width, and along depth where there is a second answer."""
    slopes: dict = {True: 0.05, False: 0.4, None: None}
    return [
        Verdict(parametrization=kind, axis=axis, slope=slopes[one], control=1.2, passed=one)  # type: ignore[arg-type]
        for axis, one in zip(("width", "depth"), passed, strict=False)
    ]


def shapes(noise: float, *, depths: tuple[int, ...] = (1, 2, 3, 6, 8, 12), seeds: int = 3) -> Records:
    """Loss 2·(1 + 0.01·ln(aspect/10)²): within 1 % of the best from 10/e to 10·e."""
    rng, runs = np.random.default_rng(2), []
    for depth in depths:
        model = of_params(preset("small", num_layers=depth), BODY)
        for seed in range(seeds):
            loss = 2 * (1 + 0.01 * np.log(model.d_model / depth / 10) ** 2) + noise * rng.standard_normal()
            for length in ({"tokens": 400_000}, {"budget": 2e11}):
                runs.append(
                    record(float(loss), d_model=model.d_model, num_layers=depth, d_ff=model.d_ff, seed=seed, **length)
                )
    return records(runs)


def head_counts(effect: float, noise: float, *, seeds: int = 5) -> Records:
    """One head is worse by `effect`; all others are alike."""
    rng = np.random.default_rng(3)
    shared = 0.02 * rng.standard_normal(seeds)
    return records(
        [
            record(
                float(1.8 + effect * (count == 1) + shared[seed] + noise * rng.standard_normal()),
                num_heads=count,
                budget=2e11,
                seed=seed,
            )
            for count in (1, 2, 4, 8)
            for seed in range(seeds)
        ]
    )


def two_sweeps(apart: float, noise: float, *, budgets: tuple[float, ...] = (5e10, 1e11, 2e11, 4e11)) -> Records:
    """N* ∝ C^0.5 with two heads, and C^(0.5 − apart) with heads of four."""
    rng, runs = np.random.default_rng(4), []
    for C in budgets:
        for arm in (0, 1):
            best = 2.3e4 * (C / 1e11) ** (0.5 - apart * arm)
            for width in (16, 20, 24, 32, 40, 48, 56, 64):
                made = record(1.0, d_model=width, num_heads=width // 4 if arm else 2, budget=C)
                loss = 1.8 + 0.1 * np.log(made.params["compute"] / best) ** 2 + noise * rng.standard_normal()
                runs.append(replace(made, loss=float(loss)))
    return records(runs)


def head_lengths() -> Records:
    """Runs without budgets."""
    return records([record(2.0, num_heads=count) for count in (1, 2)])


def batches(critical: float, noise: float, *, sizes: tuple[int, ...] = (4, 8, 16, 32, 64)) -> Records:
    """Loss 1.5 + (2e5/E_min)^0.3 where a batch B needs E = E_min·(1 + B/critical), and the wrong rate costs 0.05."""
    rng, runs = np.random.default_rng(5), []
    for size in sizes:
        for tokens in (163_840, 327_680, 655_360, 1_310_720, 2_621_440):
            for lr in (0.0025, 0.005, 0.01):
                least = tokens / (1 + size * 64 / critical)
                loss = 1.5 + (2e5 / least) ** 0.3 + 0.05 * (lr != 0.005) + noise * rng.standard_normal()
                runs.append(record(float(loss), batch_size=size, tokens=tokens, lr=lr, d_model=16))
    return records(runs)


def again(run: Record, lr: float) -> dict:
    return {"batch_size": run.config["train"]["batch_size"], "tokens": int(run.tokens), "lr": lr, "d_model": 16}


def corpus(turn: float | None, noise: float = 1e-3) -> Records:
    """The data-constrained law with R*_D = 10, and a loss that rises beyond `turn` epochs."""
    truth = {**LAW, "R_D": 10.0, "R_N": 10.0}
    rng, runs = np.random.default_rng(6), []
    for pool in (100_000, 400_000):
        for width in (16, 24, 40):
            for tokens in (50_000, 100_000, 200_000, 400_000, 800_000, 1_600_000, 3_200_000):
                made = record(1.0, d_model=width, tokens=tokens, train_tokens=pool)
                N, U = made.params["compute"], float(min(tokens, pool))
                loss = float(LAWS["data_constrained"](N=N, D=float(tokens), U=U, **truth))
                loss += 0.2 * max(0.0, np.log(tokens / pool / turn)) if turn else 0.0
                runs.append(replace(made, loss=loss + noise * rng.standard_normal()))
    return records(runs)


def corpus_of_sizes_alike() -> list[Record]:
    """Loss by epochs alone."""
    runs = [run for run in corpus(8.0).runs if run.config["data"]["train_tokens"] == 100_000]
    like = {run.tokens: run.loss for run in runs if run.config["model"]["d_model"] == 24}
    return [replace(run, loss=like[run.tokens]) for run in runs]


def corpus_of_one_size(turn: float | None) -> Records:
    """One size alone, to which no law can be fitted."""
    return records([run for run in corpus(turn).runs if run.config["model"]["d_model"] == 16])
