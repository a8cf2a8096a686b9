"""Virtio devices with a backend process on the host: SPDK, DPDK, qemu-storage-daemon, passt."""

from __future__ import annotations

import hashlib
import os

from vc_core.spec import (
    DeviceError,
    DeviceSpec,
    GuestNode,
    HostDevice,
    Pluggable,
    PodRef,
    VhostKind,
    VhostUser,
    hookimpl,
)

_KINDS = {kind.value: kind for kind in VhostKind}


class VhostUserDevices(DeviceSpec):
    """The plugin `vhost-user`: a unix socket, with the type of the device in `kind`."""

    @hookimpl
    async def device_claims(self, pod: PodRef, device: HostDevice) -> bool:
        return device.kind in _KINDS

    @hookimpl
    async def device_prepare(
        self, pod: PodRef, device: HostDevice
    ) -> tuple[Pluggable | GuestNode, ...]:
        if not device.path.is_socket():
            raise DeviceError(
                f"{device.path} is not a socket; start the backend of the {device.kind} device "
                "first"
            )
        if not os.access(device.path, os.R_OK | os.W_OK):
            raise DeviceError(f"the socket {device.path} is not open to this user")
        name = hashlib.sha256(os.fsencode(device.path)).hexdigest()[:16]
        return (
            VhostUser(
                id=f"vhost-{name}", kind=_KINDS[device.kind], socket=device.path, mac=device.mac
            ),
        )

    @hookimpl
    async def device_release(self, pod: PodRef, device: HostDevice) -> None:
        """Does nothing: nothing was done to the host."""
