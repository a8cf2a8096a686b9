"""Devices of the host in containers of real machines."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vc_core import HostDevice
from vc_core.spec import HypervisorError, OperationError


@pytest.fixture
def disk(tmp_path) -> Path:
    image = tmp_path / "disk.img"
    image.write_bytes(b"FIRST".ljust(1 << 20, b"\0"))
    return image


@pytest.mark.parametrize(
    ("bus", "node"),
    [("scsi", "/sys/class/scsi_disk"), ("blk", "/sys/bus/virtio/drivers/virtio_blk")],
)
async def test_a_disk_has_a_node_with_mode_and_owner_and_gives_its_place_back(
    host, busybox, disk, loop, bus, node
):
    # As many ports as are needed at once, with the one of the rootfs.
    host.configure("hypervisor", root_ports=3)
    host.configure("device.block", bus=bus)
    device = loop(disk)
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        wanted = [
            HostDevice(path=device, destination="/dev/data", mode=0o640, uid=12, gid=34),
            HostDevice(path=disk.with_name("other.img"), destination="/dev/other", read_only=True),
        ]
        wanted[1].path.write_bytes(b"SECOND".ljust(1 << 20, b"\0"))
        script = (
            "stat -c '%A %u %g' /dev/data; head -c 5 /dev/data; head -c 6 /dev/other; "
            "echo CHANGED | dd of=/dev/data conv=notrunc,fsync 2>/dev/null; echo x > /dev/other"
        )
        for _ in range(2):  # the second time in the places that the first has given back
            result = await pod.run("sh", "-c", script, rootfs="/", devices=wanted)
            lines = result.stdout.split(b"\n")
            assert lines[0] == b"brw-r----- 12 34"
            assert lines[1] in (b"FIRSTSECOND", b"CHANGSECOND")
            assert b"/dev/other" in result.stderr, "a read-only device refuses"
        assert disk.read_bytes().startswith(b"CHANGED")
        listed = await pod.run("ls", node, rootfs="/")
        assert b":" not in listed.stdout, "nothing is left of the disks in the guest"
    assert json.dumps(host.residue()) == "[]"


@pytest.mark.only("qemu")
async def test_only_the_devices_of_a_container_are_open_to_it(host, busybox, disk):
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        one = await pod.run(
            "sh",
            "-c",
            "stat -c '%t %T' /dev/data; sleep 0",
            rootfs=busybox,
            devices=[HostDevice(path=disk, destination="/dev/data")],
        )
        major, minor = (int(number, 16) for number in one.stdout.split())
        script = f"busybox mknod /x b {major} {minor}; head -c 1 /x"
        other = await pod.run("sh", "-c", script, rootfs=busybox)
        assert other.exit_code != 0
        assert b"Operation not permitted" in other.stderr


@pytest.mark.only("qemu")
def test_char_devices_are_the_guests_own_or_refused_with_the_reason(host, busybox):
    words = [
        "--rootfs",
        str(busybox),
        "--device",
        "/dev/fuse",
        "--device",
        "/dev/net/tun:/dev/tunnel",
    ]
    told = host.vc("run", *words, "--", "stat", "-c", "%n %t %T", "/dev/fuse", "/dev/tunnel").stdout
    assert told == b"/dev/fuse a e5\n/dev/tunnel a c8\n"
    refused = host.vc(
        "run", "--rootfs", str(busybox), "--device", "/dev/loop-control", "--", "true", check=125
    )
    assert b"belongs to the host's kernel" in refused.stderr
    missing = host.vc(
        "run", "--rootfs", str(busybox), "--device", "/dev/nothing", "--", "true", check=125
    )
    assert b"there is no device /dev/nothing on this host" in missing.stderr


@pytest.mark.only("qemu")
def test_a_device_in_use_by_another_pod_is_refused_and_nothing_is_left(host, busybox, disk):
    words = ["--rootfs", str(busybox), "--device", f"{disk}:/dev/data"]
    host.vc("run", "-d", "--name", "first", *words, "--", "sleep", "99")
    told = host.vc("run", *words, "--", "true", check=125).stderr.decode()
    assert 'Failed to get "write" lock' in told
    host.vc("pod", "delete", "first")


# --- vhost-user -----------------------------------------------------------------------------------


@pytest.fixture
def vhost_disk(disk, tmp_path) -> Iterator[Path]:
    """The socket of a real backend: QEMU's storage daemon."""
    path = tmp_path / "blk.sock"
    export = f"type=vhost-user-blk,id=e,node-name=n,addr.type=unix,addr.path={path},writable=on"
    command = [
        "qemu-storage-daemon",
        "--blockdev",
        f"driver=file,filename={disk},node-name=n",
        "--export",
        export,
    ]
    daemon = subprocess.Popen(command)
    while not path.exists():
        assert daemon.poll() is None
    yield path
    daemon.terminate()
    daemon.wait()


