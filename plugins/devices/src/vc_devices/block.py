"""Block devices and raw image files."""

from __future__ import annotations

import hashlib
import os

from vc_core.spec import (
    DeviceError,
    DeviceSpec,
    Drive,
    GuestNode,
    HostDevice,
    Pluggable,
    PodRef,
    hookimpl,
)
from vc_devices.options import BlockOptions


class BlockDevices(DeviceSpec):
    """The plugin `block`: plugged as a disk of the machine."""

    options_type = BlockOptions

    def __init__(self, options: BlockOptions) -> None:
        self._options = options

    @hookimpl
    async def device_claims(self, pod: PodRef, device: HostDevice) -> bool:
        return not device.kind and (device.path.is_block_device() or device.path.is_file())

    @hookimpl
    async def device_prepare(
        self, pod: PodRef, device: HostDevice
    ) -> tuple[Pluggable | GuestNode, ...]:
        needed = os.R_OK if device.read_only else os.R_OK | os.W_OK
        if not os.access(device.path, needed):
            raise DeviceError(
                f"{device.path} is not open to this user; ask for it read-only, or as root"
            )
        # Ids of devices are short, and paths are not: a digest of the path is unique and constant.
        name = hashlib.sha256(os.fsencode(device.path)).hexdigest()[:16]
        access = "ro" if device.read_only else "rw"
        return (
            Drive(
                id=f"drive-{name}-{access}",
                path=device.path,
                read_only=device.read_only,
                bus=self._options.bus,
            ),
        )

    @hookimpl
    async def device_release(self, pod: PodRef, device: HostDevice) -> None:
        """Does nothing: nothing was done to the host."""
