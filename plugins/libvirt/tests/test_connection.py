"""Calls, errors and events of a connection, on libvirt's own test driver; the plugin's
life on it.
"""

from __future__ import annotations

import asyncio
import threading
from xml.etree import ElementTree as ET

import libvirt
import pytest
from vc_libvirt.connection import Connection, connection
from vc_libvirt.errors import ConnectionLost, LibvirtError
from vc_libvirt.events import Stopped
from vc_libvirt.options import LibvirtOptions
from vc_libvirt.plugin import LibvirtHypervisor

from vc_core.spec import Capability, PodRef

URI = "test:///default"
XML = "<domain type='test'><name>{0}</name><memory>8192</memory><os><type>hvm</type></os></domain>"


@pytest.fixture
async def machine():
    """A machine of the test driver: its connection and uuid."""
    made = Connection(URI)
    uuid = await made.call(lambda handle: handle.createXML(XML.format("one"), 0).UUIDString())
    yield made, uuid
    for name in await made.call(lambda handle: [found.name() for found in handle.listAllDomains()]):
        if name in ("one", "two"):
            await made.call(lambda handle, name=name: handle.lookupByName(name).destroy())


async def test_a_call_that_hangs_holds_up_no_other():
    made, release = Connection(URI), threading.Event()
    hanging = asyncio.ensure_future(made.call(lambda _: release.wait()))
    async with asyncio.timeout(10):
        assert await made.call(lambda handle: handle.getType()) == "TEST"
    release.set()
    await hanging


async def test_libvirts_code_and_words_are_kept():
    with pytest.raises(LibvirtError, match=r"Domain not found \(libvirt error 42\)") as caught:
        await Connection(URI).on_domain(
            "7c0b1d9e-0000-4000-8000-000000000001", lambda found: found.name()
        )
    assert caught.value.code == libvirt.VIR_ERR_NO_DOMAIN


async def test_a_libvirtd_that_is_not_there_is_told_and_asked_again(tmp_path):
    made = Connection(f"qemu+unix:///system?socket={tmp_path}/none")
    for _ in range(2):
        with pytest.raises(ConnectionLost, match=rf"libvirtd does not answer at .*{tmp_path}/none"):
            await made.call(lambda handle: handle.getHostname())


async def test_the_end_of_a_machine_is_told(machine):
    made, uuid = machine
    with made.listening(uuid) as listener:
        await made.on_domain(uuid, lambda found: found.destroy())
        async with asyncio.timeout(10):
            assert await listener.stopped() == Stopped(in_order=False)


async def test_nobody_hears_of_another_machine(machine):
    made, uuid = machine
    other = await made.call(lambda handle: handle.createXML(XML.format("two"), 0).UUIDString())
    with made.listening(uuid) as mine, made.listening(other) as theirs:
        await made.on_domain(other, lambda found: found.destroy())
        async with asyncio.timeout(10):
            await theirs.stopped()
            await made.on_domain(uuid, lambda found: found.destroy())
            assert await mine.stopped()


async def test_whoever_waits_learns_that_the_connection_is_lost(machine):
    made, uuid = machine

    def lose(handle: libvirt.virConnect) -> None:
        handle.isAlive = lambda: False
        handle.lookupByName("no such machine")

    with made.listening(uuid) as listener:
        with pytest.raises(ConnectionLost, match="libvirtd went away: Domain not found"):
            await made.call(lose)
        with pytest.raises(ConnectionLost, match="try again when libvirtd is back"):
            await listener.stopped()
    assert await made.call(lambda handle: handle.isAlive()) == 1, "the next call connects anew"


async def test_a_call_that_hangs_holds_nobody_else_up():
    made, hangs, goes_on = Connection(URI), threading.Event(), threading.Event()

    def hang(_: object) -> None:
        hangs.set()
        goes_on.wait()

    task = asyncio.create_task(made.call(hang))
    await asyncio.to_thread(hangs.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await made.call(lambda handle: handle.getType()) == "TEST"
    goes_on.set()


def test_one_connection_per_uri_in_a_process():
    assert connection(URI) is connection(URI)


def test_a_connection_outlives_the_loops_of_its_callers():
    made = Connection(URI)
    for _ in range(2):
        assert asyncio.run(made.call(lambda handle: handle.getType())) == "TEST"


async def test_the_test_driver_declares_what_it_can(tmp_path):
    plugin = LibvirtHypervisor(LibvirtOptions(uri=URI))
    assert await plugin.vm_capabilities(PodRef(id="p", run_dir=tmp_path)) == {
        Capability.UNIX_CHANNEL,
        Capability.PAUSE,
    }


async def test_a_machine_pauses_and_goes_on(machine):
    made, uuid = machine
    await made.on_domain(uuid, lambda found: found.suspend())
    state, _ = await made.on_domain(uuid, lambda found: found.state())
    assert state == libvirt.VIR_DOMAIN_PAUSED
    await made.on_domain(uuid, lambda found: found.resume())
    assert (
        ET.fromstring(await made.on_domain(uuid, lambda found: found.XMLDesc())).findtext("name")
        == "one"
    )


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        (
            {"uri": "nonsense"},
            "uri: must be a libvirt URI, such as qemu:///system or qemu:///session",
        ),
        ({"max_vcpus": 0}, "max_vcpus: must be at least 1"),
        (
            {"root_ports": 17},
            "root_ports: must be from 0 to 16, the number of places on the machine's bus",
        ),
    ],
)
def test_options_that_cannot_be(values, problem):
    assert list(LibvirtOptions(**values).problems()) == [problem]
