"""Connections to QEMU's monitor, which is played by a socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from qemu.qmp import Message
from vc_qemu import monitor
from vc_qemu.errors import QemuError
from vc_qemu.hotplugged import Hotplugged

GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'


async def test_a_monitor_that_accepts_nothing_is_told_as_such(tmp_path):
    path = tmp_path / "qmp.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen(0)
        with socket.socket(socket.AF_UNIX) as waiting:
            waiting.connect(str(path))
            for _ in range(2):
                with pytest.raises(QemuError, match="does not answer: it accepts no connection"):
                    async with monitor.connected(path):
                        pytest.fail("nobody is there")


async def test_a_monitor_that_is_gone_is_told_as_such(tmp_path):
    with pytest.raises(QemuError, match="does not answer: No such file or directory"):
        async with monitor.connected(tmp_path / "qmp.sock"):
            pytest.fail("nobody is there")


@asynccontextmanager
async def _played(path: Path, *answers: bytes, greeting: bytes = GREETING) -> AsyncIterator[None]:
    """QEMU's side: one answer for each command after the greeting, in which @ is the command's id.
    After the last one the connection ends.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        for answer in (b'{"return": {}}\n', *answers):
            command = await reader.read(1 << 16)  # one at a time, without an end of line
            if not command:
                break
            name = json.dumps(json.loads(command).get("id")).encode()
            writer.write(answer.replace(b"@", name))
            with contextlib.suppress(ConnectionError):
                await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(serve, path):
        yield


@pytest.mark.parametrize(
    "answer",
    [
        b"\n",
        b"[]\n",
        b'{"return": \n',
        b"\xff\xfe\n",
        b"[" * 100_000 + b"\n",
        b'{"return": ' + b"9" * 5000 + b', "id": @}\n',
        b'{"id": [], "return": {}}\n',
        b'{"id": @}\n',
        b'{"error": 7, "id": @}\n',
        b'{"error": {"class": "GenericError", "desc": 7}, "id": @}\n',
        b'{"error": {"class": "GenericError", "desc": "' + b"x" * 500_000 + b'"}, "id": @}\n',
        b'{"event": []}\n',
        b'{"event": {}, "id": @}\n',
        b'{"return": [], "id": @}\n{"return": [], "id": @}\n{"return": 1, "id": @}\n{',
        b'{"return": "' + b"x" * (1 << 20) + b'", "id": @}\n',
        b'{"return": [{"name": {}, "type": ""}], "id": @}\n',
        b'{"return": {"name": "a"}, "id": @}\n',
        b'{"return": ["name"], "id": @}\n',
    ],
)
async def test_nonsense_of_qemu_is_one_short_error(tmp_path, answer):
    async with _played(tmp_path / "qmp", answer):
        try:
            async with monitor.connected(tmp_path / "qmp") as connection:
                assert await connection.devices() == set()  # a right answer, then nonsense
        except QemuError as error:
            assert len(str(error)) < 1000  # noqa: PT017


@pytest.mark.parametrize(
    "greeting", [b"\n", b"\xff\n", b"[" * 100_000 + b"\n", b'{"QMP": 7}\n', b"x" * (3 << 20)]
)
async def test_a_greeting_that_is_none_is_one_error(tmp_path, greeting):
    async with _played(tmp_path / "qmp", b"x", greeting=greeting):
        with pytest.raises(QemuError, match="monitor does not answer"):
            async with monitor.connected(tmp_path / "qmp"):
                pytest.fail("it has not greeted")


async def test_a_flood_of_events_is_not_kept(tmp_path):
    event = b'{"event": "DEVICE_DELETED", "data": {"device": "x", "path": "/machine"}}\n'
    answer = event * 10_000 + b'{"return": [], "id": @}\n'
    wanted = ("DEVICE_DELETED", {"device": "x", "path": "/machine"})
    async with (
        _played(tmp_path / "qmp", answer, answer),
        monitor.connected(tmp_path / "qmp") as connection,
    ):
        assert await connection.devices() == set()
        assert _messages() < 10
        async with connection.events("DEVICE_DELETED") as events:
            assert await connection.devices() == set()
            assert _messages() < 300
            assert await anext(events) == wanted


def _messages() -> int:
    gc.collect()
    return sum(isinstance(one, Message) for one in gc.get_objects())


def _answered(*values: object) -> list[bytes]:
    return [json.dumps({"return": one}).encode()[:-1] + b', "id": @}\n' for one in values]


_CPU = {"type": "max-x86_64-cpu", "props": {"socket-id": 1}, "vcpus-count": 1}
_PLUGGED = {**_CPU, "qom-path": "/machine/peripheral/cpu-1-0-0"}
_DIMM = {"id": "dimm-0", "memdev": "/objects/mem-0", "size": 1, "slot": 0, "addr": 2}
_PORT = {"name": "channel-1-2-a-port", "type": "child<virtserialport>"}


async def test_what_is_plugged_is_read_as_it_was_given(tmp_path):
    answers = _answered([_PLUGGED, _CPU], [{"type": "dimm", "data": _DIMM}], [_PORT], 3)
    async with (
        _played(tmp_path / "qmp", *answers),
        monitor.connected(tmp_path / "qmp") as connection,
    ):
        found = await Hotplugged.look(connection, ())
    assert found.vcpus == ({"driver": "max-x86_64-cpu", "id": "cpu-1-0-0", "socket-id": 1},)
    assert found.memories == {"mem-0": 1}
    assert found.ports == {"channel-1-2-a-port": 3}


@pytest.mark.parametrize(
    ("vcpu", "module", "port"),
    [
        ({"type": "vfio-pci"}, {}, {}),
        ({"props": {"socket-id": 1, "host": "0000:00:02.0"}}, {}, {}),
        ({"props": {"driver": 1}}, {}, {}),
        ({"qom-path": "/machine/peripheral/share-root"}, {}, {}),
        ({}, {"memdev": "/objects/.."}, {}),
        ({}, {"memdev": "/etc/passwd"}, {}),
        ({}, {"size": -1}, {}),
        ({}, {"id": "dimm-0,x"}, {}),
        ({}, {}, {"name": "disk-a"}),
    ],
)
async def test_a_broken_qemu_plugs_nothing_into_the_machines_of_its_snapshot(
    tmp_path, vcpu, module, port
):
    devices = [{"type": "dimm", "data": {**_DIMM, **module}}]
    answers = _answered([{**_PLUGGED, **vcpu}], devices, [{**_PORT, **port}], 3)
    async with (
        _played(tmp_path / "qmp", *answers),
        monitor.connected(tmp_path / "qmp") as connection,
    ):
        with pytest.raises(QemuError):
            await Hotplugged.look(connection, ())


async def test_a_qemu_that_never_greets_is_one_error(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor, "_GREETING_S", 0.05)
    async with _played(tmp_path / "qmp", greeting=b""):
        with pytest.raises(QemuError, match="does not greet within"):
            async with monitor.connected(tmp_path / "qmp"):
                pytest.fail("it has not greeted")
