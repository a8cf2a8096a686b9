"""The error of this package."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Coroutine
from typing import ParamSpec, TypeVar

from vc_core.spec import NetworkError

P = ParamSpec("P")
T = TypeVar("T")


class NetworkFailure(Exception):
    """A network operation failed. The text is one line for people."""


def translated(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[object, object, T]]:
    """Converts the package's error to the contract's."""

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await function(*args, **kwargs)
        except NetworkFailure as error:
            raise NetworkError(str(error)) from error

    return call
