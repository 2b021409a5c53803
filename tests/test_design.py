"""python -m pytest tests/test_design.py"""

import math
from pathlib import Path

import pytest

from isoflop.config import ModelConfig, OptimConfig, TrainConfig
from isoflop.flops import compute, count_params, train_steps
from isoflop.law.rates import step_law
from isoflop.lm.schedule import stable_steps
from isoflop.presets import preset
from isoflop.study.design import DESIGNS, TOLERANCE, guessed_widths, runs, target
from isoflop.study.study import Study, read_study

FACTS = {"data_sha256": "ab", "train_tokens": 10**7}
STUDIES = Path(__file__).parents[1] / "studies"
FILE = """
[study]
name = "s"
[design]
budgets = [1e10, 2e10]
sizes = 2
widths = [16, 24, 20, 32]
[target]
flops = 1e11
d_model = 48
[model]
preset = "small"
num_layers = 3
[train]
batch_size = 8
"""

TRUNK = {"design": "trunk", "widths": (16, 32), "lengths": (7e5, 3e5, 1e6), "model": preset("small")}
WSD = OptimConfig(schedule="wsd", warmup_steps=20, decay_fraction=0.2)


def write(tmp_path: Path, text: str) -> Path:
    (tmp_path / "s.toml").write_text(text)
    return tmp_path / "s.toml"


def test_a_file_becomes_runs_that_meet_their_budgets(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, FILE))
    configs = runs(study, **FACTS)
    assert [(c.train.flops, c.model.d_model) for c in configs] == [(1e10, 16), (1e10, 24), (2e10, 20), (2e10, 32)]
    assert {c.model.num_layers for c in configs} == {3}
    for config in configs:
        steps = train_steps(config.model, config.train, train_tokens=10**7)
        assert abs(steps * 8 * 64 * compute(config.model) / config.train.flops - 1) < TOLERANCE
    (large,) = target(study, **FACTS)
    assert (large.train.flops, large.model.d_model) == (1e11, 48)
    assert len({config.id for config in [*configs, large]}) == 5


@pytest.mark.parametrize("file", sorted(STUDIES.glob("*.toml")), ids=lambda path: path.stem)
def test_every_bundled_study_expands(file: Path) -> None:
    study = read_study(file)
    configs = runs(study, **FACTS)
    assert len(configs) >= 6
    if study.design == "isoflop":
        assert len(configs) == len(study.budgets) * study.sizes
        assert target(study, **FACTS)[0].train.flops >= 3 * max(study.budgets)
    else:
        assert study.question == (None if file.stem == "kernel-rate" else file.stem)


