"""What the fields of a configuration may hold: values of their declared types, positive numbers, fractions."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

ADDED: Mapping[str, bool] = {"added": True}
"""Marks a field that older runs lack: part of the id only where it differs from its default, so that theirs stay."""


def of_their_types(owner: object) -> None:
    """Check every field of a dataclass against its annotation.

    Raises:
        ValueError: a field holds something else, as a file may say.
    """
    kind: Any = type(owner)
    for name, hint in _hints(kind).items():
        value = getattr(owner, name)
        if not _fits(value, hint):
            raise ValueError(f"{name}={value!r} must be {_said(hint)}")


def positive(owner: object, *names: str) -> None:
    """Check that the fields, where they are given, lie above 0.

    Raises:
        ValueError: one does not.
    """
    for name in names:
        value = getattr(owner, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}={value} must be positive{'' if value <= 0 else ' and finite'}")


def fraction(owner: object, *names: str) -> None:
    """Check that the fields lie between 0 and 1, 1 excluded.

    Raises:
        ValueError: one does not.
    """
    for name in names:
        value = getattr(owner, name)
        if not 0 <= value < 1:
            raise ValueError(f"{name}={value} must be at least 0 and below 1")


_hints = cache(get_type_hints)


@cache
def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    return get_origin(hint), get_args(hint)


def _fits(value: object, hint: Any) -> bool:
    if type(value) is hint:
        return True
    origin, args = _parts(hint)
    if origin is Literal:
        return value in args
    if origin in (Union, UnionType):
        return any(_fits(value, arg) for arg in args)
    if hint is Any:
        return True
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(part, args[1]) for part in value.values())
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(part, args[0]) for part in value)
    if hint in (int, float):
        if isinstance(value, bool) or not isinstance(value, int if hint is int else (int, float)):
            return False
        return hint is int or abs(value) <= sys.float_info.max or not isinstance(value, int)
    return isinstance(value, hint)


_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "left out"}


def _said(hint: Any) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}"
    if origin in (Union, UnionType):
        return " or ".join(map(_said, args))
    if origin is Mapping:
        return f"named values, each of it {_said(args[1])}"
    if origin is tuple:
        return f"a list, each of it {_said(args[0])}"
    return _WORDS.get(hint, getattr(hint, "__name__", str(hint)))
