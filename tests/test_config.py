"""python -m pytest tests/test_config.py"""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from isoflop.config import PARTS, DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig, read_run, write_run

RUN = RunConfig(
    model=ModelConfig(), data=DataConfig(data="t"), optim=OptimConfig(), train=TrainConfig(steps=3), data_sha256="ab"
)


@pytest.mark.parametrize(
    ("config", "given", "message"),
    [
        (
            ModelConfig,
            {"d_model": 10, "num_heads": 3},
            "d_model=10 does not split into num_heads=3 equal heads; try d_mod",
        ),
        (
            ModelConfig,
            {"num_heads": 2, "num_kv_heads": 3},
            "num_kv_heads=3 does not divide num_heads=2; try one of 1, 2",
        ),
        (ModelConfig, {"d_model": 6, "num_heads": 2}, "RoPE turns pairs and needs an even size"),
        (ModelConfig, {"d_model": 0}, "d_model=0 must be positive"),
        (ModelConfig, {"attn_pdrop": 1.0}, "attn_pdrop=1.0 must be at least 0 and below 1"),
        (OptimConfig, {"lr": -1.0}, "lr=-1.0 must be positive"),
        (OptimConfig, {"weight_decay": -1.0}, "must not be negative"),
        (OptimConfig, {"final_lr_fraction": 2.0}, "final_lr_fraction=2.0 must lie between 0 and 1"),
        (DataConfig, {"val_tokens": 0}, "val_tokens=0 must be positive"),
        (
            TrainConfig,
            {"batch_size": 10, "grad_accum": 4},
            "batch_size=10 does not split into grad_accum=4 equal parts",
        ),
        (
            TrainConfig,
            {"batch_size": 4, "devices": 3},
            "batch_size=4 does not split over devices=3 in grad_accum=1 equal parts each; try batch_size=3",
        ),
    ],
)
def test_what_cannot_be_is_refused(config: type, given: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**given)


@pytest.mark.parametrize(("d_model", "heads"), [(384, 6), (768, 12), (128, 2), (48, 1), (16, 1)])
def test_heads_default_to_one_for_every_64(d_model: int, heads: int) -> None:
    assert ModelConfig(d_model=d_model).heads == heads


def test_ids_follow_what_decides_the_result_and_nothing_else() -> None:
    assert RUN.id == replace(RUN, data=DataConfig(data="moved"), train=TrainConfig(steps=3, keep_last=9)).id
    for part, changed in {
        "model": ModelConfig(d_model=64),
        "optim": OptimConfig(lr=1.0),
        "train": TrainConfig(steps=3, seed=1),
        "data_sha256": "cd",
    }.items():
        assert RUN.id != replace(RUN, **{part: changed}).id


def test_field_names_are_unique_across_the_parts() -> None:
    names = [f.name for part in PARTS.values() for f in fields(part)]
    assert len(names) == len(set(names))


def test_a_run_folder_keeps_its_config(tmp_path: Path) -> None:
    folder = write_run(RUN, tmp_path)
    assert folder == write_run(RUN, tmp_path) == tmp_path / RUN.id
    assert read_run(folder) == RUN


def test_a_folder_of_another_run_is_refused_with_the_fields(tmp_path: Path) -> None:
    write_run(RUN, tmp_path).rename(tmp_path / "x")
    other = replace(RUN, optim=OptimConfig(lr=1.0), data_sha256="cd")
    (tmp_path / "x").rename(tmp_path / other.id)
    with pytest.raises(ValueError, match=r"lr=1.0 \(there 0.005\), data_sha256=cd \(there ab\)"):
        write_run(other, tmp_path)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        read_run(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="this is not a run's configuration"):
        read_run(tmp_path)


def test_ids_of_earlier_versions_stay_valid() -> None:
    # as isoflop 0.1.0 named this run: a field that is added later must be marked ADDED
    assert RUN.id == "d128-l4-639e74fde1"
