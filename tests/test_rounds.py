"""python -m pytest tests/test_rounds.py"""

import json
import math
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isoflop.cli import rounds as cli
from isoflop.cli.app import main
from isoflop.config import DataConfig, OptimConfig, TrainConfig, read_run
from isoflop.flops import compute, params_by_convention
from isoflop.law.repetition import MUCH
from isoflop.lm.journal import trained_twice
from isoflop.presets import preset
from isoflop.record import Record
from isoflop.study import design, drive, propose
from isoflop.study.launch import EXECUTORS
from isoflop.study.launch.event import Event
from isoflop.study.ledger import Ledger
from isoflop.study.rounds import ROUNDS, Known, Round, keep, read_rounds
from isoflop.study.study import Study
from tests.studies import true_loss

KNOWN = Known(runs=12, exponent=0.5, exponent_low=0.4, exponent_high=0.6, params=1e5, loss=2.0, low=1.9, high=2.1)
"""What somebody may know before a round."""


@pytest.fixture
def study(token_folder: Path) -> Study:
    widths = (8, 12, 16, 24)
    return Study(
        budgets=(1e9, 2e9, 4e9),
        sizes=4,
        widths=widths * 3,
        model=preset("small", context_length=16),
        data=DataConfig(data=str(token_folder), val_tokens=256),
        train=TrainConfig(batch_size=4),
    )


