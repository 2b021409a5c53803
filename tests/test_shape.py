"""python -m pytest tests/test_shape.py"""

import numpy as np
import pytest

from isoflop.config import ModelConfig
from isoflop.flops import compute, count_params, params_by_convention
from isoflop.law.shape import OUTSIDE, REACH, SHARE, SLACK, Wishes, in_family, model_at, nearest, outside, shape, shapes
from isoflop.presets import preset


@pytest.mark.parametrize("counted", ["compute", "body", "body+head", "total"])
def test_the_grid_counts_as_the_model_does(counted: str) -> None:
    base, wishes = preset("llama", vocab_size=1000), Wishes(head_size=32, aspect=40)
    grid = shapes(counted, 5e6, base, wishes)
    for i in range(0, len(grid.N), max(1, len(grid.N) // 7)):
        model = shape(base, 32, int(grid.d_model[i]), int(grid.num_layers[i]))
        kinds = params_by_convention(model)
        assert (grid.N[i], grid.total[i], grid.flops[i]) == (kinds[counted], kinds["total"], compute(model))
        assert model.head_size == 32


def test_the_grid_keeps_to_the_aspect_and_surrounds_the_size() -> None:
    grid = shapes("total", 1e9, ModelConfig(), Wishes())
    assert grid.N.min() >= 1e9 / REACH and grid.N.max() > 1e9
    aspect = grid.d_model / grid.num_layers
    assert aspect.min() >= 64 / SLACK - 1e-9 and aspect.max() <= 64 * SLACK + 1e-9
    assert np.abs(np.log(grid.N / 1e9)).min() < 0.02


def test_max_params_is_kept_or_refused() -> None:
    assert shapes("total", 1e9, ModelConfig(), Wishes(max_params=2e8)).total.max() <= 2e8
    with pytest.raises(ValueError, match=r"max_params=1e\+03 is less than the smallest shape, .* d_model=64"):
        shapes("total", 1e9, ModelConfig(), Wishes(max_params=1000))


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"head_size": 0}, "head_size=0 must be a positive, finite number"),
        ({"aspect": -1}, "aspect=-1 must be a positive, finite number"),
        ({"unique_tokens": float("nan")}, "unique_tokens=nan must be a positive, finite number"),
        ({"aspect": 1e-5}, "aspect=1e-05 is d_model over num_layers; give a number from 1 to 4096"),
        ({"head_size": 16, "num_heads": 4}, "head_size=16 and num_heads=4 fix d_model between them"),
        ({"tokens_per_param": 20, "inference_tokens": 1e12}, "tokens_per_param=20 fixes what inference_tokens=1e"),
    ],
)
def test_wishes_that_cannot_be(wishes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wishes(**wishes)


def test_of_equally_good_shapes_the_wanted_aspect_wins() -> None:
    grid = shapes("total", 1e8, ModelConfig(), Wishes())
    chosen = nearest(np.zeros(len(grid.N)), 1e-4, grid, Wishes())
    assert grid.d_model[chosen] / grid.num_layers[chosen] == 64
    best = nearest(np.arange(len(grid.N), dtype=float), 0.5, grid, Wishes())
    assert best == 0


def test_ratios_within_a_layer_are_kept() -> None:
    base = ModelConfig(d_model=256, num_heads=8, num_kv_heads=2, d_ff=768)
    grid = shapes("total", 1e7, base, Wishes())
    assert set(grid.d_model % (32 * 4)) == {0.0}
    made = shape(base, 32, 512, 6)
    assert (made.heads, made.kv_heads, made.d_ff) == (16, 4, 1536)


def test_sizes_beyond_every_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1e\+20 parameters is beyond every grid"):
        shapes("total", 1e20, preset("llama"), Wishes())


@pytest.mark.parametrize("N", [3e5, 3e6, 3e7, 3e8, 3e9])
def test_a_vocabulary_that_nobody_said_leaves_room_for_a_body(N: float) -> None:
    model = outside("total", N, preset("llama"), Wishes(), {})
    grid = shapes("total", N, model, Wishes())
    at = int(np.abs(np.log(grid.N / N)).argmin())
    found = count_params(shape(model, model.head_size, int(grid.d_model[at]), int(grid.num_layers[at])))
    assert found.body >= (1 - SHARE) * found.total and found.total == pytest.approx(N, rel=0.15)
    assert (model.vocab_size == OUTSIDE[0]["vocab_size"]) == (N >= 3e8)


def test_a_vocabulary_that_was_said_is_kept() -> None:
    assert outside("total", 3e5, preset("llama"), Wishes(), {"vocab_size": 50_000}).vocab_size == 50_000


def test_runs_of_one_depth_and_as_many_heads_are_a_family() -> None:
    models = [vars(preset("small", d_model=width, num_heads=2)) for width in (16, 24, 52)]
    kept = in_family(Wishes(), models)
    assert (kept.num_layers, kept.num_heads) == (2, 2)
    base = preset("small", d_model=52, num_heads=2)
    grid = shapes("compute", 1e5, base, kept)
    assert set(grid.num_layers) == {2} and set(np.diff(np.unique(grid.d_model))) == {4}
    built = model_at(grid, 0, base, kept)
    assert built.heads == 2 and built.num_layers == 2 and built.d_model == grid.d_model[0]
    wished = in_family(Wishes(num_layers=3, head_size=8), models)
    assert (wished.num_layers, wished.num_heads) == (3, None)
    varied = [*models, vars(preset("small", d_model=64, num_heads=4, num_layers=4))]
    assert in_family(Wishes(), varied) == Wishes(aspect=16.0)
    assert in_family(Wishes(), models[:1]) == Wishes()
