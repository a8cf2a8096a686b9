"""Turns asyncio methods into blocking methods, which run in an event loop in its own thread."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 (see _leave_all)
import functools
import inspect
import logging
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from vc_core.engine.wiring.fork_guard import Origin

Inner = TypeVar("Inner")
Outer = TypeVar("Outer", bound="SyncObject[Any]")
P = ParamSpec("P")
T = TypeVar("T")
log = logging.getLogger(__name__)


class Loop:
    """An event loop in its own thread."""

    def __init__(self) -> None:
        self._origin = Origin()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="vc-blocking", daemon=True
        )
        self._thread.start()

    def run(self, work: Awaitable[T]) -> T:
        """Runs it to its end; also when we are interrupted."""
        if not self._origin.is_here() and inspect.iscoroutine(work):
            work.close()  # or Python warns that nobody awaited it
        self._origin.require()

        async def awaited() -> T:
            return await work

        future = asyncio.run_coroutine_threadsafe(awaited(), self._loop)
        try:
            return future.result()
        except BaseException:
            if future.cancel():  # it was we who were interrupted
                self._settle()
            raise

    def _settle(self) -> None:
        """Returns when what was cancelled has cleaned up."""

        async def settled() -> None:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(
                *(task for task in others if task.cancelling()), return_exceptions=True
            )

        asyncio.run_coroutine_threadsafe(settled(), self._loop).result()

    def is_open(self) -> bool:
        """Whether it still runs, in this process."""
        return self._origin.is_here() and not self._loop.is_closed()

    def close(self) -> None:
        """Ends the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class SyncObject(Generic[Inner]):
    """An object of the engine and the loop that it lives in."""

    def __init__(self, inner: Inner, loop: Loop) -> None:
        self._inner = inner
        self._loop = loop


def sync_call(
    method: Callable[Concatenate[Inner, P], Awaitable[T]],
) -> Callable[Concatenate[SyncObject[Inner], P], T]:
    """The same method, which returns when it is done."""

    @functools.wraps(method)
    def call(self: SyncObject[Inner], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self._inner, *args, **kwargs))

    return call


def sync_factory(
    method: Callable[Concatenate[Inner, P], Awaitable[T]], kind: Callable[[T, Loop], Outer]
) -> Callable[Concatenate[SyncObject[Inner], P], Outer]:
    """The same for one that gives an object of the engine."""

    @functools.wraps(method)
    def call(self: SyncObject[Inner], /, *args: P.args, **kwargs: P.kwargs) -> Outer:
        return kind(self._loop.run(method(self._inner, *args, **kwargs)), self._loop)

    return call


def sync_iterator(
    method: Callable[Concatenate[Inner, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate[SyncObject[Inner], P], Iterator[T]]:
    """The same for one that gives one thing after the other."""

    @functools.wraps(method)
    def iterate(self: SyncObject[Inner], /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        things = method(self._inner, *args, **kwargs)
        try:
            while True:
                yield self._loop.run(anext(things))
        except StopAsyncIteration:
            return
        finally:
            self._loop.run(things.aclose())

    return iterate


class _Block(AbstractContextManager[Outer]):
    """An object of the engine for the length of a block; or of the program, where nobody leaves the
    block.
    """

    def __init__(
        self, manager: AbstractAsyncContextManager[T], kind: Callable[[T, Loop], Outer], loop: Loop
    ) -> None:
        self._manager: AbstractAsyncContextManager[Any] = manager
        self._kind: Callable[[Any, Loop], Outer] = kind
        self._loop = loop

    def __enter__(self) -> Outer:
        found = self._kind(self._loop.run(self._manager.__aenter__()), self._loop)
        _blocks[self] = None
        return found

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        _blocks.pop(self, None)
        return self._leave(kind, error, trace)

    def _leave(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._loop.is_open():  # a runtime that was closed has let its pods be
            return self._loop.run(self._manager.__aexit__(kind, error, trace))
        return None


_blocks: dict[_Block[Any], None] = {}


def _leave_all() -> None:
    """Ends the blocks that the program has not left, the last entered first."""
    while _blocks:
        block, _ = _blocks.popitem()
        try:
            block.__exit__(None, None, None)
        except Exception:
            log.exception("a pod could not be deleted at the program's end")


# Not by atexit: that comes after the threads that the engine works with are shut down. This comes
# before; those whose shutdown was registered by the import of concurrent.futures.thread, which
# comes first, are still there.
getattr(threading, "_register_atexit", atexit.register)(_leave_all)


def sync_context(
    method: Callable[Concatenate[Inner, P], AbstractAsyncContextManager[T]],
    kind: Callable[[T, Loop], Outer],
) -> Callable[Concatenate[SyncObject[Inner], P], AbstractContextManager[Outer]]:
    """The same for one that gives an object for the length of a block."""

    @functools.wraps(method)
    def block(
        self: SyncObject[Inner], /, *args: P.args, **kwargs: P.kwargs
    ) -> AbstractContextManager[Outer]:
        return _Block(method(self._inner, *args, **kwargs), kind, self._loop)

    return block
