"""python -m pytest tests/test_cli_status.py"""

import dataclasses

import pytest

from isoflop.cli.status import Row, counts, reasons, summary, table

ROW = Row(
    id="d16-l2-0123456789",
    place="-",
    seed=0,
    d_model=16,
    num_layers=2,
    setting="",
    params=1.23e4,
    tokens=1.35e6,
    budget=1e11,
    unit="flops",
    flops=1e11,
    done=1.0,
    loss=1.9001,
    state="complete",
)


def row(number: int, **changes: object) -> Row:
    return dataclasses.replace(ROW, id=f"d16-l2-{number:010}", **changes)


ROWS = [
    row(1),
    row(2, d_model=24, loss=1.834),
    row(3, place="1", seed=100, budget=4e11, flops=4e11, done=0.25, loss=2.5, state="running"),
    row(4, place="1", seed=101, budget=4e11, flops=4e11, done=0.0, loss=None, state="failed", reason="no " * 60),
    row(5, place="target", budget=4e12, flops=4e12, done=0.0, loss=None, state="pending"),
]


@pytest.mark.parametrize("width", [80, 100])
def test_every_line_fits(width: int) -> None:
    lines = [*table(ROWS, width), *reasons(ROWS, "mine", width)]
    assert max(map(len, lines)) <= width
    varied = [dataclasses.replace(one, setting="parametrization=completep") for one in ROWS]
    assert max(map(len, table(varied, width))) <= width


def test_a_row_tells_round_seed_progress_loss_and_state() -> None:
    note, _, head, *lines = table(ROWS, 120)
    assert " ".join(head.split()) == "round seed d_model layers N D FLOPs done loss state run"
    assert " ".join(lines[1].split()[:10]) == "- 0 24 2 1.23e+04 1.35e+06 1e+11 100% [1.8340] complete"
    assert " ".join(lines[2].split()[:10]) == "1 100 16 2 1.23e+04 1.35e+06 4e+11 25% ~2.5000 running"
    assert lines[4].split()[0] == "target" and "lowest of a budget in brackets" in note and "~" in note
    assert "round" not in table(ROWS[:2], 100)[2]


def test_the_end_counts_and_gives_reasons() -> None:
    assert counts(ROWS) == "2 of 4 runs complete, 1 running, 1 failed; the target pending"
    first, *_, last = reasons(ROWS, "mine", 100)[1:]
    assert first.startswith("d16-l2-0000000004 failed: no no") and last.startswith("`isoflop study retry mine`")
    assert reasons(ROWS[:2], "mine", 100) == []


def test_many_runs_are_summed_up_by_budget() -> None:
    head, first, second, target = summary(ROWS)
    assert head.split() == ["length", "runs", "complete", "running", "failed", "pending", "lowest", "loss"]
    assert first.split() == ["1e+11", "FLOPs", "2", "2", "0", "0", "0", "1.8340", "at", "d_model", "24"]
    assert second.split() == ["4e+11", "FLOPs", "2", "0", "1", "1", "0", "-"] and target.endswith("the target")


def test_lengths_of_different_units_are_told_apart() -> None:
    grid = [row(6, unit="tokens", budget=1e11), row(7, unit="tokens", budget=2e6)]
    _, flops, fewer, more, target = summary([*ROWS[:2], *grid, ROWS[4]])
    assert [line.split()[:3] for line in (flops, fewer, more, target)] == [
        ["1e+11", "FLOPs", "2"],
        ["2e+06", "tokens", "1"],
        ["1e+11", "tokens", "1"],
        ["4e+12", "FLOPs", "1"],
    ]


def test_only_of_a_budget_of_flops_the_lowest_is_marked() -> None:
    grid = [dataclasses.replace(one, unit="tokens") for one in ROWS[:2]]
    assert "[" in "".join(table(ROWS[:2], 120)) and "[" not in "".join(table(grid, 120))
    assert "lowest of a budget" not in table(grid, 120)[0]
