"""python -m pytest tests/test_cli_answer.py"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.cli.transfer import progress
from isoflop.config import DataConfig, TrainConfig, write_run
from isoflop.files import write_json
from isoflop.flops import params_by_convention
from isoflop.presets import preset
from isoflop.record import Record, Records
from isoflop.sources import read
from isoflop.study import drive
from isoflop.study.study import Study
from tests.questions import batches, head_counts


def folder(tmp_path: Path, made: Records, question: str | None = "heads", noise_scale: float | None = None) -> Path:
    for run in made.runs:
        place = tmp_path / "runs" / run.id
        place.mkdir(parents=True)
        run.write(place / "record.json")
        if noise_scale is not None:
            lines = [json.dumps({"step": step, "train_loss": 2.0, "noise_scale": noise_scale}) for step in range(1, 9)]
            (place / "log.jsonl").write_text("\n".join(lines))
    study = Study(budgets=(2e11,), question=question)  # type: ignore[arg-type]
    write_json(tmp_path / "study.json", study.to_dict())
    return tmp_path


def test_the_question_of_a_study_is_answered(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    where = folder(tmp_path, head_counts(0.03, 0.003))
    assert main(["study", "answer", str(where)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("How many heads?") and "20 runs" in said and "arXiv:2002.07028" in said
    assert (where / "figures" / "heads.png").exists()
    assert main(["study", "answer", str(where), "--json", "--lang", "en"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decided"] and told["critical_batch"] is None and len(told["numbers"]["cells"][0]["heads"]) == 4


def test_another_question_may_be_asked(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    where = folder(tmp_path, batches(2000.0, 1e-3), question=None, noise_scale=1700.0)
    assert main(["study", "answer", str(where)]) == 2
    assert "does not say what it asks; name the question" in capsys.readouterr().err
    assert main(["study", "answer", str(where), "batch", "--at", "1M"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "at D = 1e+06 tokens the critical batch is" in said and "is 1700 tokens" in said
    assert main(["study", "answer", str(where), "batch", "--at", "1M", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["critical_batch"]
    assert told["low"] < told["value"] < told["high"]
    assert main(["study", "answer", str(where), "heads", "--at", "1M"]) == 2
    assert "asks for a critical batch, but the question is heads" in capsys.readouterr().err


def test_what_the_runs_cannot_support_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = head_counts(0.03, 0.003)
    where = folder(tmp_path, replace(made, runs=made.runs[:5]))
    assert main(["study", "answer", str(where)]) == 2
    assert "all runs have num_heads 1, so nothing can be compared" in capsys.readouterr().err


def test_a_study_that_asks_ends_with_its_answer(
    token_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    study = Study(
        question="heads",
        design="ablation",
        vary=("num_heads=1,2",),
        seeds=3,
        widths=(8,),
        lengths=(1600,),
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        train=TrainConfig(batch_size=1),
    )
    drive.settle(study, tmp_path)
    for i, run in enumerate(drive.plan(study, tmp_path)):
        params, config = params_by_convention(run.config.model), run.config.to_dict()
        loss = 2.0 + 0.1 * (run.config.model.num_heads or 0) + 0.001 * i
        made = Record(id=run.config.id, params=params, tokens=1600.0, flops=run.flops, loss=loss, config=config)
        made.write(run.folder / "record.json")
    assert main(["study", "run", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "num_heads  loss, nats per token, of each seed" in said and "6 of 6 runs complete" in said
    assert "1.6e+03 tokens        8       2            1    2.1" in said
    assert "At d_model 8 and 1,600 tokens 1 head of 8 is best." in said
    assert main(["study", "status", str(tmp_path)]) == 0
    assert "num_heads" in capsys.readouterr().out


def test_the_coordinate_check_is_made_once_and_gates_the_rate(
    token_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from isoflop.study import gate

    monkeypatch.setattr(gate, "TIMES", (1, 4))
    monkeypatch.setattr(gate, "SEEDS", 1)
    monkeypatch.setattr(gate, "CHECKED_TRAIN", TrainConfig(steps=2, batch_size=1))
    study = Study(
        question="rate",
        design="ablation",
        vary=("parametrization=standard,mup", "lr=0.01,0.02,0.04"),
        widths=(8, 16),
        lengths=(1600,),
        model=preset("small", context_length=16, num_layers=1),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        train=TrainConfig(batch_size=1),
    )
    drive.settle(study, tmp_path)
    for run in drive.plan(study, tmp_path):
        params, config = params_by_convention(run.config.model), run.config.to_dict()
        loss = 2.0 - 0.001 * run.config.model.d_model + abs(run.config.optim.lr - 0.02)
        made = Record(id=run.config.id, params=params, tokens=1600.0, flops=run.flops, loss=loss, config=config)
        write_run(run.config, tmp_path / "runs")
        made.write(run.folder / "record.json")
    assert main(["study", "answer", str(tmp_path), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)["numbers"]["parametrizations"]
    assert {row["parametrization"]: len(row["checks"]) for row in first} == {"standard": 0, "mup": 1}
    assert (tmp_path / "coordcheck.json").exists()
    monkeypatch.setattr(gate, "measure", None)  # it is read from now on
    assert main(["study", "answer", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["numbers"]["parametrizations"] == first
    assert gate.gate(tmp_path / "runs", read(str(tmp_path)).runs, progress=partial(progress, quiet=True)) == []
