"""Channels whose port QEMU releases later than it answers."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from vc_qemu import channels
from vc_qemu.answers import CharDevice
from vc_qemu.errors import QemuError
from vc_qemu.monitor import Monitor
from vc_qemu.running_machine import RunningMachine

from vc_core.driver_kit import ChannelId, HostProcess


class Qemu(Monitor):
    """A QEMU that removes a port at once, and never tells that it has released it."""

    def __init__(self):
        self.ports: set[str] = set()
        self.chardevs: set[str] = set()
        self.busy: set[str] = set()

    async def execute(self, command, arguments=None):
        if command == "device_del":
            self.ports.discard(arguments["id"])
        elif command == "chardev-remove":
            if arguments["id"] in self.busy:
                raise QemuError("QEMU refused chardev-remove: Chardev is busy")
            self.chardevs.discard(arguments["id"])
        else:
            raise QemuError(f"QEMU refused {command}")

    async def ask(self, command, kind, arguments=None):
        assert command == "query-chardev"
        return [CharDevice(label=one, frontend_open=False) for one in sorted(self.chardevs)]

    async def devices(self):
        return set(self.ports)

    def plug(self, channel):
        self.chardevs.add(channel)
        self.ports.add(f"{channel}-port")


@pytest.fixture
def qemu():
    return Qemu()


async def test_a_channel_is_closed_without_waiting_for_the_release_of_its_port(tmp_path, qemu):
    class Machine(RunningMachine):
        @asynccontextmanager
        async def monitor(self):
            yield qemu

    qemu.plug("one")
    (tmp_path / "socket").touch()
    await channels.close(Machine(HostProcess.this(), tmp_path), "one", tmp_path / "socket")
    assert qemu.ports == set()
    assert not (tmp_path / "socket").exists()


async def test_the_next_channel_removes_the_rest_of_those_that_were_closed(tmp_path, qemu):
    ours = [str(ChannelId.of_name(f"vc.agent.{number}")) for number in range(3)]
    for channel in (*ours, "first", "compat_monitor0"):
        qemu.plug(channel)
    qemu.ports -= {f"{ours[0]}-port", f"{ours[1]}-port", "first-port", "compat_monitor0-port"}
    qemu.busy = {ours[1]}  # the port is not released yet
    with pytest.raises(QemuError, match="chardev-add"):
        await channels.add(_giving(qemu), tmp_path, "vc.agent.next")
    assert qemu.chardevs == {ours[1], ours[2], "compat_monitor0"}


def _giving(qemu):
    async def give(name, handle):
        del name, handle

    qemu.give = give
    return qemu


async def test_a_machine_is_saved_when_the_ports_of_closed_channels_are_released(qemu):
    closed, open_one = (str(ChannelId.of_name(f"vc.agent.{number}")) for number in range(2))
    qemu.plug(closed)
    qemu.plug(open_one)
    qemu.ports.discard(f"{closed}-port")
    qemu.busy = {closed}

    @asynccontextmanager
    async def events(*names):
        assert names == ("DEVICE_DELETED",)

        async def told():
            yield "DEVICE_DELETED", {"path": "/machine/peripheral/another"}
            qemu.busy.clear()
            yield "DEVICE_DELETED", {"device": f"{closed}-port"}

        yield told()

    qemu.events = events
    await channels.settle(qemu)
    assert qemu.chardevs == {open_one}
