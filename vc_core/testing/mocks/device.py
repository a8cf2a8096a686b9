"""A device plugin for files named *.dev."""

from __future__ import annotations

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
from vc_core.testing.mocks.world import World


class MockDevice(DeviceSpec):
    """The mock device plugin: claims files named *.dev, and refuses *.refused."""

    world: World

    @hookimpl
    async def device_claims(self, pod: PodRef, device: HostDevice) -> bool:
        return device.path.suffix in (".dev", ".refused")

    @hookimpl
    async def device_prepare(
        self, pod: PodRef, device: HostDevice
    ) -> tuple[Pluggable | GuestNode, ...]:
        if device.path.suffix == ".refused":
            raise DeviceError("refused")
        self.world.prepared.add(device.path)
        return (
            Drive(id=f"drive-{device.path.name}", path=device.path, read_only=device.read_only),
        )

    @hookimpl
    async def device_release(self, pod: PodRef, device: HostDevice) -> None:
        self.world.prepared.discard(device.path)


def mock_device(world: World) -> type[MockDevice]:
    """Returns a plugin for one world."""
    return type("MockDevice", (MockDevice,), {"world": world})
