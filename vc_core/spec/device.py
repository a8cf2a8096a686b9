"""The device family: several plugins side by side, each owning kinds of device of the host.

Every plugin is asked whether it claims a device; the rest is routed to the one that does. A device
that nobody claims and one that two claim are errors.
"""

from __future__ import annotations

from vc_core.spec.markers import routed_operation
from vc_core.spec.values import GuestNode, HostDevice, Pluggable, PodRef


class DeviceSpec:
    """Operations named device_*."""

    @routed_operation
    async def device_claims(self, pod: PodRef, device: HostDevice) -> bool:
        """Whether the device is of a kind that this plugin owns.

        Changes nothing. Every device plugin is asked.
        """
        raise NotImplementedError

    @routed_operation
    async def device_prepare(
        self, pod: PodRef, device: HostDevice
    ) -> tuple[Pluggable | GuestNode, ...]:
        """Readies a claimed device on the host; returns what is to be plugged into the machine, in
        this order.

        May be called twice with the same outcome. Raises DeviceError when it cannot be passed, with
        the reason; nothing was changed on the host then.
        """
        raise NotImplementedError

    @routed_operation
    async def device_release(self, pod: PodRef, device: HostDevice) -> None:
        """Gives the device back to the host, after it was unplugged. May be called twice."""
        raise NotImplementedError
