"""Short QMP connections.

The socket serves one client at a time and QEMU refuses a third, so callers hold a lock.

An attacker who has taken over QEMU writes what is read here. A message has at most _MESSAGE_BYTES,
events that nothing waits for are discarded, those that something waits for are bounded, and every
error of the library ends as a QemuError.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from qemu.qmp import ConnectError, EventListener, ExecuteError, Message, QMPClient, QMPError

from vc_core.driver_kit import wait_for_release
from vc_core.driver_kit.timeouts import timeout_after
from vc_qemu.answers import FdSet, Halt, QomItem
from vc_qemu.errors import NoSuchDeviceError, QemuError

T = TypeVar("T")
_GREETINGS = 10
_GREETING_S = 60  # a QEMU that starts greets when its devices are there
_ANSWER_S = 20  # commands that last longer answer at once and report their end as an event
_MESSAGE_BYTES = 1 << 20  # the longest, a list of 255 vCPUs, has 50 KiB
_EVENT_BYTES, _EVENTS = 16 << 10, 256  # of one event, and events that are not read yet
_REASON = 500  # characters of an error of QEMU's
_DELETED = "DEVICE_DELETED"
_STOP, _RESUME = "STOP", "RESUME"
_KEPT = ("DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR")
_PENDING = "in the process of unplug"  # QEMU's message if the removal was requested before


class Monitor:
    """An open QMP connection."""

    def __init__(self, client: QMPClient) -> None:
        self._client = client

    async def execute(self, command: str, arguments: dict[str, object] | None = None) -> Any:
        """Runs one command with a time limit, so that undoing a failed one does not hang.

        Raises:
            QemuError: QEMU refuses, does not answer in time, or has ended.
        """
        try:
            async with timeout_after(_ANSWER_S):
                return await self._client.execute(command, arguments)
        except TimeoutError as error:
            raise QemuError(f"QEMU did not answer {command} within {_ANSWER_S} s") from error
        except ExecuteError as error:
            reason = str(error)[:_REASON]
            if error.error_class == "DeviceNotFound":
                raise NoSuchDeviceError(reason) from error
            raise QemuError(f"QEMU refused {command}: {reason}") from error
        except QMPError as error:
            raise QemuError(f"QEMU went away during {command}: {error}") from error

    async def ask(
        self, command: str, kind: type[T], arguments: dict[str, object] | None = None
    ) -> T:
        """Runs one command and returns its answer as a typed value, see `answers`.

        Raises:
            QemuError: as `execute`; or the answer has another form.
        """
        answer = await self.execute(command, arguments)
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as error:
            raise QemuError(f"QEMU answered {command} in a wrong form: {error}") from error

    async def give(self, name: str, handle: int) -> None:
        """Passes an open file to QEMU under a name.

        Raises:
            QemuError: QEMU refuses.
        """
        self._client.send_fd_scm(handle)
        await self.execute("getfd", {"fdname": name})

    async def lend(self, handle: int) -> str:
        """Passes an open file to QEMU; gives the name under which QEMU can open it repeatedly.

        When nothing in QEMU has it open any more, QEMU closes it with the connection.

        Raises:
            QemuError: refused.
        """
        self._client.send_fd_scm(handle)
        lent = await self.ask("add-fd", FdSet)
        return f"/dev/fdset/{lent.fdset_id}"

    async def reopen(self, chardev: str, file: Path) -> None:
        """Makes QEMU reopen the file of a character device.

        QEMU's offset stays at the end of what it wrote after the file was truncated. Where files
        can be as long as the largest offset, the kernel then accepts no further byte from it.

        Raises:
            QemuError: QEMU refuses.
        """
        backend = {"type": "file", "data": {"out": str(file), "append": True}}
        await self.execute("chardev-change", {"id": chardev, "backend": backend})

    @asynccontextmanager
    async def events(
        self, *names: str
    ) -> AsyncIterator[AsyncIterator[tuple[str, Mapping[str, Any]]]]:
        """Provides name and data of the events of these names from now on."""
        listener = _BoundedEvents(names)
        with self._client.listen(listener):
            yield _data(listener)

    @asynccontextmanager
    async def halts(self) -> AsyncIterator[Halts]:
        """Provides the time for which the vCPUs stand still from now on."""
        listener = _BoundedEvents((_STOP, _RESUME))
        with self._client.listen(listener):
            yield Halts(listener)

    async def begin_unplug(self, device: str) -> bool:
        """Removes a device, without waiting until QEMU has released it.

        Returns False for a device that is not there. One whose removal was requested before is no
        error.

        Raises:
            QemuError: refused, or QEMU ended.
        """
        try:
            await self.execute("device_del", {"id": device})
        except NoSuchDeviceError:
            return False
        except QemuError as error:
            if _PENDING not in str(error):
                raise
        return True

    async def released(
        self, device: str, command: str, arguments: dict[str, object], limit_s: float
    ) -> None:
        """Runs a command that QEMU refuses until it has released a device, when that is so.

        Raises:
            QemuError: QEMU does not release it within the limit, refuses nevertheless, or ended.
        """
        async with self.events(_DELETED) as answers:
            try:
                await self.execute(command, arguments)
            except QemuError:
                # It may also have been released between the refusal and the first event.
                with contextlib.suppress(TimeoutError):
                    async with timeout_after(limit_s):
                        await _is_released(answers, device)
                await self.execute(command, arguments)

    async def unplug(self, device: str, limit_s: float) -> None:
        """Removes a device; returns when the guest and QEMU have released it.

        A device that is not there is no error.

        Raises:
            HypervisorError: refused, kept by the guest beyond the limit, or QEMU ended.
        """
        async with self.events(_DELETED, *_KEPT) as answers:
            if not await self.begin_unplug(device):
                return
            await wait_for_release(
                device, _is_released(answers, device), limit_s, lambda: self._has(device)
            )

    async def _has(self, device: str) -> bool:
        return device in await self.devices()

    async def devices(self) -> set[str]:
        """Returns the ids of all devices with an id."""
        items = await self.ask("qom-list", list[QomItem], {"path": "/machine/peripheral"})
        return {item.name for item in items}


class _BoundedEvents(EventListener):
    """Keeps no history, and not more events than somebody reads in time. The rest is discarded."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(names)
        self._unread: asyncio.Queue[Message] = asyncio.Queue(_EVENTS)

    async def put(self, event: Message) -> None:
        if self.accept(event) and len(bytes(event)) <= _EVENT_BYTES and not self._unread.full():
            self._unread.put_nowait(event)

    async def get(self) -> Message:
        return await self._unread.get()

    def empty(self) -> bool:
        return self._unread.empty()

    def clear(self) -> list[Message]:
        return [self._unread.get_nowait() for _ in range(self._unread.qsize())]


