"""python -m pytest tests/test_questions.py"""

from typing import get_args

from isoflop.study.questions import QUESTIONS
from isoflop.study.study import QuestionKind


def test_the_table_knows_every_question() -> None:
    assert set(get_args(QuestionKind)) == set(QUESTIONS)
