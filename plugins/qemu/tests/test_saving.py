"""Saves of machines whose QEMU is played by a socket: how they fail."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from vc_qemu import checkpoint, monitor
from vc_qemu.checkpoint import Manifest
from vc_qemu.errors import QemuError
from vc_qemu.hotplugged import Hotplugged

from vc_core.spec import Checkpoint

ANSWERS = {
    "query-status": {"running": True, "status": "running"},
    "query-hotpluggable-cpus": [],
    "query-memory-devices": [],
    "qom-list": [],
    "query-migrate": {"error-desc": "a device cannot be saved"},
}
MANIFEST = Manifest(1, 1, 0, "qemu", Hotplugged(()))


class Qemu:
    """The connection of a QEMU that a test plays.

    Attributes:
        given: the last file that it was given.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.given = -1

    def say(self, **message: object) -> None:
        self._connection.sendall(json.dumps(message).encode() + b"\n")

    def read(self) -> dict[str, object]:
        """Returns a command; the client sends one at a time, and a space with each file."""
        data = b" "
        while data.isspace():
            data, handles, _, _ = socket.recv_fds(self._connection, 1 << 16, 1)
            for handle in handles:
                self.given = handle
        return json.loads(data) if data else {}


@contextmanager
def played(path: Path, migrate: Callable[[Qemu], None]) -> Iterator[None]:
    """Plays a QEMU that answers all commands, until this function returns after "migrate"."""

    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            qemu = Qemu(connection)
            qemu.say(QMP={"version": {}, "capabilities": []})
            while command := qemu.read():
                name = str(command["execute"])
                qemu.say(**{"return": ANSWERS.get(name, {}), "id": command.get("id")})
                if name == "migrate":
                    migrate(qemu)
                    break
        if qemu.given >= 0:
            os.close(qemu.given)

    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield
        thread.join()


async def test_the_reason_of_a_failed_save_is_told_also_of_a_qemu_that_ends(tmp_path):
    def fail(qemu: Qemu) -> None:
        at = {"seconds": 1, "microseconds": 0}
        qemu.say(event="MIGRATION", data={"status": "failed"}, timestamp=at)
        asked = qemu.read()
        assert asked["execute"] == "query-migrate"
        qemu.say(**{"return": ANSWERS["query-migrate"], "id": asked["id"]})

    into = Checkpoint(folder=tmp_path, memory=tmp_path / "memory")
    with played(tmp_path / "qmp", fail), pytest.raises(QemuError, match="device cannot be saved"):
        async with monitor.connected(tmp_path / "qmp") as connection:
            await checkpoint.save(connection, into, MANIFEST, _kill)


@pytest.mark.parametrize("leaves_size", [False, True])
@pytest.mark.parametrize("says", ["nothing", "completed"])
async def test_a_qemu_that_writes_without_end_is_killed(tmp_path, leaves_size, says):
    killed = threading.Event()

    def write(qemu: Qemu) -> None:
        if leaves_size:
            keep_size = 1
            assert (
                ctypes.CDLL(None).fallocate(
                    qemu.given, keep_size, ctypes.c_int64(0), ctypes.c_int64(300 << 20)
                )
                == 0
            )
        else:
            os.ftruncate(qemu.given, 300 << 20)
        if says != "nothing":
            at = {"seconds": 1, "microseconds": 0}
            qemu.say(event="MIGRATION", data={"status": says}, timestamp=at)
        killed.wait()

    async def kill() -> None:
        killed.set()

    into = Checkpoint(folder=tmp_path, memory=tmp_path / "memory")
    with played(tmp_path / "qmp", write), pytest.raises(QemuError, match="more than 258 MiB"):
        async with asyncio.timeout(60), monitor.connected(tmp_path / "qmp") as connection:
            await checkpoint.save(connection, into, MANIFEST, kill)
    assert killed.is_set()
    assert list(tmp_path.iterdir()) == [tmp_path / "qmp"]


async def _kill() -> None:
    pytest.fail("it has written nothing")
