"""The device family: several plugins side by side, each responsible for kinds of host devices.

Every plugin is asked whether it claims a device; the other operations are routed to the one that
does. A device that no plugin claims, or that two claim, is an error.
"""

from __future__ import annotations

from vc_core.spec.markers import routed_operation
from vc_core.spec.values import GuestNode, HostDevice, Pluggable, PodRef


class DeviceSpec:
    """The operations named device_*."""

    @routed_operation
    async def device_claims(self, pod: PodRef, device: HostDevice) -> bool:
        """Returns whether this plugin is responsible for the device's kind.

        Changes nothing. Every device plugin is asked.
        """
        raise NotImplementedError

    @routed_operation
    async def device_prepare(
        self, pod: PodRef, device: HostDevice
    ) -> tuple[Pluggable | GuestNode, ...]:
        """Prepares a claimed device on the host.

        Returns what is to be plugged into the machine, in this order. May be called twice with the
        same outcome. Raises DeviceError with the reason when the device is unfit to be passed;
        nothing was changed on the host then.
        """
        raise NotImplementedError

    @routed_operation
    async def device_release(self, pod: PodRef, device: HostDevice) -> None:
        """Returns the device to the host, after it was unplugged. May be called twice."""
        raise NotImplementedError
