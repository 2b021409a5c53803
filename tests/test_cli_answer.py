"""python -m pytest tests/test_cli_answer.py"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.files import write_json
from isoflop.record import Records
from isoflop.study.study import Study
from tests.test_questions import batches, head_counts


def folder(tmp_path: Path, made: Records, question: str | None = "heads", noise_scale: float | None = None) -> Path:
    for run in made.runs:
        place = tmp_path / "runs" / run.id
        place.mkdir(parents=True)
        run.write(place / "record.json")
        if noise_scale is not None:
            lines = [json.dumps({"step": step, "train_loss": 2.0, "noise_scale": noise_scale}) for step in (1, 2)]
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
    said = capsys.readouterr().out
    assert "at D = 1e+06 tokens the critical batch is" in said and "noise scale there is 1700 tokens" in said
    assert main(["study", "answer", str(where), "heads", "--at", "1M"]) == 2
    assert "asks for a critical batch, but the question is heads" in capsys.readouterr().err


def test_what_the_runs_cannot_support_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = head_counts(0.03, 0.003)
    where = folder(tmp_path, replace(made, runs=made.runs[:5]))
    assert main(["study", "answer", str(where)]) == 2
    assert "all runs have num_heads 1, so nothing can be compared" in capsys.readouterr().err
