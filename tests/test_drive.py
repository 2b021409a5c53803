"""python -m pytest tests/test_drive.py"""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from isoflop.config import DataConfig, OptimConfig, TrainConfig
from isoflop.flops import compute
from isoflop.presets import preset
from isoflop.record import Record
from isoflop.study import drive
from isoflop.study.failures import forgive
from isoflop.study.launch import EXECUTORS
from isoflop.study.launch.event import Event
from isoflop.study.study import Study


@pytest.fixture
def study(token_folder: Path) -> Study:
    return Study(
        budgets=(1e8, 2e8),
        sizes=2,
        widths=(8, 16, 8, 16),
        target_flops=1e9,
        target_d_model=16,
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        train=TrainConfig(batch_size=1),
    )


def fake(monkeypatch, outcome: dict[int, str]) -> list[Path]:
    """An executor that trains nothing: widths in `outcome` fail with that reason, the others get a record."""
    ran: list[Path] = []

    def execute(folders, *, workers, patience, on_event) -> None:
        for folder in folders:
            ran.append(folder)
            width = int(folder.name.split("-")[0][1:])
            if width in outcome:
                on_event(Event(kind="failed", run=folder, reason=outcome[width]))
                continue
            Record(id=folder.name, params={"compute": 1.0}, tokens=1, flops=1, loss=1.0).write(folder / "record.json")
            on_event(Event(kind="done", run=folder))

    monkeypatch.setitem(EXECUTORS, "local", execute)
    return ran


def test_what_is_done_is_never_redone_and_what_fails_twice_alike_is_left(study, tmp_path: Path, monkeypatch) -> None:
    planned = drive.plan(study, tmp_path)
    assert [run.flops for run in planned] == sorted((run.flops for run in planned), reverse=True)
    ran = fake(monkeypatch, {16: "no luck"})
    lost = drive.drive(planned, on_event=lambda event: None)
    assert len(ran) == 6
    assert [event.reason for event in lost] == ["no luck", "no luck"]
    ran = fake(monkeypatch, {})
    lost = drive.drive(planned, on_event=lambda event: None)
    assert ran == [] and {event.reason for event in lost} == {"not tried: it failed twice in the same way: no luck"}
    assert all(forgive(event.run) for event in lost)
    assert drive.drive(planned, on_event=lambda event: None) == []
    assert {folder.name.split("-")[0] for folder in ran} == {"d16"}
    ran = fake(monkeypatch, {})
    drive.drive(planned, on_event=lambda event: None)
    assert ran == []


def test_the_target_lies_apart_from_the_runs_of_the_law(study: Study, tmp_path: Path) -> None:
    (large,) = drive.plan(study, tmp_path, targets=True)
    assert large.folder.parent == tmp_path / "target"
    assert {run.folder.parent for run in drive.plan(study, tmp_path)} == {tmp_path / "runs"}
    assert large.record is None


def test_a_folder_takes_more_budgets_but_no_other_recipe(study: Study, tmp_path: Path) -> None:
    drive.settle(study, tmp_path)
    more = replace(study, budgets=(1e8, 2e8, 4e8), widths=(8, 16) * 3)
    assert drive.open_study(tmp_path) == study
    drive.settle(more, tmp_path)
    assert drive.open_study(tmp_path) == more
    with pytest.raises(ValueError, match=r"runs of another recipe: optim.lr=0.1 \(there 0.005\); choose another --out"):
        drive.settle(replace(study, optim=OptimConfig(lr=0.1)), tmp_path)
    assert drive.open_study(tmp_path) == more


def test_a_folder_without_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no study"):
        drive.open_study(tmp_path)
    (tmp_path / "runs.csv").write_text("params,tokens,loss")
    with pytest.raises(ValueError, match="is a file, no study; name the folder"):
        drive.open_study(tmp_path / "runs.csv")


def test_the_vocabulary_comes_from_the_tokens(study: Study) -> None:
    odd = replace(study, model=preset("small", vocab_size=999))
    assert drive.with_data(odd).model.vocab_size == 256
    raw = replace(odd, data=DataConfig(data="elsewhere.bin"))
    assert drive.with_data(raw) == raw


def test_a_recentred_study_goes_budget_by_budget_and_its_runs_do_not_move(study: Study, tmp_path: Path) -> None:
    moving = replace(study, budgets=(1e8, 4e8), sizes=3, span=2.0, tokens_per_param=0.2, widths=(), recentre=True)
    drive.settle(moving, tmp_path)
    seen = []
    for wave in drive.waves(moving, tmp_path):
        seen.append(wave)
        for run in wave:
            drive.write_run(run.config, run.folder.parent)
            N = compute(run.config.model) / 6
            record = Record(
                id=run.config.id,
                params={"compute": N},
                tokens=1,
                flops=1,
                loss=math.log(N) ** 0.5,
                budget=run.config.train.flops,
            )
            record.write(run.folder / "record.json")
    assert [len(wave) for wave in seen] == [3, 3]
    smallest = min(compute(run.config.model) / 6 for run in seen[0])
    assert drive._centres(tmp_path) == {4e8: pytest.approx(smallest * 2)}
    assert {run.folder for wave in drive.waves(moving, tmp_path) for run in wave} == {r.folder for w in seen for r in w}


@pytest.mark.slow
def test_a_study_of_trunks_costs_three_fifths_and_its_branches_are_separate_runs(study: Study, tmp_path: Path) -> None:
    """Lengths 3, 7, 10 with a decay of 0.2: [C_max + f·Σ_{i<max} C_i]/ΣC_i = 0.600 (SCIENCE.md, section 4)."""
    wsd = OptimConfig(schedule="wsd", warmup_steps=10, warmup_fraction=0.0, decay_fraction=0.2)
    apart = replace(study, design="grid", budgets=(), widths=(8, 16), lengths=(4800, 11200, 16000), optim=wsd)
    trunks = replace(apart, design="trunk")
    records = {}
    for name, made in (("trunks", trunks), ("apart", apart)):
        drive.settle(made, tmp_path / name)
        waves = list(drive.waves(made, tmp_path / name))
        for wave in waves:
            assert drive.drive(wave, on_event=lambda event: None) == []
        assert [len(wave) for wave in waves] == ([2, 4] if name == "trunks" else [6])
        found = [run.record for wave in waves for run in wave if run.record]
        records[name] = {(record.params["body"], record.tokens): record for record in found}
    spent = sum(record.measured["spent_flops"] for record in records["trunks"].values())
    assert spent / sum(record.flops for record in records["apart"].values()) == pytest.approx(0.6, abs=0.005)
    assert {key: record.loss for key, record in records["trunks"].items()} == {
        key: record.loss for key, record in records["apart"].items()
    }
    groups = [record.group for record in records["trunks"].values()]
    assert sorted(groups.count(group) for group in set(groups)) == [3, 3]
    assert sum(run.flops for run in drive.plan(trunks, tmp_path / "trunks")) == spent
