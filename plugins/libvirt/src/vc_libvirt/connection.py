"""Connections to libvirtd: one for each URI and process, with a thread for each blocking call.

The next call connects again after a connection was lost: machines keep running without libvirtd. It
also does so after a call was cancelled, because libvirtd hangs with a machine that hangs; the
thread of such a call ends when libvirtd answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from vc_libvirt import events
from vc_libvirt.errors import ConnectionLost, LibvirtError

T = TypeVar("T")
CLOSING = "libvirt-closing"  # the name of threads that close a connection
Handle = Any  # libvirt's own classes have no types


class Connection:
    """A connection to a libvirtd."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._listeners = events.Listeners()
        self._link: _Link | None = None
        self._guard = threading.Lock()

    async def call(self, work: Callable[[Handle], T]) -> T:
        """Runs blocking work with the connection.

        Raises:
            ConnectionLost: libvirtd does not answer.
            LibvirtError: libvirt refuses; has its message and code.
        """
        link = self._linked()
        try:
            return await link.call(work)
        except asyncio.CancelledError:
            self._forget(link)
            raise
        except ConnectionLost:
            self._forget(link)
            self._listeners.tell_all(events.Lost())
            raise

    async def on_domain(self, uuid: str, work: Callable[[Handle], T]) -> T:
        """Runs blocking work with libvirt's object of a machine.

        Raises LibvirtError with VIR_ERR_NO_DOMAIN for a machine that has ended.
        """
        return await self.call(lambda handle: work(handle.lookupByUUIDString(uuid)))

    @contextmanager
    def listening(self, uuid: str) -> Iterator[events.Listener]:
        """Provides the events of a machine during a block, also of calls in the block."""
        with self._listeners.listening(uuid) as listener:
            yield listener

    def _linked(self) -> _Link:
        with self._guard:
            if self._link is None:
                self._link = _Link(self.uri, self._listeners, self._forget)
            return self._link

    def _forget(self, link: _Link) -> None:
        with self._guard:
            if self._link is link:
                self._link = None
                link.end()


class _Link:
    """A libvirt connection. Each call has its own thread, so that one that hangs delays no other.

    The threads are daemons, so the process can end while a call hangs.
    """

    def __init__(
        self, uri: str, listeners: events.Listeners, lost: Callable[[_Link], None]
    ) -> None:
        self._uri = uri
        self._listeners = listeners
        self._lost = lost
        self._handle: Handle | None = None
        self._close: Callable[[], None] | None = None
        self._guard = threading.Lock()
        self._calls = 0
        self._has_ended = False

    async def call(self, work: Callable[[Handle], T]) -> T:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def settle(outcome: T | None, error: Exception | None) -> None:
            if answer.cancelled():
                return
            if error is None:
                # None only where the work returns it.
                answer.set_result(outcome)  # type: ignore[arg-type]
            else:
                answer.set_exception(error)

        def job() -> None:
            outcome, error = None, None
            try:
                outcome = self._run(work)
            except Exception as failure:
                error = failure
            self._count(-1)
            with contextlib.suppress(RuntimeError):  # the loop was closed: nothing waits any more
                loop.call_soon_threadsafe(settle, outcome, error)

        self._count(1)
        threading.Thread(target=job, name="libvirt", daemon=True).start()
        return await answer

    def end(self) -> None:
        """Closes the connection when its last call has ended."""
        self._has_ended = True
        self._count(0)

    def _count(self, change: int) -> None:
        with self._guard:
            self._calls += change
            if self._calls or not self._has_ended or self._close is None:
                return
            close, self._close = self._close, None
        # This may be libvirt's call on the loss of the connection, which holds a lock that closing
        # takes: libvirt.git, src/datatypes.c, virConnectCloseCallbackDataCall.
        threading.Thread(target=close, name=CLOSING, daemon=True).start()

    def _run(self, work: Callable[[Handle], T]) -> T:
        import libvirt

        try:
            with self._guard:
                if self._handle is None:
                    self._handle = self._open()
                handle = self._handle
        except libvirt.libvirtError as error:
            raise ConnectionLost(
                f"libvirtd does not answer at {self._uri}: {_message(error)}", _code(error)
            ) from error
        try:
            return work(handle)
        except libvirt.libvirtError as error:
            if not _is_alive(handle):
                raise ConnectionLost(
                    f"libvirtd went away: {_message(error)}", _code(error)
                ) from error
            raise LibvirtError(_message(error), _code(error)) from error

    def _open(self) -> Handle:
        import libvirt

        events.start()
        handle = libvirt.open(self._uri)
        self._close = self._listeners.register(handle, functools.partial(self._lost, self))
        return handle


_guard = threading.Lock()


def connection(uri: str) -> Connection:
    """Returns the connection of this process to a URI."""
    with _guard:
        return _connection(uri)


@functools.cache
def _connection(uri: str) -> Connection:
    return Connection(uri)


def _is_alive(handle: Handle) -> bool:
    import libvirt

    try:
        return bool(handle.isAlive())
    except libvirt.libvirtError:
        return False


def _message(error: Any) -> str:
    return str(error.get_error_message() or error)


def _code(error: Any) -> int:
    return int(error.get_error_code() or 0)
