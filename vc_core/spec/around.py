"""Surround an operation: the one way to observe, refuse or delay what another plugin does.

    @around
    @asynccontextmanager
    async def vm_start(self, pod: PodRef) -> AsyncIterator[None]:
        began = time.monotonic()
        yield                       # the operation runs here; its exception is raised here
        print(pod.id, time.monotonic() - began)

The method's name says which operation; it takes any of the operation's parameters, by name.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from typing import Any

from vc_core.spec.markers import hookimpl


class _Around(Coroutine[Any, Any, Any]):
    """An operation not yet begun, with a context to enter around it.

    pluggy does not support coroutines: a wrapper receives the inner coroutine before it is awaited.
    This class composes the two, and closes the inner one when it is never started (a context that
    raises, a task cancelled before its first step).
    """

    def __init__(
        self,
        enter: Callable[[], AbstractAsyncContextManager[None]],
        inner: Coroutine[Any, Any, Any],
    ) -> None:
        self._enter = enter
        self._inner = inner
        self._body: Coroutine[Any, Any, Any] | None = None

    async def _run(self) -> Any:
        try:
            async with self._enter():
                return await self._inner
        finally:
            self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._run().__await__()

    def send(self, value: Any) -> Any:
        if self._body is None:
            self._body = self._run()
        return self._body.send(value)

    def throw(self, *args: Any) -> Any:
        if self._body is None:
            self._inner.close()
            self._body = self._run()
        return self._body.throw(*args)

    def close(self) -> None:
        (self._body or self._inner).close()


def around(method: Callable[..., AbstractAsyncContextManager[None]]) -> Callable[..., Any]:
    """Makes an async context manager the wrapper of the operation of the same name."""

    @hookimpl(wrapper=True)
    @functools.wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Generator[None, Any, Any]:
        inner = yield
        return _Around(functools.partial(method, *args, **kwargs), inner)

    return wrapper
