"""Checks the types of API arguments, so that no wrong type reaches the store or the guest."""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import types
import typing
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import msgspec

from vc_core.spec.errors import InvalidRequest

P = ParamSpec("P")
T = TypeVar("T")

_PLAIN = (str, int, float, bool, bytes, Path, types.NoneType)
# Types that msgspec would otherwise accept as text.
_NO_TEXT = (bytes, bytearray, dt.datetime, dt.date, dt.time, dt.timedelta, UUID, Decimal)
_SKIPPED = ("self", "return")


def checked_arguments(
    method: Callable[P, Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorates a method: its arguments are converted to the types of its annotations.

    Lists are accepted for tuples, text for paths and enums, and paths for text.

    Raises:
        InvalidRequest: naming the argument, what was expected and what was given.
    """
    signature = inspect.signature(method)

    @functools.wraps(method)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        bound = signature.bind(*args, **kwargs)
        hints = _hints(method)
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = checked(name, value, hints[name])
        return await method(*bound.args, **bound.kwargs)

    return call


def checked(name: str, value: Any, kind: Any) -> Any:
    """Returns the value converted to `kind`.

    Raises:
        InvalidRequest: it has another type.
    """
    plain = _plain(kind)
    if plain:
        if _is_one_of(value, plain):
            return value
        expected = " or ".join("None" if one is types.NoneType else one.__name__ for one in plain)
        raise InvalidRequest(
            f"{name}: expected {expected}, got {type(value).__name__}: {value!r:.60}"
        )
    try:
        return msgspec.convert(
            msgspec.to_builtins(value, builtin_types=_NO_TEXT, enc_hook=_text), kind, dec_hook=_path
        )
    except (msgspec.MsgspecError, TypeError, ValueError) as error:
        told, _, where = str(error).replace("`", "").partition(" - at $")
        raise InvalidRequest(f"{name}{where}: {told[:1].lower()}{told[1:]}") from error


@functools.cache
def _hints(method: Callable[..., object]) -> dict[str, Any]:
    """Returns the annotated type of each parameter; for a variadic one, that of its elements."""
    hints = typing.get_type_hints(method)
    for name, parameter in inspect.signature(method).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            hints[name] = types.GenericAlias(tuple, (hints[name], ...))
    return {name: hint for name, hint in hints.items() if name not in _SKIPPED}


def _plain(kind: Any) -> tuple[type, ...]:
    """Returns the classes of a class or a union of classes; empty for any other type."""
    parts = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    return parts if all(part in _PLAIN for part in parts) else ()


def _is_one_of(value: object, plain: tuple[type, ...]) -> bool:
    if isinstance(value, bool):
        return bool in plain
    return isinstance(value, plain) or (isinstance(value, int) and float in plain)


def _text(value: object) -> str:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a supported type: {value!r:.60}")


def _path(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise TypeError(f"expected {kind.__name__}, got {type(value).__name__}")