class Halts:
    """How long the vCPUs of a machine stand still, by QEMU's own times."""

    def __init__(self, events: _BoundedEvents) -> None:
        self._events = events

    def seconds(self) -> float:
        """Returns the sum of all halts that have ended, in seconds; to be called once.

        QEMU sends the event of an end before it answers the command that ends the halt.

        Raises:
            QemuError: an event has another form.
        """
        total_us, since_us = 0, None
        for event in self._events.clear():
            try:
                found = msgspec.convert(dict(event), Halt)
            except msgspec.ValidationError as error:
                raise QemuError(f"QEMU sent an event in a wrong form: {error}") from error
            at_us = found.timestamp.seconds * 1_000_000 + found.timestamp.microseconds
            if found.event == _STOP:
                since_us = at_us
            elif since_us is not None:
                total_us += max(0, at_us - since_us)  # the host's clock may have been set back
                since_us = None
        return total_us / 1e6


async def _is_released(answers: AsyncIterator[tuple[str, Mapping[str, Any]]], device: str) -> bool:
    async for name, data in answers:
        if data.get("device") == device:
            return name == _DELETED
    raise AssertionError("events end with an exception")


async def _data(listener: EventListener) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
    async for event in listener:
        data = event.get("data", {})  # not all have any
        if isinstance(data, Mapping):
            yield str(event["event"]), data


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Monitor]:
    """Provides a connection for the length of a block. The caller must hold the monitor's lock.

    Raises:
        QemuError: QEMU does not answer.
    """
    client = await _greeted(path)
    try:
        yield Monitor(client)
    finally:
        # What ended the connection: the commands that waited for an answer have failed by it. It is
        # any exception where QEMU has sent nonsense.
        with contextlib.suppress(Exception):
            disconnecting = asyncio.ensure_future(client.disconnect())
            disconnecting.add_done_callback(_retrieve)  # when this task is cancelled
            await asyncio.shield(disconnecting)


def _retrieve(done: asyncio.Future[None]) -> None:
    """Takes the exception of a task that nobody awaits any more: asyncio would print it."""
    if not done.cancelled():
        done.exception()


async def _greeted(path: Path) -> QMPClient:
    """Connects again when QEMU has not finished with the previous client.

    A new client then reads data for that one, or is disconnected. Connecting again is safe, since
    no command was sent.
    """
    for attempt in range(_GREETINGS):
        client = QMPClient("vc", _MESSAGE_BYTES)
        client.events.event_filter = _none  # the library would keep every event for ever
        client.logger.disabled = True  # everything it logs is raised as an exception, too
        connection = _connected(path)
        try:
            async with timeout_after(_GREETING_S):
                await client.connect(connection)
        except TimeoutError as error:
            connection.close()
            raise QemuError(f"QEMU's monitor does not greet within {_GREETING_S} s") from error
        except ConnectError as error:
            connection.close()
            if isinstance(error.exc, OSError) or attempt + 1 == _GREETINGS:
                raise QemuError(f"QEMU's monitor does not answer: {error.exc!r}") from error
        except AssertionError as error:  # the library's: nonsense came right after the greeting
            with contextlib.suppress(Exception):
                await client.disconnect()
            connection.close()
            raise QemuError("QEMU's monitor does not answer: it went away at once") from error
        except BaseException:
            connection.close()
            raise
        else:
            return client
    raise AssertionError("the loop returns or raises")


def _none(_: Message) -> bool:
    return False


def _connected(path: Path) -> socket.socket:
    """Connects a socket; never waits.

    asyncio takes EAGAIN of connect(2) for the beginning of a connection. On unix sockets it means
    that the queue is full (unix(7)): QEMU has accepted none of the connections before this one.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.setblocking(False)
        connection.connect(str(path))
    except OSError as error:
        connection.close()
        reason = "it accepts no connection" if error.errno == errno.EAGAIN else error.strerror
        raise QemuError(f"QEMU's monitor does not answer: {reason}") from error
    return connection
