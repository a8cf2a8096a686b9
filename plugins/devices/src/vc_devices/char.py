"""Char devices: what a virtual machine cannot be given is refused with the reason."""

from __future__ import annotations

from vc_core.spec import DeviceError, DeviceSpec, HostDevice, Pluggable, PodRef, hookimpl


class CharDevices(DeviceSpec):
    """The plugin `char`: claims every char device, and can pass none of them to another kernel."""

    @hookimpl
    async def device_claims(self, pod: PodRef, device: HostDevice) -> bool:
        return device.path.is_char_device()

    @hookimpl
    async def device_prepare(self, pod: PodRef, device: HostDevice) -> Pluggable:
        raise DeviceError(
            f"{device.path} belongs to the host's kernel and cannot be passed into a machine that has its own; "
            "the guest has its own /dev/null, zero, full, random, urandom, tty"
        )

    @hookimpl
    async def device_release(self, pod: PodRef, device: HostDevice) -> None:
        """Nothing was done to the host."""
