"""Commands that a command goes through: shown as if typed, or their answers gathered."""

from __future__ import annotations

import contextlib
import io
import json as json_module
import sys
from collections.abc import Sequence
from typing import Any

from isoflop.cli.app import main


def step(words: Sequence[str], *, json: bool) -> dict[str, Any] | None:
    """Run a command as if it were typed; with `json`, print nothing and return its object.

    Where it fails, this process leaves with its exit code, once it has said why on standard error.
    """
    if not json:
        if code := main(list(words)):
            sys.exit(code)
        return None
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = main([*words, "--json"])
    if code:
        sys.exit(code)
    return dict(json_module.loads(said.getvalue()))
