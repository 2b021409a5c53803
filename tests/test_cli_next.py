"""python -m pytest tests/test_cli_next.py"""

import json
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli.app import main
from isoflop.config import DataConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.flops import compute, params_by_convention
from isoflop.presets import preset
from isoflop.record import Record

MODEL = preset("small", num_heads=2, norm_gain=True)
RECIPE = RunConfig(
    model=MODEL,
    data=DataConfig(data="tokens", val_tokens=1024),
    optim=OptimConfig(lr=0.007),
    train=TrainConfig(batch_size=8, eval_every=7, flops=1e9),
    data_sha256="x",
)


@pytest.fixture
def table(tmp_path: Path) -> str:
    rows = ["params,tokens,loss"]
    for C in (1e17, 1e18, 1e19):
        for factor in (0.25, 0.5, 1.0, 2.0, 4.0):
            n = factor * (C / 120) ** 0.5
            rows.append(f"{n!r},{C / 6 / n!r},{2 + 400 * n**-0.35 + 900 * (C / 6 / n) ** -0.35!r}")
    (tmp_path / "runs.csv").write_text("\n".join(rows))
    return str(tmp_path / "runs.csv")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Runs of a study of ours with two layers each."""
    for width in (32, 48, 64, 96):
        for C in (1e12, 1e13, 1e14):
            model = replace(MODEL, d_model=width)
            n, d = compute(model) / 6, C / compute(model)
            loss = 1 + 40 * n**-0.35 + 90 * d**-0.35
            config = asdict(replace(RECIPE, model=model))
            record = Record(
                id=f"{width}-{C:g}", params=params_by_convention(model), tokens=d, flops=C, loss=loss, config=config
            )
            record.write(tmp_path / "runs" / record.id / "record.json")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(["next", *args]) == 2
    return capsys.readouterr().err


def test_next_runs_of_a_table(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["next", table, "--flops", "1e21", "--most", "9"]) == 0
    out = capsys.readouterr().out
    assert "9 runs for" in out and "could contradict the law" in out and "ln N*" in out and "→" in out
    assert "isoflop train" not in out
    assert main(["next", table, "--flops", "1e21", "--json", "--noise", "0.01", "--law", "coupled"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["noise"] == 0.01 and told["runs"][0]["flops"] == pytest.approx(2e20)
    assert told["runs"][0]["command"] is None


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "0"])
def test_numbers_that_cannot_be_are_refused(value: str, table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--flops {value} must be a positive, finite number" in refused(capsys, table, f"--flops={value}")
    assert f"smallest={value} must be" in refused(capsys, table, "--flops", "1e21", f"--smallest={value}")


def test_an_unknown_law_is_refused(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--law chinchila is not known; choose one of" in refused(capsys, table, "--flops", "1", "--law", "chinchila")


def test_own_runs_get_shapes_and_commands(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["next", str(study), "--flops", "1e15", "--most", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    made: list[tuple[Any, ...]] = []

    def catch(*started: Any) -> None:
        *_, out, data, model, optim, train = started
        made.append((out, data, model, optim, train))
        raise ValueError("caught")

    monkeypatch.setattr("isoflop.cli.train._started", catch)
    for run in told["runs"][:2]:
        assert main(shlex.split(run["command"])[1:]) == 2
        out, data, model, optim, train = made[-1]
        assert (model.d_model, model.num_layers, model.heads) == (run["d_model"], run["num_layers"], run["num_heads"])
        assert (out, model) == (study / "runs", replace(MODEL, d_model=run["d_model"]))
        assert (data, optim) == (RECIPE.data, RECIPE.optim)
        assert train == replace(RECIPE.train, flops=train.flops, eval_every=None, seed=train.seed)
        assert train.flops == pytest.approx(run["flops"], rel=1e-5)
        assert run["params"] == params_by_convention(model)["compute"]
        assert run["tokens"] == pytest.approx(run["flops"] / compute(model))
    seeds = [(run["d_model"], run["flops"], re.findall(r"--seed (\d+)", run["command"])[0]) for run in told["runs"]]
    assert len(set(seeds)) == len(seeds)
    # none is the seed of a run that is there: the same run again would be no other draw
    assert min(int(seed) for _, _, seed in seeds) == RECIPE.train.seed + 1
    assert main(["next", str(study), "--flops", "1e15"]) == 0
    rows = [
        line.split() for line in capsys.readouterr().out.splitlines() if line.split()[1:3] and line.split()[0].isdigit()
    ]
    shapes = [tuple(row[1:7]) for row in rows if len(row) > 7]
    assert len(set(shapes)) == len(shapes) > 1
    capsys.readouterr()
    assert main(["next", str(study), "--flops", "1e15", "--most", "3"]) == 0
    out = capsys.readouterr().out
    assert "d_model layers heads" in out and "isoflop train --preset small" in out and "--norm-gain" in out
