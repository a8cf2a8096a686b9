"""Who claims which device, and what becomes of it."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from msgspec import structs
from vc_devices import BlockDevices, CharDevices, VfioDevices, VhostUserDevices
from vc_devices.options import BlockOptions, VfioOptions

from vc_core.spec import (
    DeviceError,
    Drive,
    DriveBus,
    GuestNode,
    HostDevice,
    HostPci,
    PodRef,
    VhostKind,
    VhostUser,
)
from vc_core.testing import DeviceContract, DeviceSubject

NIC, AUDIO, BRIDGE = "0000:01:00.0", "0000:01:00.1", "0000:00:01.0"


@pytest.fixture
def pod(tmp_path):
    return PodRef(id="p", run_dir=tmp_path)


def block(bus=DriveBus.SCSI) -> BlockDevices:
    return BlockDevices(BlockOptions(bus))


async def test_an_image_file_becomes_a_drive_with_an_id_of_its_own(pod, tmp_path):
    prefix = tmp_path / ("same-prefix-" * 5)
    devices = [
        HostDevice(path=Path(f"{prefix}{number}"), destination="/dev/x", read_only=True)
        for number in range(2)
    ]
    for device in devices:
        device.path.touch()
        assert await block().device_claims(pod, device)
        assert not await CharDevices().device_claims(pod, device)
    (first,), (second,) = [await block().device_prepare(pod, device) for device in devices]
    assert isinstance(first, Drive)
    assert first.id != second.id
    assert len(first.id) <= 31
    assert first.read_only
    (writable,) = await block().device_prepare(pod, structs.replace(devices[0], read_only=False))
    assert writable.id != first.id, "both may be in one machine"


async def test_the_bus_of_disks_is_an_option(pod, tmp_path):
    (tmp_path / "disk").touch()
    (drive,) = await block(DriveBus.BLK).device_prepare(
        pod, HostDevice(path=tmp_path / "disk", destination="/dev/x")
    )
    assert drive.bus is DriveBus.BLK


async def test_char_devices_that_every_kernel_has_are_the_guests_own(pod):
    device = HostDevice(path=Path("/dev/null"), destination="/dev/nothing")
    assert await CharDevices().device_claims(pod, device)
    assert not await block().device_claims(pod, device)
    assert await CharDevices().device_prepare(pod, device) == (GuestNode(path="/dev/null"),)


async def test_char_devices_of_the_hosts_kernel_are_refused_with_the_reason(pod):
    with pytest.raises(DeviceError, match="belongs to the host's kernel"):
        await CharDevices().device_prepare(
            pod, HostDevice(path=Path("/dev/ptmx"), destination="/dev/ptmx")
        )


# --- vfio, on a tree that looks like /sys ---------------------------------------------------------


@pytest.fixture
def sysfs(tmp_path) -> Path:
    """Group 7: a NIC of e1000e, a second function without a driver, and the bridge above them."""
    root = tmp_path / "sys"
    group = root / "kernel/iommu_groups/7"
    (group / "devices").mkdir(parents=True)
    for address, kind in ((NIC, "0x020000"), (AUDIO, "0x040300"), (BRIDGE, "0x060400")):
        device = root / "bus/pci/devices" / address
        device.mkdir(parents=True)
        (device / "class").write_text(kind + "\n")
        (device / "driver_override").write_text("(null)\n")
        (device / "iommu_group").symlink_to(group)
        (group / "devices" / address).symlink_to(device)
    for driver in ("e1000e", "vfio-pci"):
        (root / "bus/pci/drivers" / driver).mkdir(parents=True)
        (root / "bus/pci/drivers" / driver / "unbind").write_text("")
    (root / "bus/pci/drivers_probe").write_text("")
    bind(root, NIC, "e1000e")
    return root


def bind(root: Path, address: str, driver: str) -> None:
    """What the kernel would do after a probe."""
    link = root / "bus/pci/devices" / address / "driver"
    link.unlink(missing_ok=True)
    link.symlink_to(root / "bus/pci/drivers" / driver)


def written(root: Path, address: str) -> str:
    return (root / "bus/pci/devices" / address / "driver_override").read_text()


async def test_a_vfio_group_is_taken_and_given_back(pod, sysfs):
    vfio = VfioDevices(VfioOptions(sysfs))
    device = HostDevice(path=Path("/dev/vfio/7"), destination="")
    assert await vfio.device_claims(pod, device)
    assert not await CharDevices().device_claims(pod, device)
    parts = await vfio.device_prepare(pod, device)
    assert parts == (
        HostPci(id="vfio-0000-01-00-0", address=NIC),
        HostPci(id="vfio-0000-01-00-1", address=AUDIO),
    ), "bridges stay"
    assert written(sysfs, NIC) == written(sysfs, AUDIO) == "vfio-pci"
    assert (sysfs / "bus/pci/drivers/e1000e/unbind").read_text() == NIC
    assert (sysfs / "bus/pci/drivers_probe").read_text() == AUDIO, "the last one that was probed"
    for address in (NIC, AUDIO):
        bind(sysfs, address, "vfio-pci")
    assert await VfioDevices(VfioOptions(sysfs)).device_prepare(pod, device) == parts, (
        "may be said twice"
    )
    await VfioDevices(VfioOptions(sysfs)).device_release(pod, device)  # another process
    assert written(sysfs, NIC) == "\n"
    assert (sysfs / "bus/pci/drivers/vfio-pci/unbind").read_text() == AUDIO
    assert (sysfs / "bus/pci/drivers_probe").read_text() == NIC, (
        "only what had a driver gets it back"
    )
    await vfio.device_release(pod, device)


async def test_a_vfio_device_is_named_by_its_whole_address(pod, sysfs):
    vfio = VfioDevices(VfioOptions(sysfs))
    device = HostDevice(path=Path("/sys/bus/pci/devices") / NIC, destination="")
    assert await vfio.device_claims(pod, device)
    assert await vfio.device_prepare(pod, device) == (HostPci(id="vfio-0000-01-00-0", address=NIC),)
    assert not await vfio.device_claims(
        pod, HostDevice(path=Path("/sys/bus/pci/devices/01:00.0"), destination="")
    ), "no domain"


async def test_what_was_vfios_before_stays_so(pod, sysfs):
    bind(sysfs, NIC, "vfio-pci")
    device = HostDevice(path=Path("/sys/bus/pci/devices") / NIC, destination="")
    vfio = VfioDevices(VfioOptions(sysfs))
    await vfio.device_prepare(pod, device)
    await vfio.device_release(pod, device)
    assert written(sysfs, NIC) == "(null)\n"
    assert (sysfs / "bus/pci/drivers/vfio-pci/unbind").read_text() == ""


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/dev/vfio/8", "no IOMMU group 8"),
        ("/sys/bus/pci/devices/0000:09:00.0", "no PCI device"),
        ("/sys/bus/pci/devices/0000:02:00.0", "switch the IOMMU on"),
    ],
)
async def test_what_vfio_cannot_pass_is_refused_with_the_reason(pod, sysfs, path, told):
    (sysfs / "bus/pci/devices/0000:02:00.0").mkdir()
    with pytest.raises(DeviceError, match=told):
        await VfioDevices(VfioOptions(sysfs)).device_prepare(
            pod, HostDevice(path=Path(path), destination="")
        )


async def test_a_failed_take_gives_back_what_was_taken(pod, sysfs):
    (sysfs / "bus/pci/devices" / AUDIO / "driver_override").unlink()
    (sysfs / "bus/pci/devices" / AUDIO / "driver_override").mkdir()
    with pytest.raises(DeviceError, match=f"{AUDIO} cannot be given to vfio-pci"):
        await VfioDevices(VfioOptions(sysfs)).device_prepare(
            pod, HostDevice(path=Path("/dev/vfio/7"), destination="")
        )
    assert written(sysfs, NIC) == "\n"


# --- vhost-user -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(VhostKind))
async def test_a_vhost_user_socket_becomes_a_device_of_its_kind(pod, tmp_path, kind):
    path = tmp_path / "backend.sock"
    device = HostDevice(path=path, destination="", kind=kind.value, mac="52:54:00:00:00:01")
    plugin = VhostUserDevices()
    assert await plugin.device_claims(pod, device)
    assert not await block().device_claims(pod, device)
    with pytest.raises(DeviceError, match="start the backend"):
        await plugin.device_prepare(pod, device)
    with socket.socket(socket.AF_UNIX) as backend:
        backend.bind(str(path))
        (part,) = await plugin.device_prepare(pod, device)
    assert isinstance(part, VhostUser)
    assert (part.kind, part.socket, part.mac) == (kind, path, device.mac)


# --- the contract ---------------------------------------------------------------------------------


class TestBlock(DeviceContract):
    @pytest.fixture
    def subject(self, tmp_path):
        (tmp_path / "image").touch()
        own, foreign = (
            HostDevice(path=tmp_path / "image", destination="/dev/x"),
            HostDevice(path=Path("/dev/null"), destination="/dev/null"),
        )
        return DeviceSubject(block, own, foreign, tmp_path)


class TestChar(DeviceContract):
    @pytest.fixture
    def subject(self, tmp_path):
        (tmp_path / "image").touch()
        own, foreign = (
            HostDevice(path=Path("/dev/null"), destination="/dev/null"),
            HostDevice(path=tmp_path / "image", destination="/dev/x"),
        )
        return DeviceSubject(
            CharDevices,
            own,
            foreign,
            tmp_path,
            HostDevice(path=Path("/dev/ptmx"), destination="/dev/x"),
        )


class TestVfio(DeviceContract):
    @pytest.fixture
    def subject(self, sysfs, tmp_path):
        own, foreign, broken = (
            HostDevice(path=Path(path), destination="")
            for path in ("/dev/vfio/7", "/dev/null", "/dev/vfio/8")
        )
        return DeviceSubject(
            lambda: VfioDevices(VfioOptions(sysfs)), own, foreign, tmp_path, broken
        )


class TestVhostUser(DeviceContract):
    @pytest.fixture
    def subject(self, tmp_path):
        own, broken = (
            HostDevice(path=tmp_path / name, destination="", kind="vhost-user-blk")
            for name in ("a.sock", "b.sock")
        )
        with socket.socket(socket.AF_UNIX) as backend:
            backend.bind(str(own.path))
            yield DeviceSubject(
                VhostUserDevices,
                own,
                HostDevice(path=Path("/dev/null"), destination="/dev/null"),
                tmp_path,
                broken,
            )
