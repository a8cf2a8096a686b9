"""Short QMP connections.

The socket serves one client at a time and QEMU refuses a third, so callers hold a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, EventListener, ExecuteError, QMPClient, QMPError

from vc_core.driver_kit import wait_for_release
from vc_core.driver_kit.timeouts import timeout_after
from vc_qemu.errors import NoSuchDeviceError, QemuError

_GREETINGS = 10
_ANSWER_S = 20  # commands that last longer answer at once and report their end as an event
_DELETED = "DEVICE_DELETED"
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
            if error.error_class == "DeviceNotFound":
                raise NoSuchDeviceError(str(error)) from error
            raise QemuError(f"QEMU refused {command}: {error}") from error
        except QMPError as error:
            raise QemuError(f"QEMU went away during {command}: {error}") from error

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
        lent = await self.execute("add-fd")
        return f"/dev/fdset/{lent['fdset-id']}"

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
        listener = EventListener(names)
        with self._client.listen(listener):
            yield _data(listener)

    async def unplug(self, device: str, limit_s: float) -> None:
        """Removes a device; returns when the guest and QEMU have released it.

        A device that is not there is no error.

        Raises:
            HypervisorError: refused, kept by the guest beyond the limit, or QEMU ended.
        """
        async with self.events(_DELETED, *_KEPT) as answers:
            try:
                await self.execute("device_del", {"id": device})
            except NoSuchDeviceError:
                return
            except QemuError as error:
                if _PENDING not in str(error):
                    raise  # else: it was requested before, and the guest has not answered yet
            await wait_for_release(
                device, _is_released(answers, device), limit_s, lambda: self._has(device)
            )

    async def _has(self, device: str) -> bool:
        return device in await self.devices()

    async def devices(self) -> set[str]:
        """Returns the ids of all devices with an id."""
        return {
            item["name"] for item in await self.execute("qom-list", {"path": "/machine/peripheral"})
        }


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
        with contextlib.suppress(QMPError, EOFError, OSError):  # already disconnected
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
        client = QMPClient("vc")
        client.logger.disabled = True  # everything it logs is raised as an exception, too
        connection = _connected(path)
        try:
            await client.connect(connection)
        except ConnectError as error:
            connection.close()
            if isinstance(error.exc, OSError) or attempt + 1 == _GREETINGS:
                raise QemuError(f"QEMU's monitor does not answer: {error.exc!r}") from error
        except BaseException:
            connection.close()
            raise
        else:
            return client
    raise AssertionError("the loop returns or raises")


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
