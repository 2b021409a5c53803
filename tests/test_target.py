"""python -m pytest tests/test_target.py"""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.app import main
from isoflop.cli.target import WANTED, Wanted, asked, read_model, records_of, with_shape
from isoflop.config import ModelConfig
from isoflop.flops import compute, params_by_convention
from isoflop.presets import preset
from tests.studies import write_study

NOTHING: dict[str, Any] = {"params": None, "model": None, "count": None, "tokens": None, "flops": None}
SHAPE = preset("small", d_model=64)


def ask(convention: str = "compute", **given: Any) -> tuple[float, float, float]:
    return asked(convention, **{**NOTHING, **given})


def test_two_of_model_tokens_and_flops_make_a_run() -> None:
    assert ask(params=1e6, tokens=2e7) == pytest.approx((1e6, 2e7, 1.2e14))
    assert ask(params=1e6, flops=1.2e14) == pytest.approx((1e6, 2e7, 1.2e14))
    assert ask(tokens=2e7, flops=1.2e14) == pytest.approx((1e6, 2e7, 1.2e14))


def test_a_shape_is_counted_as_the_source_counts_and_costs_what_it_costs() -> None:
    for convention in ("compute", "body", "body+head", "total"):
        N, D, C = ask(convention, model=SHAPE, tokens=1e6)
        assert pytest.approx((params_by_convention(SHAPE)[convention], 1e6, compute(SHAPE) * 1e6)) == (N, D, C)
        assert ask(convention, model=SHAPE, flops=C)[1] == pytest.approx(1e6)


def test_a_table_does_not_say_its_count_so_the_user_must() -> None:
    with pytest.raises(ValueError, match=r"does not say how it counts parameters.*--params-count"):
        ask("given", model=SHAPE, tokens=1e6)
    N, D, C = ask("given", model=SHAPE, tokens=1e6, count="body")
    assert pytest.approx((params_by_convention(SHAPE)["body"], 6 * N * D)) == (N, C)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "say which run"),
        ({"tokens": 1e6}, "say which run"),
        ({"params": 1e6}, "say how long it trains"),
        ({"params": 1e6, "tokens": 1e6, "flops": 1e9}, "say how long it trains"),
        ({"params": 1e6, "model": SHAPE, "tokens": 1e6}, "both name the model"),
        ({"params": -1.0, "tokens": 1e6}, r"--params -1 must be a positive, finite number"),
        ({"params": 1e6, "tokens": math.nan}, r"--tokens nan must be a positive, finite number"),
    ],
)
def test_too_little_or_too_much_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ask(**given)


def test_a_model_is_read_from_a_run_or_from_its_fields(tmp_path: Path) -> None:
    course = {"vocab_size": 32000, "context_length": 2048, "d_model": 768, "num_layers": 12, "num_heads": 12}
    course |= {"d_ff": 3072, "attn_pdrop": 0.1, "residual_pdrop": 0.1}
    for name, value in {"fields.json": course, "config.json": {"model": course, "train": {}}}.items():
        (tmp_path / name).write_text(json.dumps(value))
        assert read_model(tmp_path / name) == ModelConfig(**course)


@pytest.mark.parametrize("text", ['{"width": 3}', "[1]"])
def test_a_file_that_is_no_model_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ValueError, match=r"m.json is no model .*its fields are vocab_size"):
        read_model(tmp_path / "m.json")


def test_a_shape_starts_from_the_study_the_preset_or_the_file(tmp_path: Path) -> None:
    def command(source: str = "", *, run: Wanted = WANTED) -> None: ...

    def shape(*args: str) -> dict[str, Any]:
        run = getattr(with_shape(command)(args), "keywords", {}).get("run")
        return {} if run is None else {"model": run.model, "shaped": run.shaped}

    study = write_study(tmp_path / "s", fitted=False)
    assert shape(str(study), "--params", "1e6") == {}
    assert shape(str(study), "--d-model", "96") == {"model": ModelConfig(), "shaped": True}
    assert shape("--preset", "70M")["model"] == preset("70M")
    (tmp_path / "m.json").write_text('{"d_model": 192}')
    assert shape(f"--model_config={tmp_path / 'm.json'}")["model"].d_model == 192
    with pytest.raises(ValueError, match="both name the model"):
        shape("--preset", "70M", "--model-config", "m.json")


def test_a_fit_holds_its_runs(tmp_path: Path) -> None:
    study = write_study(tmp_path / "s")
    assert len(records_of(str(study / "fit.json"))) == len(records_of(str(study))) == 20


def odd_table(path: Path) -> str:
    """Four budgets of five sizes, whose N stands under a name that nobody guesses."""
    rows = ["weights,n_tokens,val_loss"]
    for C in (1e17, 1e18, 1e19, 1e20):
        for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
            n = factor * (C / 60) ** 0.5
            rows.append(f"{n},{C / 6 / n},{2 + 400 * n**-0.35 + 900 * (C / 6 / n) ** -0.35}")
    path.write_text("\n".join(rows))
    return str(path)


@pytest.mark.parametrize(
    "command",
    [
        ["fit", "T"],
        ["diagnose", "T"],
        ["predict", "T", "--params", "1e9", "--tokens", "1e12"],
        ["optimal", "T", "--flops", "1e22"],
        ["plan", "T", "--flops", "1e22"],
        ["next", "T", "--flops", "1e20"],
        ["backtest", "T"],
        ["compare", "T", "T"],
        ["lock", "T", "--params", "1e9", "--tokens", "1e12", "--out", "f.json"],
    ],
    ids=lambda command: command[0],
)
def test_columns_are_named_in_every_command(command: list[str], tmp_path: Path, capsys) -> None:
    args = [odd_table(tmp_path / "t.csv") if part == "T" else part for part in command]
    assert main([*args, "--params-column", "weight"]) == 2
    assert "has no column 'weight' to be its params; it has weights, n_tokens" in capsys.readouterr().err


def test_what_was_guessed_goes_to_the_error_stream(tmp_path: Path, capsys) -> None:
    table = odd_table(tmp_path / "t.csv")
    args = ["predict", table, "--params", "1e9", "--tokens", "1e12", "--params-column", "weights", "--json"]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert err == f"{table}: N from column weights, D from column n_tokens, C = 6ND, L from column val_loss\n"
    assert json.loads(out)["loss"] == pytest.approx(2.33, abs=0.05)


def test_a_fit_has_no_columns(tmp_path: Path, capsys) -> None:
    study = write_study(tmp_path / "s")
    command = ["optimal", str(study / "fit.json"), "--flops", "1e15", "--params-column", "n"]
    assert main(command) == 2
    assert "is a fit, which holds its runs already; leave --params-column out" in capsys.readouterr().err
