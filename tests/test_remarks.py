"""python -m pytest tests/test_remarks.py"""

from pathlib import Path

import pytest

from isoflop.sources import read

RUNS = [(10.0**n, 10.0**d) for n in (7, 8, 9) for d in (9, 10, 11)]


def notes(folder: Path, c: str = "6*N*D", loss: str = "2+100/N**.3+100/D**.3") -> tuple[str, ...]:
    lines = []
    for i, (N, D) in enumerate(RUNS):
        known = {"N": N, "D": D, "i": i}
        lines.append(f"{N},{D},{eval(c, known)},{eval(loss, known)}")
    (folder / "t.csv").write_text("params,tokens,flops,loss\n" + "\n".join(lines))
    return read(folder / "t.csv").notes


def test_a_usual_table_needs_no_remark(tmp_path: Path) -> None:
    assert notes(tmp_path) == notes(tmp_path, c="6.9*N*D") == ()


@pytest.mark.parametrize(
    ("c", "said"),
    [
        ("N*D", "C (flops) is 1·N·D, not the usual 6·N·D"),
        ("18*N*D", "C (flops) is 18·N·D, not the usual 6·N·D"),
        ("(1 if i % 2 else 6)*N*D", "C/(N·D) runs from 1 to 6 where 6 is usual"),
    ],
)
def test_an_unusual_count_of_flops_is_told(tmp_path: Path, c: str, said: str) -> None:
    (note,) = notes(tmp_path, c=c)
    assert note.startswith(said)


def test_losses_that_are_none_are_told(tmp_path: Path) -> None:
    assert "if they are perplexities" in notes(tmp_path, loss="20+1e3/N**.3")[0]
    assert "rise with C, as an accuracy would" in notes(tmp_path, loss=".9-5/N**.3-5/D**.3")[0]
    assert notes(tmp_path, loss=".3+5/N**.3+5/D**.3") == ()
