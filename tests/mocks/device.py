"""A device plugin for files named *.dev."""

from __future__ import annotations

from tests.mocks.world import World
from vc_core.spec import DeviceError, DeviceSpec, Drive, hookimpl


def mock_device(world: World) -> type:
    class MockDevice(DeviceSpec):
        @hookimpl
        async def device_claims(self, pod, device):
            return device.path.suffix in (".dev", ".refused")

        @hookimpl
        async def device_prepare(self, pod, device):
            if device.path.suffix == ".refused":
                raise DeviceError("refused")
            world.prepared.add(device.path)
            return (Drive(f"drive-{device.path.name}", device.path, device.read_only),)

        @hookimpl
        async def device_release(self, pod, device):
            world.prepared.discard(device.path)

    return MockDevice