class Fake:
    """An executor that trains nothing: losses are those of a known law, with a little noise."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.stop_after: int | None = None
        self.fail: str | None = None

    def __call__(self, folders: Any, *, workers: Any, patience: Any, on_event: Any) -> None:
        for folder in folders:
            if len(self.ran) == self.stop_after:
                raise KeyboardInterrupt
            if self.fail:
                on_event(Event(kind="failed", run=folder, reason=self.fail))
                continue
            config = read_run(folder)
            assert config.train.flops is not None
            N, C = compute(config.model) / 6, config.train.flops
            noise = math.exp(0.003 * math.sin(1e3 * N + C + config.train.seed))
            counts, D = params_by_convention(config.model), C / (6 * N)
            record = Record(
                id=folder.name,
                params=counts,
                tokens=D,
                flops=C,
                loss=noise * true_loss(N, D),
                budget=C,
                measured={"seconds": 1.0},
            )
            record.write(folder / "record.json")
            self.ran.append(folder.name)
            on_event(Event(kind="done", run=folder))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    executor = Fake()
    monkeypatch.setitem(EXECUTORS, "local", executor)
    monkeypatch.setattr(drive, "train_tokens", lambda study: 10**9)  # its law knows no repetition
    return executor


@pytest.fixture
def folder(study: Study, tmp_path: Path, fake: Fake) -> Path:
    drive.settle(study, tmp_path / "mine")
    drive.drive(drive.plan(study, tmp_path / "mine"), on_event=lambda event: None)
    fake.ran.clear()
    return tmp_path / "mine"


def asked(folder: Path, *more: str) -> list[str]:
    return ["next", str(folder), "--run", "--flops", "1.2e11", "--smallest", "4e9", *more]


def test_rounds_go_until_the_allowance_is_spent(
    folder: Path, study: Study, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(asked(folder)) == 0
    out = capsys.readouterr().out
    made = read_rounds(folder)
    assert [one.number for one in made] == list(range(1, len(made) + 1)) and 2 <= len(made) <= 3
    assert [f"round {one.number}: " in out for one in made] == [True] * len(made)
    assert "the allowance is spent" in out and "the interval of the loss went from ±" in out
    assert "could contradict the law" in out and "measured" in out
    spent = cli.charged(folder, study, made)
    assert 0.6 * 1.2e11 < spent <= 1.2e11
    assert len(fake.ran) == len(set(fake.ran)) == sum(len(one.widths) for one in made)
    last = made[-1].after
    assert last is not None and last.runs == 12 + len(fake.ran)
    assert last.width < made[0].before.width
    assert {one.target for one in made} == {10 * 0.2 * 1.2e11}
    # the same command again trains nothing, and tells the same if asked
    ran = len(fake.ran)
    assert main(asked(folder)) == 0
    again = capsys.readouterr().out
    assert again.startswith(f"rounds 1–{len(made)} as before: ") and "d_model" not in again
    assert main(asked(folder, "--all-rounds")) == 0
    assert capsys.readouterr().out == out and len(fake.ran) == ran
    # other commands know these runs too
    assert main(["study", "status", str(folder), "--json"]) == 0
    rounds = [run["round"] for run in json.loads(capsys.readouterr().out)["runs"]]
    assert rounds == sorted(rounds, key=lambda number: number or 0) and rounds.count(None) == 12
    assert len(rounds) == 12 + ran and rounds[-1] == len(made)


def test_a_round_under_way_goes_on_and_is_charged_once(
    folder: Path, study: Study, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.stop_after = 3
    assert main(asked(folder)) == 130
    (under_way,) = read_rounds(folder)
    assert under_way.after is None
    fake.stop_after = None
    assert main(asked(folder, "--json")) == 0
    told = json.loads(capsys.readouterr().out)["rounds"]
    made = read_rounds(folder)
    assert replace(made[0], after=None) == under_way
    assert [one["round"] for one in told] == [one.number for one in made]
    assert len(fake.ran) == len(set(fake.ran)) == sum(len(one["runs"]) for one in told)
    assert {run["id"] for one in told for run in one["runs"]} == set(fake.ran)
    assert sum(one["flops"] for one in told) == pytest.approx(cli.charged(folder, study, made))
    assert all(run["loss"] and run["status"] == "complete" for one in told for run in one["runs"])
    assert told[0]["after"]["runs"] == told[1]["before"]["runs"] == 12 + len(told[0]["runs"])


def test_rounds_end_when_the_interval_is_narrow_enough(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(asked(folder, "--until-width", "0.5")) == 0
    assert "as narrow as asked" in capsys.readouterr().out
    assert read_rounds(folder) == []


def test_a_run_that_fails_is_told_and_charged_what_it_used(
    folder: Path, study: Study, fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.fail = "no luck"
    with pytest.raises(SystemExit) as left:
        main(asked(folder))
    assert left.value.code == 1 and "no luck" in capsys.readouterr().err
    (made,) = read_rounds(folder)
    assert cli.charged(folder, study, [made]) == 0
    assert Ledger(folder, study).charges().keys() == {
        f"runs/{run.name}" for run in folder.glob("runs/*") if (run / "record.json").exists()
    }
    fake.fail = None
    assert main(["study", "retry", str(folder)]) == 0
    assert main(asked(folder)) == 0
    assert read_rounds(folder)[0].after is not None


def test_proposed_runs_are_a_study(study: Study, folder: Path) -> None:
    pairs = replace(study, design="next", widths=(8, 8, 16), budgets=(1e9, 1e9, 1e9))
    runs = design.runs(pairs, data_sha256="x", train_tokens=10**6)
    assert [(run.model.d_model, run.train.seed) for run in runs] == [(8, 0), (8, 1), (16, 0)]
    with pytest.raises(ValueError, match="design=next needs a width and a budget for each run, but has 3 widths and 2"):
        replace(pairs, budgets=(1e9, 1e9))
    with pytest.raises(ValueError, match="design=next names each run's width and budget; leave lengths"):
        replace(pairs, recentre=True)


def test_two_controllers_share_a_round(folder: Path, fake: Fake) -> None:
    fake.stop_after = 0
    assert main(asked(folder)) == 130
    (first,) = read_rounds(folder)
    assert keep(folder, replace(first, target=1.0)) == first
    done = replace(first, after=first.before)
    assert keep(folder, done) == done and keep(folder, replace(done, after=None)) == done
    assert read_rounds(folder) == [done]
    (folder / ROUNDS).write_text('[{"number": 1}]')
    with pytest.raises(ValueError, match=r"holds no rounds .*; was it written by another version"):
        read_rounds(folder)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--rounds", "0"], "rounds=0 must be 1 or more"),
        (["--flops", "0"], "--flops 0 must be a positive, finite number"),
        (["--smallest", "0"], "--smallest 0 must be a positive, finite number"),
        (["--until-width", "0"], "until_width=0.0 above 0"),
        (["--params-count", "body"], "--run counts N as compute"),
    ],
)
def test_wishes_that_cannot_be_are_refused(
    folder: Path, more: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(asked(folder, *more)) == 2
    assert said in capsys.readouterr().err


def test_rounds_need_a_study_of_separate_runs(
    study: Study, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trunks = replace(
        study, design="trunk", budgets=(), lengths=(6400, 12800), widths=(8, 16), optim=OptimConfig(schedule="wsd")
    )
    drive.settle(trunks, tmp_path / "trunks")
    assert main(["next", str(tmp_path / "trunks"), "--flops", "1e10", "--run"]) == 2
    assert "a study of design=trunk has none of; leave --run out" in capsys.readouterr().err
    assert main(["next", str(folder), "--flops", "1e10", "--rounds", "2"]) == 2
    assert "belong to --run; add it" in capsys.readouterr().err


@pytest.mark.slow
def test_a_killed_command_goes_on_and_trains_nothing_twice(study: Study, tmp_path: Path) -> None:
    small = replace(study, budgets=(1e8, 2e8, 4e8), train=TrainConfig(batch_size=1, eval_every=10_000))
    folder = tmp_path / "mine"
    drive.settle(small, folder)
    assert drive.drive(drive.plan(small, folder), on_event=lambda event: None) == []
    command = [sys.executable, "-m", "isoflop", "next", str(folder), "--run", "--flops", "4e9", "--most", "4", "--json"]
    first = subprocess.Popen(command)
    while first.poll() is None and len(list(folder.glob("runs/*/log.jsonl"))) < 14:
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)["rounds"]
    assert len(told) >= 2 and all(run["status"] == "complete" for one in told for run in one["runs"])
    assert sum(one["flops"] for one in told) <= 4e9
    assert [said for run in drive.plan(small, folder) if (said := trained_twice(run.folder))] == []


def test_rounds_leave_runs_out_that_repeat_their_tokens_too_often(study: Study, folder: Path) -> None:
    fitted = propose.fit_folder(folder, "chinchilla")
    wishes: dict[str, Any] = {"number": 1, "allowance": 1.2e11, "target": 1e11, "smallest": 4e9}
    every = propose.propose(study, fitted, KNOWN, unique=1e9, **wishes)
    lengths = sorted(
        C / compute(design.run_of(study, d, C).model) for d, C in zip(every.widths, every.budgets, strict=True)
    )
    assert every.left_out == 0 and lengths[0] < lengths[-1]
    some = propose.propose(study, fitted, KNOWN, unique=(lengths[0] + lengths[-1]) / 2 / MUCH, **wishes)
    assert len(some.widths) == len(some.why) == len(every.widths) - some.left_out > 0 < some.left_out
    with pytest.raises(ValueError, match="would read the 10 training tokens more than 4 times, and no fit takes those"):
        propose.propose(study, fitted, KNOWN, unique=10, **wishes)


def test_what_a_round_goes_without_is_told_of_the_round_that_is_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # another controller wrote its proposal down first
    monkeypatch.setattr(cli, "keep", lambda folder, made: keep(folder, replace(made, left_out=2)))
    assert main(asked(folder, "--rounds", "1", "--json")) == 0
    said = capsys.readouterr()
    what = "without 2 proposed runs that would have repeated the training tokens more than 4 times"
    assert f"round 1 goes {what}" in said.err
    assert [one["left_out"] for one in json.loads(said.out)["rounds"]] == [2]
    assert main(asked(folder, "--rounds", "1", "--all-rounds")) == 0
    assert f"  {what}; no fit takes those" in capsys.readouterr().out


def test_a_refusal_after_trained_rounds_tells_the_rounds(
    folder: Path, fake: Fake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    refuse, fit_folder = [1], propose.fit_folder

    def fit_some(where: Path, law: str) -> Any:
        if refuse and not refuse.pop():
            return fit_folder(where, law)
        raise ValueError("no fit any more")

    monkeypatch.setattr(propose, "fit_folder", fit_some)
    assert main(asked(folder, "--json")) == 2
    assert capsys.readouterr().out == ""  # nothing was trained
    refuse[:] = [1, 0]
    assert main(asked(folder, "--json")) == 2
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert "isoflop: no fit any more" in said.err and told["ended"] == "no fit any more"
    (first,) = told["rounds"]
    assert first["after"] is None and {run["id"] for run in first["runs"]} == set(fake.ran) and fake.ran
    monkeypatch.setattr(propose, "fit_folder", fit_folder)
    assert main(asked(folder, "--rounds", "1", "--json")) == 0
    assert json.loads(capsys.readouterr().out)["rounds"][0]["after"]["runs"] == 12 + len(fake.ran)


def test_the_runs_of_rounds_stay_what_they_are(study: Study, folder: Path) -> None:
    drive.settle(replace(study, aspect=8.0), folder)
    drive.settle(study, folder)
    made = Round(number=1, widths=(8,), budgets=(4e9,), expected=(2.0,), why=("far",), target=1e11, before=KNOWN)
    keep(folder, made)
    (folder / ROUNDS).write_text((folder / ROUNDS).read_text().replace('"left_out": 0,', ""))
    assert read_rounds(folder) == [made]  # as an older version wrote it
    with pytest.raises(ValueError, match=r"would be others by aspect=8.0 \(there None\); leave that as it is"):
        drive.settle(replace(study, aspect=8.0), folder)
