"""What only libvirt has: machines that its own tools see, a daemon that may go away, a neighbour of
another kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import threading
import weakref
from pathlib import Path

import libvirt
import pytest
from vc_libvirt.connection import CLOSING, connection

from tests.e2e.conftest import new_host
from vc_core.spec import ContainerSpec, ProcessSpec, Rootfs, VcError

pytestmark = pytest.mark.only("libvirt")


@pytest.fixture
def virsh(host, libvirtd):
    """Types a command of libvirt's own."""

    def typed(*words: str) -> str:
        command = ["virsh", "--connect", libvirtd.uri, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return typed


def test_libvirts_tools_see_a_pods_machine_and_whose_it_is(host, virsh):
    host.vc("run", "-d", "--name", "seen", "--", "sleep", "99")
    (name,) = virsh("list", "--name", "--transient").split()
    assert name.startswith("vc-seen-")
    (domain,) = virsh("list", "--uuid").split()
    assert "seen" in virsh("metadata", domain, "urn:virtcontainers:1")
    host.vc("pod", "delete", "--force", "seen")
    assert virsh("list", "--all", "--name").split() == []


def test_a_pod_lives_through_a_restart_of_libvirtd_and_is_found_again(host, libvirtd):
    host.vc("run", "-d", "--name", "p", "--", "sleep", "99")
    libvirtd.restart()
    assert host.vc("exec", "p", "--", "echo", "alive").stdout == b"alive\n"
    host.vc("pod", "pause", "p")
    host.vc("pod", "resume", "p")
    host.vc("pod", "delete", "--force", "p")


async def test_one_process_goes_on_after_a_restart_of_libvirtd(host, libvirtd):
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        container = await pod.create_container(
            ContainerSpec(
                id="c",
                rootfs=Rootfs(path=Path("/")),
                process=ProcessSpec(args=("/bin/sleep", "99")),
            )
        )
        await container.start()
        process = await container.exec(ProcessSpec(args=("/bin/cat",)))
        streams = await process.streams()
        await asyncio.to_thread(libvirtd.restart)
        await streams.write(b"through")
        await streams.close_stdin()
        assert [chunk async for _, chunk in streams.chunks()] == [b"through"]
        await process.close()
        assert (await pod.run("echo", "after")).stdout == b"after\n"


def test_what_is_wrong_at_libvirtd_is_told_in_a_line(host, tmp_path):
    host.configure("hypervisor", uri=f"qemu+unix:///system?socket={tmp_path}/nobody")
    done = host.vc("run", "--name", "p", "--", "true", check=125)
    assert b"libvirtd does not answer at qemu+unix:///system" in done.stderr
    assert done.stderr.count(b"\n") == 1
    told = host.vc("doctor", check=None).stdout.decode()
    assert "libvirt-daemon-system" in told


async def test_lost_connections_to_libvirtd_are_closed(host, libvirtd):
    handles: weakref.WeakSet[libvirt.virConnect] = weakref.WeakSet()
    async with host.runtime() as runtime:
        for _ in range(3):
            await runtime.diagnose()
            handles.update(one for one in gc.get_objects() if isinstance(one, libvirt.virConnect))
            await asyncio.to_thread(libvirtd.restart)
            with contextlib.suppress(VcError):  # this call or one before has noticed the loss
                await connection(libvirtd.uri).call(lambda handle: handle.getLibVersion())
            for thread in threading.enumerate():
                if thread.name == CLOSING:
                    await asyncio.to_thread(thread.join)
    gc.collect()
    assert len(handles) <= 1  # that of the last call, if it has connected again


def test_libvirts_confinement_is_told_as_it_is(host, libvirtd):
    host.vc("run", "-d", "--name", "p", "--", "sleep", "99")
    (pod,) = json.loads(host.vc("inspect", "p").stdout)
    told = pod["confinement"]
    assert "sandbox" in told["layers"]
    status = Path(f"/proc/{pod['pid']}/status").read_text()
    assert "Seccomp:\t2" in status
    lacks = {lack.partition(":")[0]: lack for lack in told["missing"]}
    assert set(lacks) & set(told["layers"]) == set()
    assert "user" in lacks
    assert "\nUid:\t0" in status
    held = int(status.partition("CapEff:")[2].split()[0], 16).bit_count()
    assert f"QEMU has {held};" in lacks["capabilities"]
    assert "QEMU is in the host's: pid, net, ipc" in lacks["namespaces"]
    said = host.vc("doctor", check=None).stdout.decode()
    assert "ok   libvirt's security drivers: none, dac" in said
    assert "ok   libvirt's confinement: sandbox: " in said
    assert "warn libvirt's confinement: user: QEMU is root" in said
    assert len(host.machines()) == 1  # the machine of the doctor has ended
    host.vc("pod", "delete", "--force", "p")


def test_a_sandbox_that_is_switched_off_is_told(host, libvirtd):
    config = libvirtd.folder / "qemu.conf"
    before = config.read_text()
    config.write_text(before + "seccomp_sandbox = 0\n")
    try:
        libvirtd.restart()
        said = host.vc("doctor", check=None).stdout.decode()
    finally:
        config.write_text(before)
        libvirtd.restart()
    assert "warn libvirt's confinement: sandbox: QEMU runs without a seccomp filter" in said
    assert "seccomp_sandbox = 1" in said


async def test_both_hypervisors_run_a_pod_each_in_one_process(host, templates, tmp_path_factory):
    beside = new_host(tmp_path_factory.mktemp("qemu"), {}, templates)
    async with (
        host.runtime() as one,
        beside.runtime() as other,
        one.pod("p") as first,
        other.pod("p") as second,
    ):
        told = await asyncio.gather(
            *(pod.run("cat", "/proc/sys/kernel/random/boot_id") for pod in (first, second))
        )
        assert len({result.stdout for result in told}) == 2
        assert len(host.machines()) == len(beside.machines()) == 1
    assert beside.residue() == []
