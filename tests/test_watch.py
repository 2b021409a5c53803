"""python -m pytest tests/test_watch.py"""

from pathlib import Path

import pytest

from isoflop.record import Record
from isoflop.study.launch.event import cancel
from isoflop.study.launch.watch import TAIL, Watch, end


def test_progress_is_read_from_the_end_of_the_log(make_run) -> None:
    run = make_run(steps=40)
    log = run / "log.jsonl"
    watch = Watch(run)
    assert watch.look() is None
    log.write_text('{"step": 1, "val_loss": 3.0}\n')
    moved = watch.moved
    assert watch.look() is None and watch.moved > moved
    log.write_text('{"step": 7, "train_loss": 2.5}\n' + "x" * (TAIL // 2) + '\n{"step": 9, "train_l')
    event = watch.look()
    assert event is not None and (event.step, event.steps, event.loss) == (7, 40, 2.5)
    assert watch.look() is None
    # a resumed run cuts its log back
    log.write_text('{"step": 3, "train_loss": 2.75}\n')
    event = watch.look()
    assert event is not None and event.step == 3


def test_what_was_there_before_is_no_progress(make_run) -> None:
    run = make_run(steps=40)
    (run / "log.jsonl").write_text('{"step": 7, "train_loss": 2.5}\n')
    assert Watch(run).look() is None


def test_a_run_whose_folder_does_not_say_its_steps_is_followed_all_the_same(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    (tmp_path / "log.jsonl").write_text('{"step": 7, "train_loss": 2.5}\n')
    event = watch.look()
    assert event is not None and event.step == event.steps == 7


@pytest.mark.parametrize(("status", "kind"), [("complete", "done"), ("diverged", "diverged")])
def test_the_folder_tells_the_end(tmp_path: Path, status: str, kind: str) -> None:
    assert end(tmp_path) is None
    cancel(tmp_path, "no longer wanted")
    event = end(tmp_path)
    assert event is not None and (event.kind, event.reason) == ("cancelled", "no longer wanted")
    values = {"params": {"compute": 1.0}, "tokens": 1, "flops": 1, "loss": 1.0 if status == "complete" else None}
    Record(id="a", status=status, **values).write(tmp_path / "record.json")
    event = end(tmp_path)
    assert event is not None and event.kind == kind
