"""python -m pytest tests/test_ablation.py"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from isoflop.config import DataConfig
from isoflop.data.tokens import PIECE, open_configured
from isoflop.flops import count_params
from isoflop.presets import preset
from isoflop.study.ablation import SAME_PARAMS, of_params, parse, written
from isoflop.study.design import runs
from isoflop.study.study import Study, read_study

FACTS = {"data_sha256": "ab", "train_tokens": 10**7}
FILE = """
[study]
question = "heads"
[design]
design = "ablation"
vary = { num_heads = [1, 2, "d_model/8"], tied_head = [true, false] }
widths = [16, 32]
budgets = [1e11]
seeds = 2
[model]
preset = "small"
"""


def test_fields_and_values_are_read_as_they_are_written() -> None:
    vary = {"num_heads": (1, 2), "lr": (0.01, 1e-05), "tied_head": (True, False), "mlp": ("gelu", "relu2")}
    assert parse(written(vary)) == vary


def test_a_file_becomes_every_setting_with_each_seed(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(FILE)
    study = read_study(tmp_path / "s.toml")
    made = runs(study, **FACTS)
    # two heads of eight at width 16 are one run, not two
    assert len(made) == 2 * 2 * (2 + 3) and len({run.id for run in made}) == len(made)
    heads = {(run.model.d_model, run.model.num_heads) for run in made}
    assert heads == {(16, 1), (16, 2), (32, 1), (32, 2), (32, 4)}
    assert {run.train.seed for run in made} == {0, 1}
    assert Study.from_dict(study.to_dict()) == study


def test_widths_go_to_budgets_in_turn_or_to_all() -> None:
    shared = {"design": "ablation", "vary": ("num_heads=1,2",), "model": preset("small")}
    listed = Study(widths=(16, 24, 32, 40), sizes=2, budgets=(2e10, 4e10), **shared)
    assert [(run.model.d_model, run.train.flops) for run in runs(listed, **FACTS)[::2]] == [
        (16, 2e10), (24, 2e10), (32, 4e10), (40, 4e10),
    ]  # fmt: skip
    every = Study(widths=(16, 24), budgets=(2e10, 4e10), lengths=(1e5,), **shared)
    lengths = [(run.model.d_model, run.train.flops, run.train.tokens) for run in runs(every, **FACTS)[::2]]
    assert lengths[-2:] == [(16, None, 100_000), (24, None, 100_000)] and len(lengths) == 6


@pytest.mark.parametrize("layers", [1, 3, 6, 8, 12])
def test_other_depths_keep_the_parameters_of_the_blocks(layers: int) -> None:
    body = count_params(preset("small")).body
    made = of_params(preset("small", num_layers=layers), body)
    assert abs(count_params(made).body / body - 1) < SAME_PARAMS
    assert made.mlp_width / made.d_model == pytest.approx(4, rel=0.1)
    with pytest.raises(ValueError, match="num_layers=12 and num_heads=8 meet N=55,296 only with"):
        of_params(preset("small", num_layers=12, num_heads=8), body)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vary": ("num_head=1,2",)}, "there is no field num_head; perhaps you meant num_heads"),
        ({"vary": ("zzz=1",)}, "there is no field zzz; `isoflop train --help` lists them"),
        ({"vary": ("num_heads",)}, "vary='num_heads' names no values"),
        ({"vary": ("seed=1,2",)}, "seed is said by widths, seeds, budgets and lengths"),
        ({"vary": ("num_heads=3",)}, "does not split into num_heads=3 equal heads"),
        ({"vary": ("num_heads=d_model/7",)}, "num_heads=d_model/7 is no whole number at d_model=16"),
        ({"widths": ()}, "design=ablation needs vary, widths and budgets or lengths"),
        ({"vary": ("parametrization=mu",)}, "there is no parametrization=mu; there are standard, mup"),
        ({"vary": ("parametrization=mup", "num_layers=1,2")}, "vary has num_layers beside parametrization"),
        ({"depths": (1, 2), "vary": ("num_layers=1,2",)}, "and vary both say num_layers"),
        ({"seeds": 0}, "needs seeds=0 above 0"),
        ({"design": "isoflop", "widths": ()}, "vary, seeds, same_params and depths belong to design=ablation"),
    ],
)
def test_what_cannot_be_varied_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        runs(
            Study(**{"design": "ablation", "vary": ("num_heads=1,2",), "widths": (16,), "budgets": (1e11,)} | fields),
            **FACTS,
        )


def test_a_corpus_is_held_down_to_pieces_of_all_of_it(tmp_path: Path) -> None:
    np.arange(20 * PIECE, dtype=np.int32).tofile(tmp_path / "ids.bin")
    data = DataConfig(data=str(tmp_path / "ids.bin"), train_tokens=3 * PIECE - 5)
    whole = open_configured(replace(data, train_tokens=None), vocab_size=20 * PIECE)
    held = open_configured(data, vocab_size=20 * PIECE)
    assert len(held.train) == len(set(held.train.tolist())) == 3 * PIECE - 5
    assert held.fingerprint == whole.fingerprint and len(held.val) == len(whole.val)
    # first, middle and last
    middle = (len(whole.train) - PIECE) // 2
    assert held.train[[0, PIECE, 2 * PIECE]].tolist() == [0, middle, len(whole.train) - PIECE]
    with pytest.raises(ValueError, match="train_tokens=999999999 are more than the"):
        open_configured(replace(data, train_tokens=999_999_999), vocab_size=20 * PIECE)


def test_depth_grows_at_the_least_width_alone_and_parametrizations_know_their_base(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(
        FILE.replace("vary = {", 'depths = [1, 4]\nvary = { parametrization = ["standard", "completep"],')
        .replace(', "d_model/8"]', "]")
        .replace(", tied_head = [true, false]", "")
        + '\n[optim]\nlr_width = "None"\n'
    )
    made = runs(read_study(tmp_path / "s.toml"), **FACTS)
    shapes = {(run.model.d_model, run.model.num_layers) for run in made}
    assert shapes == {(16, 1), (32, 1), (16, 4)} and len(made) == 2 * 2 * 2 * 3
    assert all(run.optim.lr_width is None for run in made)
    for run in made:
        base = (run.model.base_width, run.model.base_depth, run.model.base_head_size)
        heads = run.model.num_heads
        assert heads is not None
        assert base == ((None, None, None) if run.model.parametrization == "standard" else (16, 1, 16 // heads))
