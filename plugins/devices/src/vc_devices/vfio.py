"""PCI devices of the host: a whole IOMMU group, or one device by its address.

A device is unbound from its driver and bound to vfio-pci by driver_override,
and rebound afterwards. See the kernel's Documentation/driver-api/vfio.rst and
Documentation/ABI/testing/sysfs-bus-pci.
"""

from __future__ import annotations

import re
from pathlib import Path

from vc_core.driver_kit import write_private_file
from vc_core.spec import (
    DeviceError,
    DeviceSpec,
    GuestNode,
    HostDevice,
    HostPci,
    Pluggable,
    PodRef,
    hookimpl,
)
from vc_devices.options import VfioOptions

_ADDRESS = r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]"
_GROUP = r"/dev/vfio/(\d+)"
_DRIVER = "vfio-pci"
_BRIDGE = "0x0604"  # PCI class of bridges between buses: they are in groups and are not passed


class VfioDevices(DeviceSpec):
    """The plugin `vfio`: /dev/vfio/<group>, or a PCI device's folder in /sys/bus/pci/devices."""

    options_type = VfioOptions

    def __init__(self, options: VfioOptions) -> None:
        self._sysfs = options.sysfs

    @hookimpl
    async def device_claims(self, pod: PodRef, device: HostDevice) -> bool:
        is_group = re.fullmatch(_GROUP, str(device.path)) is not None
        return not device.kind and (is_group or _is_address(device.path))

    @hookimpl
    async def device_prepare(
        self, pod: PodRef, device: HostDevice
    ) -> tuple[Pluggable | GuestNode, ...]:
        addresses = self._addresses(device)
        taken: list[str] = []
        try:
            for address in addresses:
                taken.append(address)
                self._take(pod, address)
        except OSError as error:
            for address in reversed(taken):
                self._give_back(pod, address)
            raise DeviceError(
                f"{taken[-1]} cannot be given to {_DRIVER}: {error.strerror}; is the module loaded?"
            ) from error
        return tuple(
            HostPci(id=f"vfio-{address.replace(':', '-').replace('.', '-')}", address=address)
            for address in addresses
        )

    @hookimpl
    async def device_release(self, pod: PodRef, device: HostDevice) -> None:
        for address in self._addresses(device):
            self._give_back(pod, address)

    def _addresses(self, device: HostDevice) -> list[str]:
        group = re.fullmatch(_GROUP, str(device.path))
        if group is None:
            address = device.path.name
            if not self._device(address).is_dir():
                raise DeviceError(f"this host has no PCI device {address}; 'lspci -D' lists them")
            if not (self._device(address) / "iommu_group").exists():
                raise DeviceError(
                    f"the PCI device {address} is in no IOMMU group; "
                    "switch the IOMMU on (intel_iommu=on)"
                )
            return [address]
        folder = self._sysfs / "kernel/iommu_groups" / group[1] / "devices"
        if not folder.is_dir():
            raise DeviceError(f"this host has no IOMMU group {group[1]}")
        found = sorted(path.name for path in folder.iterdir() if re.fullmatch(_ADDRESS, path.name))
        passed = [
            address for address in found if not self._read(address, "class").startswith(_BRIDGE)
        ]
        if not passed:
            raise DeviceError(
                f"there is no device in the IOMMU group {group[1]} that could be passed"
            )
        return passed

    def _take(self, pod: PodRef, address: str) -> None:
        """Binds a device to vfio-pci; records its driver, once."""
        driver = self._driver(address)
        if driver == _DRIVER:
            return  # bound before: by the administrator, or by an earlier call
        note = self._note(pod, address)
        note.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private_file(note, driver)
        try:
            (self._device(address) / "driver_override").write_text(_DRIVER)
        except OSError:
            note.unlink()  # nothing was done, so there is nothing to undo
            raise
        if driver:
            (self._device(address) / "driver/unbind").write_text(address)
        (self._sysfs / "bus/pci/drivers_probe").write_text(address)

    def _give_back(self, pod: PodRef, address: str) -> None:
        """Restores the recorded driver; a device that was bound to vfio-pci before stays so."""
        note = self._note(pod, address)
        if not note.exists():
            return
        (self._device(address) / "driver_override").write_text("\n")
        if self._driver(address) == _DRIVER:
            (self._device(address) / "driver/unbind").write_text(address)
        if note.read_text():
            (self._sysfs / "bus/pci/drivers_probe").write_text(address)
        note.unlink()

    def _driver(self, address: str) -> str:
        link = self._device(address) / "driver"
        return link.resolve().name if link.exists() else ""

    def _device(self, address: str) -> Path:
        return self._sysfs / "bus/pci/devices" / address

    def _read(self, address: str, name: str) -> str:
        file = self._device(address) / name
        return file.read_text().strip() if file.exists() else ""

    @staticmethod
    def _note(pod: PodRef, address: str) -> Path:
        return pod.run_dir / "vfio" / address


def _is_address(path: Path) -> bool:
    is_device = str(path.parent) == "/sys/bus/pci/devices"
    return is_device and re.fullmatch(_ADDRESS, path.name) is not None
