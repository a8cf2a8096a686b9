"""Char devices: those of the guest's kernel are used there; those of the host only are refused."""

from __future__ import annotations

import os
import re

from vc_core.spec import DeviceError, DeviceSpec, GuestNode, HostDevice, Pluggable, PodRef, hookimpl

# Devices without hardware, so the guest's are equivalent. Numbers:
# Documentation/admin-guide/devices.txt of Linux.
_KERNELS_OWN = {
    (1, 3): "/dev/null",
    (1, 5): "/dev/zero",
    (1, 7): "/dev/full",
    (1, 8): "/dev/random",
    (1, 9): "/dev/urandom",
    (1, 11): "/dev/kmsg",
    (5, 0): "/dev/tty",
    (10, 200): "/dev/net/tun",
    (10, 229): "/dev/fuse",
}


_VFIO_GROUP = r"/dev/vfio/\d+"  # these have a plugin of their own


class CharDevices(DeviceSpec):
    """The plugin `char`: claims every char device except those of vfio."""

    @hookimpl
    async def device_claims(self, pod: PodRef, device: HostDevice) -> bool:
        is_vfio = re.fullmatch(_VFIO_GROUP, str(device.path)) is not None
        return not device.kind and device.path.is_char_device() and not is_vfio

    @hookimpl
    async def device_prepare(
        self, pod: PodRef, device: HostDevice
    ) -> tuple[Pluggable | GuestNode, ...]:
        number = device.path.stat().st_rdev
        own = _KERNELS_OWN.get((os.major(number), os.minor(number)))
        if own is None:
            raise DeviceError(
                f"{device.path} belongs to the host's kernel and cannot be passed into a machine "
                "that has its own; "
                f"the guest has its own {', '.join(sorted(_KERNELS_OWN.values()))}"
            )
        return (GuestNode(path=own),)

    @hookimpl
    async def device_release(self, pod: PodRef, device: HostDevice) -> None:
        """Does nothing: nothing was done to the host."""
