"""Which device plugin owns a device of the host."""

from __future__ import annotations

from vc_core.engine.wiring import Wiring
from vc_core.spec.device import DeviceSpec
from vc_core.spec.errors import DeviceError
from vc_core.spec.values import HostDevice, PodRef


async def owner(wiring: Wiring, pod: PodRef, device: HostDevice) -> DeviceSpec:
    """The hooks of the one plugin that claims the device.

    Raises:
        DeviceError: nobody claims it, or several do; names the device plugins that were asked.
    """
    claims = [(name, hooks) for name, hooks in wiring.devices if await hooks.device_claims(pod=pod, device=device)]
    if len(claims) == 1:
        return claims[0][1]
    if claims:
        names = " and ".join(name for name, _ in claims)
        raise DeviceError(f"{device.path} is claimed by {names}; choose one of them in 'devices'", pod=pod.id)
    asked = ", ".join(name for name, _ in wiring.devices) or "none is chosen"
    raise DeviceError(
        f"no device plugin claims {device.path} (asked: {asked}); add one that does to 'devices'", pod=pod.id
    )
