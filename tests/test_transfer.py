"""python -m pytest tests/test_transfer.py"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
import torch

from isoflop.architecture import BASES, ModelConfig, ParametrizationKind
from isoflop.config import OptimConfig
from isoflop.lm.checkpoint import load_required
from isoflop.lm.model import Transformer
from isoflop.lm.optim import OPTIMIZERS, build
from isoflop.lm.train import train
from isoflop.lm.transfer import PARAMETRIZATIONS, RULES, Multipliers, forward_factors, kind_of, multipliers
from isoflop.presets import preset

OTHERS = [name for name in PARAMETRIZATIONS if name != "standard"]
TINY = {"vocab_size": 13, "context_length": 8, "d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": None}
FAMILIES = {name: preset(name, **TINY) for name in ("gpt", "llama", "small")}
BASE = FAMILIES["gpt"]


def grown(parametrization: str, *, width: int = 4, depth: int = 8, base: ModelConfig = BASE) -> ModelConfig:
    wide = replace(base, d_model=16 * width, num_layers=2 * depth, num_heads=2 * width)
    return wide.carried_over(parametrization, base)


def test_tables_and_names_agree() -> None:
    assert set(get_args(ParametrizationKind)) == set(PARAMETRIZATIONS) == set(BASES)
    assert set(OPTIMIZERS) <= set(RULES)
    kinds = {kind_of(name, p) for base in FAMILIES.values() for name, p in Transformer(base).named_parameters()}
    assert all(set(rules) == kinds for rules in RULES.values())


@pytest.mark.parametrize(
    ("parametrization", "optimizer", "expected"),
    [
        # arXiv:2505.01618, table 1 at m = 4, depth ratio 8
        (
            "completep",
            "adamw",
            {"embed": (1, 1, 1, 1 / 4), "hidden": (0.5, 1 / 4, 4, 1 / 32), "norm": (1, 1, 1, 1 / 32)},
        ),
        ("depth_mup", "adamw", {"hidden": (0.5, 8**-0.5 / 4, 4, 8**-0.5 / 4), "norm": (1, 8**-0.5, 1, 8**-0.5 / 4)}),
        ("mup", "adamw", {"hidden": (0.5, 1 / 4, 4, 1 / 4), "norm": (1, 1, 1, 1 / 4), "final": (1, 1, 1, 1 / 4)}),
        # arXiv:2203.03466, table 8
        ("mup", "sgd", {"embed": (1, 4, 1 / 4, 1), "hidden": (0.5, 1, 1, 1), "norm": (1, 4, 1, 1)}),
        ("depth_mup", "sgd", {"hidden": (0.5, 1, 1, 1)}),
        ("completep", "sgd", {"hidden": (0.5, 8, 1, 1), "final": (1, 4, 1, 1)}),
        ("mup", "muon", {"hidden": (0.5, 0.5, 2, 1), "embed": (1, 1, 1, 1 / 4)}),
        ("standard", "adamw", {"embed": (1, 1, 1, 1), "hidden": (1, 1, 1, 1), "norm": (1, 1, 1, 1)}),
    ],
)
def test_multipliers_are_those_of_the_papers(parametrization: str, optimizer: str, expected: dict) -> None:
    names = {"embed": "embed", "hidden": "blocks.1.mlp.down.weight", "norm": "blocks.0.attn_norm.gain"}
    names |= {"final": "final_norm.gain"}
    for kind, factors in expected.items():
        param = torch.zeros(2, 2) if kind in ("embed", "hidden") else torch.zeros(2)
        found = multipliers(names[kind], param, grown(parametrization), optimizer)
        assert found == pytest.approx(Multipliers(*map(float, factors)), rel=1e-12), kind


def test_the_forward_pass_has_the_papers_factors() -> None:
    assert forward_factors(grown("standard")) == (1.0, 1.0, 1.0, None)
    assert forward_factors(grown("mup")) == (1.0, 1.0, 1 / 4, None)
    assert forward_factors(replace(grown("completep"), alpha_in=2.0, alpha_out=3.0)) == (2.0, 1 / 8, 3 / 4, None)
    assert forward_factors(grown("depth_mup")).residual == pytest.approx(8**-0.5)
    # heads that grow: √8 / 32 where the base model has 1/√8 and standard attention 1/√32
    few = replace(BASE, d_model=64).carried_over("mup", BASE)
    assert few.head_size == 32 and forward_factors(few).attention == pytest.approx(8**0.5 / 32)


@pytest.mark.parametrize(
    ("name", "precision", "optimizer"),
    [
        ("gpt", "fp32", "adamw"),
        ("llama", "bf16", "adamw"),
        ("gpt", "autocast", "adamw"),
        ("gpt", "fp32", "muon"),
        ("llama", "bf16", "muon"),
        ("gpt", "fp32", "sgd"),
        ("llama", "bf16", "sgd"),
    ],
)
def test_at_the_base_every_parametrization_is_the_standard_one_bit_for_bit(
    make_run: Callable[..., Path], name: str, precision: str, optimizer: str
) -> None:
    shape = {**TINY, "vocab_size": 256, "context_length": 8}
    family = {f: getattr(preset(name, **shape), f) for f in ("position", "norm", "norm_gain", "norm_bias", "mlp")}
    family |= {
        f: getattr(preset(name, **shape), f) for f in ("tied_head", "attn_bias", "mlp_bias", "init", "depth_init")
    }
    base = preset("small", **{**shape, **family})
    finals = []
    for parametrization in PARAMETRIZATIONS:
        carried = base.carried_over(parametrization, base)
        changes = {f: getattr(carried, f) for f in ("parametrization", "base_width", "base_depth", "base_head_size")}
        folder = make_run(
            steps=2,
            batch_size=2,
            precision=precision,
            model={**shape, **family, **changes},
            optim={"optimizer": optimizer},
            eval_every=9,
        )
        record = train(folder)
        saved = load_required(folder).tensors
        finals.append((record and record.loss, {**saved["model"], **saved["optimizer"]}))
    (loss, tensors), *others = finals
    for other_loss, other in others:
        assert other_loss == loss and set(other) == set(tensors)
        assert all(torch.equal(other[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("name", FAMILIES)
def test_initial_weights_are_the_base_models_times_the_multipliers(name: str) -> None:
    base = replace(FAMILIES[name], d_model=64)
    wide = replace(base, d_model=256, num_layers=8).carried_over("completep", base)
    before = {name: param.std().item() for name, param in Transformer(base).named_parameters() if param.ndim >= 2}
    after = {name: param.std().item() for name, param in Transformer(wide).named_parameters() if param.ndim >= 2}
    for key, std in before.items():
        # the last block's stands for all: depth does not change it
        there = after[key.replace("blocks.1.", "blocks.7.")]
        assert there == pytest.approx(std * (0.5 if key.startswith("blocks.") else 1.0), rel=0.2), key


def test_groups_share_multipliers_and_the_standard_one_has_two() -> None:
    optim = OptimConfig(lr=0.01, lr_width=None, weight_decay=0.1, eps=1e-8)

    def groups(shape: ModelConfig) -> list[tuple[float, ...]]:
        optimizer, flats = build(Transformer(shape), optim, shape=shape)
        assert len(flats) == len(optimizer.param_groups)
        return [tuple(group[name] for name in ("lr", "weight_decay", "eps")) for group in optimizer.param_groups]

    assert groups(BASE) == [(0.01, 0.1, 1e-8), (0.01, 0.0, 1e-8)]
    assert groups(grown("mup")) == [(0.01 / 4, 0.4, 1e-8 / 4), (0.01, 0.0, 1e-8 / 4)]
    assert groups(grown("completep")) == [(0.01 / 4, 0.4, 1e-8 / 32), (0.01, 0.0, 1e-8 / 4), (0.01, 0.0, 1e-8 / 32)]


def test_a_rate_for_a_width_is_for_the_base_models() -> None:
    """lr_width and a parametrization do not both scale the rate of a wide model."""
    wide = grown("mup")
    assert OptimConfig(lr=0.01, lr_width=32).peak_lr(wide.rate_width) == pytest.approx(0.02)
    assert OptimConfig(lr=0.01, lr_width=32).peak_lr(grown("standard").rate_width) == pytest.approx(0.005)


def test_growing_heads_attend_alike_in_both_precisions() -> None:
    few = replace(BASE, d_model=64).carried_over("mup", BASE)
    model, ids = Transformer(few).eval(), torch.randint(0, 13, (2, 9))
    exact, rounded = (
        model.loss(ids[:, :-1], ids[:, 1:], products).item() for products in (torch.float32, torch.bfloat16)
    )
    assert rounded == pytest.approx(exact, abs=2e-3)
    standard = Transformer(replace(few, base_head_size=None)).eval()
    assert not torch.equal(model(ids[:, :-1]), standard(ids[:, :-1]))
