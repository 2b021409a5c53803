"""Words of a command line that stand where nothing takes them, or where something took them that was not meant."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from isoflop.counts import parse

YES_OR_NO = frozenset({"yes", "no", "true", "false", "on", "off", "1", "0"})
"""What people write after a switch."""


def misplaced(word: str, args: Sequence[str], prog: str) -> ValueError:
    """Say why a command has no place for a word."""
    before = _before(word, args)
    if before.startswith("--"):
        return _switch(before, word)
    if len(runs := [arg for arg in args if os.path.exists(os.path.join(arg, "config.json"))]) > 1:
        return ValueError(f"these are {len(runs)} runs, but {prog} takes one; name it, as in `{prog} {runs[0]}`")
    if _is_number(word) and (flag := _flag_before(word, args)):
        return ValueError(f"{flag} takes one value; leave {word!r} out")
    return ValueError(f"{prog} has no place for {word!r}; quote what belongs together, see `{prog} --help`")


def check_first(bound: functools.partial[Any], args: Sequence[str], flags: Callable[[], list[str]], prog: str) -> None:
    """Refuse what was taken as the command's first argument, but was meant for the option before it.

    Args:
        bound: The command with its arguments.
        args: What stood on the command line.
        flags: Lists all flags of the command.
        prog: The command's name.

    Raises:
        ValueError: no such file exists, and it stands behind a switch, or is a number behind an option, or stands
            behind an option that takes several numbers.
    """
    signature = inspect.signature(bound.func)
    first = next(iter(signature.parameters), "")
    word = signature.bind(*bound.args, **bound.keywords).arguments.get(first)
    if not isinstance(word, str) or os.path.exists(word):
        return
    before = _before(word, args)
    if (f"{before}={word}" in args or word.lower() in YES_OR_NO) and f"--no-{before[2:].replace('_', '-')}" in flags():
        raise _switch(before, word)
    flag = _flag_before(word, args)
    option = signature.parameters.get(flag[2:].replace("-", "_"))
    several = option is not None and str(option.annotation).startswith("tuple[float")
    if flag and several and before == flag and not _is_number(word):
        try:
            parse(word)
        except ValueError as error:
            raise ValueError(f"{flag} {word!r} {error}") from None
    if flag and _is_number(word):
        said = f"{flag} was followed by {word!r}, which was read as {first.upper()}, and no such path exists"
        takes = "one value or more" if several else "one value"
        raise ValueError(f"{said}; write {first.upper()} first, and {takes} after {flag}")


def is_text(arg: str) -> bool:
    """Whether an argument that starts with dashes can be no option, for its name would hold a space."""
    return " " in arg.partition("=")[0]


def _switch(flag: str, word: str) -> ValueError:
    return ValueError(f"{flag} is a switch and takes no value; leave {word!r} out")


def _before(word: str, args: Sequence[str]) -> str:
    """Return the flag that a word is joined to by `=`, or else the argument before it."""
    for arg in args:
        flag, equals, value = arg.partition("=")
        if flag.startswith("--") and equals and value == word:
            return flag
    return next((one for one, after in pairwise(args) if after == word and "=" not in one), "")


def _flag_before(word: str, args: Sequence[str]) -> str:
    """Return the option that a word follows, other values between them; empty where there is none."""
    before = list(args)[: list(args).index(word)] if word in args else []
    return next((arg for arg in reversed(before) if arg.startswith("--") and "=" not in arg), "")


def _is_number(word: str) -> bool:
    try:
        parse(word)
    except ValueError:
        return False
    return True