@pytest.mark.only("qemu")
def test_a_vhost_user_disk_is_hot_plugged_and_read(host, vhost_disk):
    host.configure("hypervisor", shared_memory=True)
    host.vc(
        "run",
        "-d",
        "--name",
        "p",
        "--device",
        f"vhost-user-blk={vhost_disk}:/dev/data",
        "--",
        "sleep",
        "99",
    )
    told = host.vc(
        "exec", "p", "--", "sh", "-c", "cat /sys/block/vda/size; head -c 5 /dev/data"
    ).stdout
    assert told == b"2048\nFIRST"
    host.vc("pod", "delete", "p")


def test_vhost_user_needs_memory_that_can_be_shared(host, vhost_disk):
    told = host.vc(
        "run", "--device", f"vhost-user-blk={vhost_disk}", "--", "true", check=125
    ).stderr.decode()
    assert "cannot plug vhost-user devices" in told


@pytest.mark.parametrize(
    ("driver", "argument"),
    [("vhost-user-scsi-pci", "chardev"), ("virtio-net-pci", "netdev"), ("vfio-pci", "host")],
)
def test_qemu_knows_the_devices_that_this_host_has_no_backend_for(driver, argument):
    told = subprocess.run(
        ["qemu-system-x86_64", "-device", f"{driver},help"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert f"  {argument}=" in told


# --- vfio -----------------------------------------------------------------------------------------


async def test_qemu_takes_the_arguments_of_vfio(host):
    """This host has no device to pass: QEMU must fail for want of that, not of a property it does
    not know.
    """
    from vc_core.spec import HostPci

    async with (
        host.runtime() as runtime,
        runtime.pod("p") as pod,
        pod._sessions.open(exclusive=True) as session,
    ):
        wanting = r"0000:7f:00\.0.*(no such host device|No such file)|host doesn't support VFIO"
        with pytest.raises(HypervisorError, match=wanting):
            await session.hooks.vm_plug(
                pod=session.pod, device=HostPci(id="vfio-x", address="0000:7f:00.0")
            )


# --- unplugging -----------------------------------------------------------------------------------


async def test_a_guest_that_keeps_a_device_hangs_nobody(host, busybox, disk):
    """A machine that is stopped cannot let a PCI device go: the call ends at its limit, and a later
    one succeeds.
    """
    host.configure("hypervisor", unplug_timeout_s=2)
    host.configure("device.block", bus="blk")
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        from vc_core import ContainerSpec, ProcessSpec, Rootfs

        spec = ContainerSpec(
            id="a",
            rootfs=Rootfs(path=busybox),
            process=ProcessSpec(args=("/bin/sleep", "99")),
            devices=(HostDevice(path=disk, destination="/dev/data"),),
        )
        one = await pod.create_container(spec)
        async with pod._sessions.open(exclusive=True) as session:
            (held,) = session.state.devices
            await session.hooks.vm_pause(pod=session.pod)
            began = asyncio.get_running_loop().time()
            with pytest.raises(
                OperationError, match=r"has not released .* within 2 s; it is still plugged"
            ):
                await session.hooks.vm_unplug(pod=session.pod, plugged=held.plugged[0])
            assert asyncio.get_running_loop().time() - began < 10
            await session.hooks.vm_resume(pod=session.pod)
        await one.delete(force=True)
        async with pod._sessions.open(exclusive=False) as session:
            assert session.state.devices == ()
