"""python -m pytest tests/test_report_questions.py"""

import pytest
from matplotlib.figure import Figure

from isoflop.report.questions import DRAWINGS, SAID
from isoflop.study.questions import QUESTIONS
from isoflop.study.questions.answer import Answer
from tests import questions as made


def test_every_question_has_a_figure() -> None:
    assert list(DRAWINGS) == list(QUESTIONS)


@pytest.mark.parametrize(
    ("name", "records", "lines"),
    [
        ("regime", lambda: made.grid(), 3),
        ("rate", lambda: made.sweep(0.5, kinds=("standard", "mup")), 3),
        ("aspect", lambda: made.shapes(1e-3), 4),
        ("heads", lambda: made.head_counts(0.03, 0.003), 2),
        ("heads-fixed", lambda: made.two_sweeps(0.2, 1e-3), 4),
        ("batch", lambda: made.batches(2000.0, 1e-3), 8),
        ("epochs", lambda: made.corpus_of_one_size(8.0), 4),
    ],
)
def test_a_figure_shows_what_was_answered(name: str, records: object, lines: int) -> None:
    answer: Answer = QUESTIONS[name].answer(records())  # type: ignore[operator]
    ax = DRAWINGS[name](answer, Figure().add_subplot())
    assert ax.get_title() == SAID[name][0]
    assert len(ax.get_lines()) >= lines and ax.get_legend() is not None
    assert ax.get_xlabel() and ax.get_ylabel()


def test_a_parametrization_whose_check_fails_is_drawn_hollow() -> None:
    answer = QUESTIONS["rate"].answer(made.sweep(0.5, kinds=("standard", "mup")))
    ax = DRAWINGS["rate"](answer, Figure().add_subplot())
    shown = {str(line.get_label()): line.get_fillstyle() for line in ax.get_lines()}
    assert shown["standard"] == "full" and shown[SAID["shut"][0].format(name="mup")] == "none"
    assert [label.get_text() for label in ax.get_xticklabels()] == ["×4 width", "×8 width", "×4 depth"]
