"""What checks types while the tests run: beartype, with int accepted for float, and jaxtyping where axes are named.

jaxtyping's import hook decorates every function of the package with `jaxtyping.jaxtyped`, which opens a scope of axis
names at each call and checks the arguments twice. That was a large part of the time of the tests, and most functions
name no axes: these are checked by beartype alone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
with_axes = jaxtyping.jaxtyped


def jaxtyped(owner: Any = None, *, typechecker: Callable[..., Any]) -> Any:
    """Stand in for `jaxtyping.jaxtyped` as its import hook applies it."""
    if owner is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(owner) and dataclasses.is_dataclass(owner) and isinstance(owner.__init__, FunctionType):
        owner.__init__ = jaxtyped(owner.__init__, typechecker=typechecker)
        return owner
    if isinstance(owner, FunctionType) and without_axes(owner):
        return alone(owner)
    return with_axes(owner, typechecker=typechecker)


def without_axes(function: FunctionType) -> bool:
    """Tell whether all hints can be read now, and none of them names axes."""
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except Exception:  # names known to type checkers only, or later: jaxtyping takes these for Any
        return False
    return not any(map(names_axes, hints.values()))


def names_axes(hint: Any) -> bool:
    """Look for an array with axes in a hint, however deep."""
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    parts = hint if isinstance(hint, list | tuple) else typing.get_args(hint)
    return any(map(names_axes, parts))


def alone(function: FunctionType) -> Callable[..., Any]:
    """Return the function checked by beartype, or unchecked where a test says so (`unchecked` in conftest.py)."""
    checked = check(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        return (function if jaxtyping.config.jaxtyping_disable else checked)(*args, **kwargs)

    return call


jaxtyping.jaxtyped = jaxtyped  # the import hook looks it up in each module that it decorates
