"""python -m pytest tests/test_remarks.py"""

from collections.abc import Callable
from pathlib import Path

import pytest

from isoflop.sources import read

RUNS = [(10.0**n, 10.0**d) for n in (7, 8, 9) for d in (9, 10, 11)]


def power(N: float, D: float, E: float = 2.0, A: float = 100.0, B: float = 100.0) -> float:
    return float(E + A / N**0.3 + B / D**0.3)


def notes(
    folder: Path, ratio: Callable[[int], float] = lambda i: 6.0, loss: Callable[[float, float], float] = power
) -> tuple[str, ...]:
    """Remarks on a table with C = ratio(row)·N·D."""
    lines = [f"{N},{D},{ratio(i) * N * D},{loss(N, D)}" for i, (N, D) in enumerate(RUNS)]
    (folder / "t.csv").write_text("params,tokens,flops,loss\n" + "\n".join(lines))
    return read(folder / "t.csv").notes


def test_a_usual_table_needs_no_remark(tmp_path: Path) -> None:
    assert notes(tmp_path) == notes(tmp_path, ratio=lambda i: 6.9) == ()


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (lambda i: 1.0, "C (flops) is 1·N·D, not the usual 6·N·D"),
        (lambda i: 18.0, "C (flops) is 18·N·D, not the usual 6·N·D"),
        (lambda i: 1.0 if i % 2 else 6.0, "C/(N·D) runs from 1 to 6 where 6 is usual"),
    ],
)
def test_an_unusual_count_of_flops_is_told(tmp_path: Path, ratio: Callable[[int], float], said: str) -> None:
    (note,) = notes(tmp_path, ratio)
    assert note.startswith(said)


def test_losses_that_are_none_are_told(tmp_path: Path) -> None:
    assert "if they are perplexities" in notes(tmp_path, loss=lambda N, D: power(N, D, 20.0, 1e3, 0.0))[0]
    assert "rise with C, as an accuracy would" in notes(tmp_path, loss=lambda N, D: power(N, D, 0.9, -5.0, -5.0))[0]
    assert notes(tmp_path, loss=lambda N, D: power(N, D, 0.3, 5.0, 5.0)) == ()
