"""Checks what an operation returned against the return type of its specification."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from itertools import islice
from typing import Any

from vc_core.spec.hooks import FAMILIES

Check = Callable[[Any], bool]

_MAX_ELEMENTS = 1000  # of a long result only the beginning is checked


def mismatch(operation: str, result: object) -> str:
    """Returns what is wrong with a result: its type and the expected type.

    Empty for a result of the right type.
    """
    check, wanted = _wanted(operation)
    return "" if check(result) else f"{operation} returned {_described(result)}, not {wanted}"


@functools.cache
def _wanted(operation: str) -> tuple[Check, str]:
    declared = next(vars(spec)[operation] for spec in FAMILIES.values() if operation in vars(spec))
    wanted = declared.__annotations__["return"]
    # The parameters' types need not be looked up.
    alone = types.SimpleNamespace(__annotations__={"return": wanted})
    hints = typing.get_type_hints(alone, globalns=declared.__globals__)
    return _check_of(hints["return"]), wanted


def _check_of(kind: Any) -> Check:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is None or kind is types.NoneType:
        return lambda value: value is None
    if origin in (typing.Union, types.UnionType):
        return _any_of(arguments)
    if origin in (tuple, frozenset):
        return _elements(origin, _check_of(arguments[0]))
    if getattr(kind, "_is_protocol", False):
        names = [name for name in vars(kind) if not name.startswith("_")]
        return lambda value: all(hasattr(value, name) for name in names)
    plain = origin or kind
    return lambda value: isinstance(value, plain)


def _any_of(kinds: tuple[Any, ...]) -> Check:
    checks = [_check_of(kind) for kind in kinds]
    return lambda value: any(check(value) for check in checks)


def _elements(container: type, check: Check) -> Check:
    return lambda value: (
        isinstance(value, container)
        and all(
            check(one) for one in islice(typing.cast(typing.Iterable[Any], value), _MAX_ELEMENTS)
        )
    )


def _described(result: object) -> str:
    if result is None:
        return "None"
    name = type(result).__name__
    if isinstance(result, tuple | frozenset | list | set) and result:
        return (
            f"{name} of "
            f"{' and '.join(sorted({type(one).__name__ for one in islice(result, _MAX_ELEMENTS)}))}"
        )
    return name
