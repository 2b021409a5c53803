"""`isoflop render`."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Literal

from tyro.conf import Positional


def render(folder: Positional[str], *, lang: Literal["en", "zh"] = "en", json: bool = False) -> None:
    """Draw what is known: a study's figures and its page, or a run's training curves.

    Args:
        folder: Folder of a study, or of a run.
        lang: Language of labels and page: English or Chinese.
        json: Print the paths as JSON.
    """
    from isoflop.report.evidence import read_evidence
    from isoflop.report.figures import draw_study, draw_training, not_drawn
    from isoflop.report.page import write_page
    from isoflop.report.words import word

    where = Path(folder)
    if not where.is_dir():
        raise ValueError(f"{folder} is no folder; name the folder of a study or of a run")
    page, missing = None, []
    if (where / "log.jsonl").exists():
        figures = draw_training(where, lang)
    else:
        figures = draw_study(where, lang)
        missing = not_drawn(read_evidence(where), lang)
        page = write_page(where, lang)
    if json:
        answer = {"figures": [str(path) for path in figures], "page": page and str(page), "not_drawn": missing}
        print(json_module.dumps(answer, ensure_ascii=False))
        return
    for path in figures:
        print(path)
    for sentence in missing:
        print(sentence)
    if page is not None:
        print(word("the page", lang, path=page))
