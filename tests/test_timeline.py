"""python -m pytest tests/test_timeline.py"""

import json
import re
import shutil
from pathlib import Path

import pytest

from isoflop.cli.app import main
from isoflop.config import DataConfig, TrainConfig
from isoflop.presets import preset
from isoflop.study import drive
from isoflop.study.study import Study
from isoflop.study.timeline import (
    PLANNED,
    TIMES,
    Stretch,
    note,
    read_planned,
    read_stretches,
    timeline,
    told,
    write_planned,
)


def test_what_a_study_took_leaves_out_when_nobody_drove_it() -> None:
    runs = [Stretch("a", 0, 10), Stretch("b", 0, 4), Stretch("c", 4, 8), Stretch("d", 100, 110)]
    found = timeline(runs)
    assert found is not None
    assert (found.took, found.workers, found.busy) == (20, 2, (10 + 4 + 4 + 10) / 40)
    assert told(found, 75.2) == "planned 1 min 15 s, took 20 s on 2 workers, busy 70% of it"
    assert timeline([]) is None


def test_times_of_a_killed_driver_and_of_the_target_do_not_count(tmp_path: Path) -> None:
    for run, kind in (("a", "started"), ("a", "started"), ("a", "done"), ("b", "started")):
        note(tmp_path / "runs" / run, kind)
    note(tmp_path / "target" / "far", "started")
    note(tmp_path / "target" / "far", "done")
    with (tmp_path / TIMES).open("a") as file:
        file.write('{"at": 3, "ki')
        file.write('{"at": 4, "kind": "done", "run": "runs/b"}\n')
    assert [stretch.run for stretch in read_stretches(tmp_path)] == ["runs/a"]
    assert [stretch.run for stretch in read_stretches(tmp_path, place="target")] == ["target/far"]
    assert read_stretches(tmp_path / "runs") == []


def test_a_plan_that_is_none_is_told(tmp_path: Path) -> None:
    assert read_planned(tmp_path) is None
    (tmp_path / PLANNED).write_text("{}")
    with pytest.raises(ValueError, match=r"plan.json holds no plan; remove it"):
        read_planned(tmp_path)


@pytest.fixture
def study() -> Study:
    return Study(
        design="grid",
        widths=(8, 16),
        lengths=(64, 128),
        model=preset("small", context_length=16),
        data=DataConfig(data="tokens", val_tokens=64),
        train=TrainConfig(batch_size=1),
    )


def test_a_study_is_called_from_elsewhere_and_copied(
    study: Study, token_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    shutil.copytree(token_folder, home / "tokens")
    monkeypatch.chdir(home)
    drive.settle(study, Path("mine"))
    drive.settle(study, Path("mine"))  # the same paths, though written otherwise
    names = {run.config.id for run in drive.plan(study, Path("mine"))}
    monkeypatch.chdir(tmp_path)
    assert {run.config.id for run in drive.plan(drive.open_study(home / "mine"), home / "mine")} == names
    shutil.move(home, tmp_path / "moved")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    there = drive.open_study(Path("../moved/mine"))
    assert there.data.data == str(tmp_path / "moved" / "tokens")
    assert {run.config.id for run in drive.plan(there, Path("../moved/mine"))} == names


@pytest.mark.slow
def test_status_sets_the_plan_beside_what_it_took(
    study: Study, token_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(token_folder, tmp_path / "tokens")
    folder = tmp_path / "mine"
    drive.settle(
        Study.from_dict(study.to_dict() | {"data": {**study.to_dict()["data"], "data": str(tmp_path / "tokens")}}),
        folder,
    )
    write_planned(folder, 5.0)
    assert main(["study", "run", str(folder)]) == 0
    capsys.readouterr()
    assert main(["study", "status", str(folder)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"planned 5 s, took \d+ s on (1 worker|2 workers), busy \d+% of it", said), said
    kinds = [json.loads(line)["kind"] for line in (folder / TIMES).read_text().splitlines()]
    assert sorted(kinds) == ["done"] * 4 + ["started"] * 4