@pytest.mark.parametrize("budget", [1e12, 1e14, 1e18])
def test_guessed_sizes_are_spread_around_the_optimum(budget: float) -> None:
    study = Study(budgets=(budget,), span=4.0, tokens_per_param=20, model=ModelConfig(), aspect=32.0)
    widths = guessed_widths(study, budget)
    assert len(widths) == 5 and widths == sorted(widths)
    params = [compute(c.model) / 6 for c in DESIGNS["isoflop"](study, "ab", {})]
    centre = math.sqrt(budget / 120)
    assert params[0] < centre < params[-1]
    assert 4 < params[-1] / params[0] < 40
    ratios = [c.model.d_model / c.model.num_layers for c in DESIGNS["isoflop"](study, "ab", {})]
    assert all(16 <= ratio <= 48 for ratio in ratios[1:])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "a study needs budgets"),
        (
            {"budgets": (1e10,), "sizes": 3, "widths": (16, 24)},
            "widths gives 2 values, but sizes=3 × 1 budgets need 3: one flat list, the 3 of the first budget, then",
        ),
        ({"budgets": (-1.0,)}, "must be positive"),
        ({"budgets": (1e10,), "lengths": (1e6,)}, "lengths belong to design=grid"),
        ({"budgets": (1e10,), "sizes": 1, "widths": (16,), "recentre": True}, "leave one of them out"),
        ({"budgets": (2e10, 1e10), "recentre": True}, "goes from the smallest budget up"),
        ({"design": "grid", "widths": (16,)}, "design=grid needs widths and lengths"),
        ({"design": "grid", "widths": (16,), "lengths": (1e6,), "budgets": (1e9,)}, "has no budgets"),
        ({"design": "trunk", "widths": (16,), "lengths": (1e6,)}, "design=trunk needs widths and two or more lengths"),
        (
            {"design": "trunk", "widths": (16,), "lengths": (1e6, 2e6)},
            "cannot branch off schedule=cosine; give --schedule wsd or --schedule power",
        ),
        ({**TRUNK, "optim": WSD, "budgets": (1e9,)}, "design=trunk has no budgets"),
        ({"design": "ladder", "widths": (16,)}, "design=ladder needs widths and ratios"),
        ({"design": "ladder", "widths": (16,), "ratios": (20,)}, "design=ladder climbs to a target"),
        (
            {
                "design": "ladder",
                "widths": (16,),
                "ratios": (20,),
                "target_flops": 1e9,
                "target_d_model": 9,
                "lengths": (1,),
            },
            "a ladder's lengths follow from its ratios",
        ),
        ({"budgets": (1e10,), "target_flops": 1e12}, "a target needs both target_flops and target_d_model"),
        ({"budgets": (1e10,), "train": TrainConfig(steps=3)}, "the design decides how long"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Study(**fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("sizes = 2", "size = 2"), r"\[design\] has no field size; perhaps you meant sizes"),
        (("[target]", "[targets]"), r"there is no table \[targets\]; perhaps you meant target"),
        (("[study]", 'design = "isoflop"\n[study]'), r"both as a value and as a \[table\]: keep one"),
        (("[study]", "sizes = 2\n[study]"), r"sizes = 2 stands in no table; write \[design\] on a line above it"),
        (("[16, 24, 20, 32]", "16"), r"widths = 16 must be one flat list of d_model, as long as sizes ×"),
        (("[16, 24, 20, 32]", "[[16, 24]]"), r"widths = \[\[16, 24\]\] must be one flat list of d_model"),
        (('"small"', '"smal"'), "preset='smal' is not known"),
        (("[study]", "[study"), "is no study file"),
    ],
)
def test_a_misspelt_file_is_refused_with_the_nearest_name(tmp_path: Path, change: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_study(write(tmp_path, FILE.replace(*change)))


def test_a_missing_file_or_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist; a study is a TOML file"):
        read_study(tmp_path / "none.toml")
    with pytest.raises(ValueError, match="the study has no target"):
        target(Study(budgets=(1e10,)), **FACTS)


def test_a_budget_too_small_to_meet_is_refused() -> None:
    small = preset("small")
    with pytest.raises(ValueError, match="meets the budget of 1e\\+09 FLOPs only within"):
        runs(Study(budgets=(1e9,), sizes=1, widths=(72,), model=small, train=TrainConfig(batch_size=8)), **FACTS)
    with pytest.raises(ValueError, match="has room for"):
        guessed_widths(Study(budgets=(1e6,), model=small), 1e6)


def test_a_grid_trains_every_width_for_every_length() -> None:
    study = Study(design="grid", widths=(16, 32), lengths=(1e6, 2e6), model=preset("small"))
    made = [(c.model.d_model, c.train.tokens, c.train.flops) for c in runs(study, **FACTS)]
    assert made == [(16, 10**6, None), (32, 10**6, None), (16, 2 * 10**6, None), (32, 2 * 10**6, None)]
    with pytest.raises(ValueError, match="meets the budget of 1300 tokens only within"):
        runs(Study(design="grid", widths=(16,), lengths=(1300,), model=preset("small")), **FACTS)


def test_sizes_lie_around_a_centre_that_is_known() -> None:
    study = Study(budgets=(1e12, 4e12), model=preset("small"), recentre=True)
    known = runs(study, data_sha256="ab", train_tokens=10**7, centres={4e12: 3e5})
    params = [compute(c.model) / 6 for c in known]
    assert params[2] == pytest.approx(math.sqrt(1e12 / 120), rel=0.2)
    assert params[7] == pytest.approx(3e5, rel=0.1)


def test_a_study_comes_back(tmp_path: Path) -> None:
    study = read_study(write(tmp_path, FILE))
    assert Study.from_dict(study.to_dict()) == study
    with pytest.raises(ValueError, match="this is no study"):
        Study.from_dict({"name": "x"})


def test_the_same_run_twice_is_refused() -> None:
    study = Study(budgets=(1e11,), sizes=3, widths=(16, 16, 20), model=preset("small"), train=TrainConfig(batch_size=8))
    with pytest.raises(ValueError, match=r"d_model=16 is asked for twice at 1e\+11 flops"):
        runs(study, data_sha256="0" * 64, train_tokens=10**8)


def test_a_trunk_of_each_width_has_a_branch_for_each_shorter_length() -> None:
    made = runs(Study(**TRUNK, optim=WSD, train=TrainConfig(batch_size=8)), **FACTS)
    assert [(c.model.d_model, c.train.tokens) for c in made] == [
        (width, tokens) for width in (16, 32) for tokens in (10**6, 3 * 10**5, 7 * 10**5)
    ]
    for whole, *branches in (made[:3], made[3:]):
        steps = [train_steps(c.model, c.train, train_tokens=1) for c in (*branches, whole)]
        assert whole.trunk is None and whole.train.keep_steps == tuple(stable_steps(whole.optim, n) for n in steps)
        for config in branches:
            assert config.trunk is not None and config.trunk.run == whole.id
            assert config.trunk.folder == f"../{whole.id}" and config.trunk.step in whole.train.keep_steps
            assert config.optim == whole.optim and config.optim.decay_fraction == 0.2
    assert len({config.optim.warmup_steps for config in made}) == 1


def test_a_ladder_is_as_long_as_its_models_are_large() -> None:
    study = Study(
        design="ladder",
        widths=(16, 32),
        ratios=(20, 40),
        target_flops=1e13,
        target_d_model=64,
        model=preset("small"),
        train=TrainConfig(batch_size=2),
    )
    made = runs(study, **FACTS)
    assert [c.train.tokens / (compute(c.model) / 6) for c in made] == pytest.approx([20, 20, 40, 40], rel=1e-4)


def test_step_law_gives_each_run_its_rate_and_batch() -> None:
    study = Study(design="grid", widths=(128,), lengths=(1e8,), rate="step_law", train=TrainConfig(grad_accum=4))
    (made,) = runs(study, data_sha256="ab", train_tokens=10**9)
    found = step_law(count_params(made.model).body, 1e8)
    assert made.optim.peak_lr(128) == found.lr
    assert made.train.batch_size % 4 == 0
    assert made.train.batch_size * 128 == pytest.approx(found.batch_tokens, rel=0.02)
    assert made.optim.rule == "Step Law (arXiv:2503.04715)"
    assert [OptimConfig(lr_width=width).rule for width in (64, None)] == [
        "lr=0.005·64/d_model",
        "lr=0.005",
    ]
