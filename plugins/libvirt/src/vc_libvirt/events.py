"""Events of machines, from an event loop for libvirt in a thread, one for each process.

libvirt has one implementation of events per process. It must be registered before the first
connection and stays until the process ends, while a program may start and stop its event
loops. Therefore libvirtaio runs in a loop of its own, which passes events on to the loops of
the listeners.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vc_libvirt.errors import ConnectionLost


@dataclass(frozen=True)
class Stopped:
    """The machine has ended.

    Attributes:
        in_order: whether the guest powered off.
    """

    in_order: bool


@dataclass(frozen=True)
class Opened:
    """The guest has opened a port."""

    alias: str


@dataclass(frozen=True)
class Removed:
    """The guest has released a device (`is_gone`), or refuses to."""

    alias: str
    is_gone: bool


@dataclass(frozen=True)
class Lost:
    """The connection was lost: there will be no more events."""


Event = Stopped | Opened | Removed | Lost


class Listener:
    """The events of one machine from now on, for a task of any loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def tell(self, event: Event) -> None:
        """Adds an event, from any thread. Does nothing when the loop was closed."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def events(self) -> AsyncIterator[Event]:
        """Yields the events in order.

        Raises:
            ConnectionLost: there will be no more events.
        """
        while True:
            event = await self._queue.get()
            if isinstance(event, Lost):
                raise ConnectionLost(
                    "libvirtd went away; the machine still runs: try again when libvirtd is back"
                )
            yield event

    async def stopped(self) -> Stopped:
        """Returns when the machine has ended."""
        async for event in self.events():
            if isinstance(event, Stopped):
                return event
        raise AssertionError("events end with an exception")


class Listeners:
    """The listeners of a connection, by machine. Used from several threads."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}
        self._guard = threading.Lock()

    @contextmanager
    def listening(self, uuid: str) -> Iterator[Listener]:
        """Registers a listener for the length of a block."""
        listener = Listener()
        with self._guard:
            self._listeners.setdefault(uuid, []).append(listener)
        try:
            yield listener
        finally:
            with self._guard:
                self._listeners[uuid].remove(listener)
                if not self._listeners[uuid]:
                    del self._listeners[uuid]

    def tell(self, uuid: str, event: Event) -> None:
        """Passes an event to the listeners of one machine."""
        with self._guard:
            listeners = list(self._listeners.get(uuid, ()))
        for listener in listeners:
            listener.tell(event)

    def tell_all(self, event: Event) -> None:
        """Passes an event to all listeners."""
        with self._guard:
            listeners = list(itertools.chain.from_iterable(self._listeners.values()))
        for listener in listeners:
            listener.tell(event)

    def register(self, connection: Any, lost: Callable[[], None]) -> Callable[[], None]:
        """Registers for the events of a new connection; returns a function that closes it.

        Args:
            connection: libvirt's object.
            lost: called when the connection is lost, before the listeners get that event.
        """
        import libvirt
        import libvirt_qemu

        def on_close(*_: object) -> None:
            lost()
            self.tell_all(Lost())

        connection.registerCloseCallback(on_close, None)
        by_kind = (
            (libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE, self._on_life),
            (libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, functools.partial(self._on_removal, True)),
            (
                libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
                functools.partial(self._on_removal, False),
            ),
        )
        ids = [
            connection.domainEventRegisterAny(None, kind, callback, None)
            for kind, callback in by_kind
        ]
        ports = None
        # libvirt 9 itself has an event for no port except that of its own guest agent.
        if connection.getType() == "QEMU":
            ports = libvirt_qemu.qemuMonitorEventRegister(
                connection, None, "VSERPORT_CHANGE", self._on_port, None
            )

        def end() -> None:
            steps: list[Callable[[], object]] = [
                functools.partial(connection.domainEventDeregisterAny, each) for each in ids
            ]
            if ports is not None:
                steps.append(
                    functools.partial(libvirt_qemu.qemuMonitorEventDeregister, connection, ports)
                )
            # Each fails at a connection that was lost, and still frees what it has here.
            for step in (*steps, connection.unregisterCloseCallback, connection.close):
                with contextlib.suppress(libvirt.libvirtError):
                    step()

        return end

    def _on_life(
        self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object
    ) -> None:
        import libvirt

        if event == libvirt.VIR_DOMAIN_EVENT_STOPPED:
            self.tell(
                domain.UUIDString(), Stopped(detail == libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN)
            )

    def _on_removal(
        self, is_gone: bool, _connection: Any, domain: Any, alias: str, _opaque: object
    ) -> None:
        self.tell(domain.UUIDString(), Removed(alias, is_gone))

    def _on_port(
        self, _c: Any, domain: Any, _event: str, _s: int, _us: int, details: str, _opaque: object
    ) -> None:
        change = json.loads(details)
        if change.get("open"):
            self.tell(domain.UUIDString(), Opened(change["id"]))


def _handed_over(method: Callable[..., Any]) -> Any:
    """Runs a method of a loop in the loop's thread, for callers that need no result."""

    @functools.wraps(method)
    def call(self: _Loop, *args: Any, **kwargs: Any) -> Any:
        if self.is_foreign():
            return self.call_soon_threadsafe(functools.partial(method, self, *args, **kwargs))
        return method(self, *args, **kwargs)

    return call


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose methods libvirt may call from any thread; asyncio allows only its own."""

    thread: int = 0
    call_soon: Any = _handed_over(asyncio.SelectorEventLoop.call_soon)
    add_reader: Any = _handed_over(asyncio.SelectorEventLoop.add_reader)
    remove_reader: Any = _handed_over(asyncio.SelectorEventLoop.remove_reader)
    add_writer: Any = _handed_over(asyncio.SelectorEventLoop.add_writer)
    remove_writer: Any = _handed_over(asyncio.SelectorEventLoop.remove_writer)

    def is_foreign(self) -> bool:
        """Whether the caller is in another thread than the loop."""
        return self.thread not in (0, threading.get_ident())


@functools.cache
def start() -> None:
    """Starts libvirt's events in this process. May be called twice."""
    import libvirt
    import libvirtaio

    libvirt.registerErrorHandler(lambda *_: None, None)  # errors are raised as exceptions, too
    loop = _Loop()
    libvirtaio.virEventRegisterAsyncIOImpl(loop=loop)
    thread = threading.Thread(target=loop.run_forever, name="libvirt-events", daemon=True)
    thread.start()
    loop.thread = thread.ident or 0
