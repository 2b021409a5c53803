"""Run: python -m pytest tests/test_ledger.py"""

import json
import multiprocessing
from pathlib import Path

import pytest

from isoflop.config import DataConfig, ModelConfig, OptimConfig, RunConfig, TrainConfig
from isoflop.files import write_json
from isoflop.record import Record
from isoflop.study.ledger import LEDGER, LOOK, Amount, Ledger, told
from isoflop.study.study import Study, study_from_tables


def study(**caps: float) -> Study:
    return Study(budgets=(1e9,), **caps)


def done(
    folder: Path, name: str, *, flops: float, seconds: float = 36.0, place: str = "runs", **measured: float
) -> Path:
    run = folder / place / name
    known = {"seconds": seconds, **measured}
    Record(id=name, params={"compute": 1.0}, tokens=1.0, flops=flops, loss=2.0, measured=known).write(
        run / "record.json"
    )
    return run


def begun(folder: Path, name: str, *, flops: float, seconds: float = 36.0) -> Path:
    run = folder / "runs" / name
    config = RunConfig(
        model=ModelConfig(),
        data=DataConfig(data="t"),
        optim=OptimConfig(),
        train=TrainConfig(steps=3),
        data_sha256="ab",
    )
    write_json(run / "config.json", config.to_dict())
    line = {"step": 1, "tokens": 1, "flops": flops, "train_loss": 3.0, "seconds": seconds}
    (run / "log.jsonl").write_text(json.dumps(line) + "\n")
    return run


def wanted(folder: Path, *names: str, flops: float) -> dict[Path, float]:
    return {folder / "runs" / name: flops for name in names}


def test_spent_is_what_done_failed_and_running_runs_used_each_once(tmp_path: Path) -> None:
    done(tmp_path, "a", flops=5e9, seconds=360)
    done(tmp_path, "far", flops=7e9, seconds=360, place="target")
    done(tmp_path, "branch", flops=9e9, seconds=36, spent_flops=2e9)
    begun(tmp_path, "failed", flops=1e9, seconds=36)
    account = Ledger(tmp_path, study(cap_flops=20e9, cap_hours=1.0))
    balance = account.balance()
    assert balance.spent == pytest.approx(Amount(15e9, 0.22))
    assert balance.left == pytest.approx({"FLOPs": 5e9, "hours": 0.78})
    assert "spent 1.5e+10 FLOPs, 0.22 process-hours; reserved 0 FLOPs; left 5e+09 of 2e+10 FLOPs" in told(balance)


def test_a_cap_in_flops_is_reserved_in_order_and_never_exceeded(tmp_path: Path) -> None:
    account = Ledger(tmp_path, study(cap_flops=10e9))
    refused = account.reserve(wanted(tmp_path, "a", "b", "c", flops=4e9))
    assert list(refused.values()) == [
        "the cap of 1e+10 FLOPs leaves 2e+09, and it needs 4e+09; `isoflop study run FOLDER` goes on with a higher "
        "--cap-flops"
    ]
    assert not account.reserve(wanted(tmp_path, "a", "b", flops=4e9)), "the same runs are promised once"
    assert account.balance().reserved.flops == 8e9
    done(tmp_path, "a", flops=4e9)
    assert account.balance().left == {"FLOPs": pytest.approx(2e9)}
    account.release(wanted(tmp_path, "b", flops=4e9))
    assert not account.reserve(wanted(tmp_path, "c", flops=4e9))


def test_a_run_that_goes_on_is_not_asked_for_what_it_used(tmp_path: Path) -> None:
    begun(tmp_path, "a", flops=3e9)
    account = Ledger(tmp_path, study(cap_flops=4e9))
    assert not account.reserve(wanted(tmp_path, "a", flops=4e9))
    assert account.balance().reserved.flops == 1e9


def test_hours_and_money_are_reserved_at_the_rate_of_the_runs_that_are_done(tmp_path: Path) -> None:
    done(tmp_path, "a", flops=1e9, seconds=3600)
    account = Ledger(tmp_path, study(cap_cost=5.0, price_per_hour=2.0))
    refused = account.reserve(wanted(tmp_path, "b", "c", flops=1e9))
    assert list(refused.values()) == [
        "the cap of 5 money leaves 1, and it needs 2; `isoflop study run FOLDER` goes on with a higher --cap-cost"
    ]


def reserve(folder: str, name: str) -> int:
    return len(Ledger(Path(folder), study(cap_flops=10e9)).reserve(wanted(Path(folder), name, flops=3e9)))


def test_parallel_submissions_stay_within_the_cap(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        refused = pool.starmap(reserve, [(str(tmp_path), f"r{number}") for number in range(8)])
    assert sum(refused) == 5
    assert len(json.loads((tmp_path / LEDGER).read_text())) == 3


def test_a_cap_that_is_used_up_is_seen_while_runs_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun(tmp_path, "a", flops=1e9, seconds=7200)
    account = Ledger(tmp_path, study(cap_hours=1.0))
    assert account.exhausted() == (
        "the study's cap of 1 hours is used up; `isoflop study run FOLDER` goes on with a higher --cap-hours"
    )
    assert account.exhausted() is None, f"it looks every {LOOK} seconds"
    assert Ledger(tmp_path, study(cap_hours=3.0)).exhausted() is None


def test_caps_are_a_table_of_the_study_file_and_checked() -> None:
    tables = {"design": {"budgets": [1e9]}, "cap": {"hours": 2.0, "cost": 3.0, "price_per_hour": 0.5}}
    asked = study_from_tables(tables, where="f")
    assert (asked.cap_hours, asked.cap_cost, asked.price_per_hour) == (2.0, 3.0, 0.5)
    with pytest.raises(ValueError, match="cap_cost=3 needs a price; give price_per_hour"):
        study(cap_cost=3.0)
    with pytest.raises(ValueError, match="cap_flops=-1"):
        study(cap_flops=-1.0)


@pytest.mark.parametrize("value", [[1], {"a": "b"}])
def test_a_damaged_ledger_is_told(tmp_path: Path, value: object) -> None:
    write_json(tmp_path / LEDGER, value)
    with pytest.raises(ValueError, match="is no ledger; delete it"):
        Ledger(tmp_path, study()).balance()
