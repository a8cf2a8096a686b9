"""What happens to machines, as libvirtd tells it: an event loop of libvirt's own, in a thread, once
per process.

libvirt has one implementation of events per process, which must be there before the first
connection, and lasts; loops of programs come and go. So libvirtaio runs in a loop that lasts, and
what happens is handed over to whoever waits.
"""

from __future__ import annotations

import asyncio
import functools
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
        in_order: whether the guest has powered off.
    """

    in_order: bool


@dataclass(frozen=True)
class Opened:
    """The guest has opened a port."""

    alias: str


@dataclass(frozen=True)
class Removed:
    """A device is gone; or the guest refuses to let it go."""

    alias: str
    is_gone: bool


@dataclass(frozen=True)
class Lost:
    """Nothing more will be heard from this libvirtd."""


Event = Stopped | Opened | Removed | Lost


class Listener:
    """What happens to one machine from now on, for a task of whatever loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Event] = asyncio.Queue()

    def tell(self, event: Event) -> None:
        """From any thread. A loop that has ended has nobody who waits."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, event)

    async def events(self) -> AsyncIterator[Event]:
        """One after the other.

        Raises:
            ConnectionLost: there will be no more.
        """
        while True:
            event = await self._queue.get()
            if isinstance(event, Lost):
                raise ConnectionLost(
                    "libvirtd went away; the machine goes on: try again when it is back"
                )
            yield event

    async def stopped(self) -> Stopped:
        """Returns when the machine has ended."""
        async for event in self.events():
            if isinstance(event, Stopped):
                return event
        raise AssertionError("events end with an exception")


class Board:
    """Who listens to which machine of one connection. Used from several threads."""

    def __init__(self) -> None:
        self._listeners: dict[str, list[Listener]] = {}
        self._guard = threading.Lock()

    @contextmanager
    def listening(self, uuid: str) -> Iterator[Listener]:
        """For the length of a block."""
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
        """Tells who listens to one machine."""
        with self._guard:
            listeners = list(self._listeners.get(uuid, ()))
        for listener in listeners:
            listener.tell(event)

    def tell_all(self, event: Event) -> None:
        """Tells everybody."""
        with self._guard:
            listeners = [one for found in self._listeners.values() for one in found]
        for listener in listeners:
            listener.tell(event)

    def register(self, connection: Any, lost: Callable[[], None]) -> Callable[[], None]:
        """Has a new connection tell us what happens to all machines; gives what ends that.

        Args:
            connection: libvirt's own.
            lost: called when it is, before whoever listens is told.
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
        if (
            connection.getType() == "QEMU"
        ):  # libvirt 9 tells of no port but the guest agent's otherwise
            ports = libvirt_qemu.qemuMonitorEventRegister(
                connection, None, "VSERPORT_CHANGE", self._on_port, None
            )

        def end() -> None:
            for each in ids:
                connection.domainEventDeregisterAny(each)
            if ports is not None:
                libvirt_qemu.qemuMonitorEventDeregister(connection, ports)
            connection.unregisterCloseCallback()
            connection.close()

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
        told = json.loads(details)
        if told.get("open"):
            self.tell(domain.UUIDString(), Opened(told["id"]))


def _handed_over(method: Callable[..., Any]) -> Any:
    """A loop's method that is run in the loop's own thread, whoever calls it: nobody needs what it
    gives.
    """

    @functools.wraps(method)
    def call(self: _Loop, *args: Any, **kwargs: Any) -> Any:
        if self.is_foreign():
            return self.call_soon_threadsafe(functools.partial(method, self, *args, **kwargs))
        return method(self, *args, **kwargs)

    return call


class _Loop(asyncio.SelectorEventLoop):
    """libvirt calls from any thread for what asyncio takes from its own only."""

    thread: int = 0
    call_soon: Any = _handed_over(asyncio.SelectorEventLoop.call_soon)
    add_reader: Any = _handed_over(asyncio.SelectorEventLoop.add_reader)
    remove_reader: Any = _handed_over(asyncio.SelectorEventLoop.remove_reader)
    add_writer: Any = _handed_over(asyncio.SelectorEventLoop.add_writer)
    remove_writer: Any = _handed_over(asyncio.SelectorEventLoop.remove_writer)

    def is_foreign(self) -> bool:
        """Whether the caller is not the loop's own thread."""
        return self.thread not in (0, threading.get_ident())


@functools.cache
def start() -> None:
    """Makes libvirt tell of events in this process. May be called twice."""
    import libvirt
    import libvirtaio

    libvirt.registerErrorHandler(lambda *_: None, None)  # every error comes as an exception, too
    loop = _Loop()
    libvirtaio.virEventRegisterAsyncIOImpl(loop=loop)
    thread = threading.Thread(target=loop.run_forever, name="libvirt-events", daemon=True)
    thread.start()
    loop.thread = thread.ident or 0
