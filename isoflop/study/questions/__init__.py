"""The seven questions of a scaling study, each a pure function of records with a verdict in words, one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from isoflop.record import Records
from isoflop.study.questions.answer import Answer
from isoflop.study.questions.aspect import aspect
from isoflop.study.questions.batch import batch
from isoflop.study.questions.epochs import epochs
from isoflop.study.questions.heads import heads
from isoflop.study.questions.heads_fixed import heads_fixed
from isoflop.study.questions.rate import rate
from isoflop.study.questions.regime import regime


class Question(NamedTuple):
    """What is asked, and what answers it from records."""

    asks: str
    answer: Callable[[Records], Answer]


QUESTIONS: Mapping[str, Question] = {
    "regime": Question("Do the laws hold at every size?", regime),
    "rate": Question("Which learning rate, and does it carry over to larger models?", rate),
    "aspect": Question("Width against depth?", aspect),
    "heads": Question("How many heads?", heads),
    "heads-fixed": Question("May heads stay fixed while scaling?", heads_fixed),
    "batch": Question("Which batch?", batch),
    "epochs": Question("How many epochs?", epochs),
}
