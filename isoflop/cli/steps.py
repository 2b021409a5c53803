"""Commands that a command goes through: shown as if typed, or their answers gathered."""

from __future__ import annotations

import contextlib
import io
import json as json_module
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from isoflop.cli.app import main

PREFIX = "isoflop: "
"""What a command's sentences on standard error begin with."""


class Failed(SystemExit):
    """A step that failed while answers are gathered; this process leaves with the step's exit code."""

    def __init__(self, words: Sequence[str], code: Any, answer: dict[str, Any] | None, said: str) -> None:
        super().__init__(code)
        sentences = [line.removeprefix(PREFIX) for line in said.splitlines() if line.startswith(PREFIX)]
        self.told = {"step": shlex.join(words), "code": code, "error": "; ".join(sentences), "answer": answer}
        """For the object that is printed all the same: the step, its code, why, and what it answered, if anything."""


class _Heard(io.StringIO):
    """Standard error, passed on and kept."""

    def __init__(self) -> None:
        super().__init__()
        self.screen = sys.stderr

    def write(self, text: str) -> int:
        self.screen.write(text)
        return super().write(text)

    def flush(self) -> None:
        self.screen.flush()

    def isatty(self) -> bool:
        return self.screen.isatty()


def step(words: Sequence[str], *, json: bool) -> dict[str, Any] | None:
    """Run a command as if it were typed; with `json`, print nothing and return its object.

    Where it fails, it has said why on standard error, and this process leaves with its exit code; with `json` by
    `Failed`, so that whoever gathers the answers prints them first.
    """
    if not json:
        if code := main(list(words)):
            sys.exit(code)
        return None
    left: Any
    said, heard = io.StringIO(), _Heard()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(heard):
            left = main([*words, "--json"])
    except SystemExit as leave:
        left = leave.code
    answer = dict(json_module.loads(said.getvalue())) if said.getvalue() else None
    if left:
        raise Failed(words, left, answer, heard.getvalue())
    return answer
