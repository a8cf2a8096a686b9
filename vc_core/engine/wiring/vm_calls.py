"""Steps on one machine that combine several operations, or check the result of one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from vc_core.engine.state.records import HeldDevice
from vc_core.engine.wiring.wiring import Wiring
from vc_core.spec.errors import DeviceError, PluginContractError
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Plugged, PodRef, VmPhase, VmSpec

ALIVE = (VmPhase.RUNNING, VmPhase.PAUSED)
"""The phases in which the machine exists."""


async def start_vm(
    hooks: Hooks,
    pod: PodRef,
    spec: VmSpec,
    put_driver_state: Callable[[], Awaitable[object]],
    meanwhile: Callable[[], Awaitable[object]] | None = None,
) -> None:
    """Creates and starts a machine. Its driver state is also stored before the start.

    Otherwise a process that is killed in between would leave a machine that is impossible to find.

    Args:
        hooks: operations of the machine's plugins.
        pod: the pod of the machine.
        spec: the machine.
        put_driver_state: stores the driver state.
        meanwhile: runs concurrently with the start.
    """
    await hooks.vm_create(pod=pod, spec=spec)
    await put_driver_state()
    if meanwhile is None:
        await hooks.vm_start(pod=pod)
    else:
        await asyncio.gather(hooks.vm_start(pod=pod), meanwhile())
    await put_driver_state()


async def give_back(wiring: Wiring, pod: PodRef, held: HeldDevice) -> None:
    """Returns a device to the host, by the plugin that prepared it. May be called twice.

    Raises:
        DeviceError: that plugin is no longer chosen.
    """
    hooks = dict(wiring.devices).get(held.owner)
    if hooks is None:
        raise DeviceError(
            f"the device plugin {held.owner}, which readied {held.device.path}, is no longer there"
        )
    await hooks.device_release(pod=pod, device=held.device)


async def shares_of(hooks: Hooks, pod: PodRef, count: int) -> tuple[Plugged, ...]:
    """Returns how the guest finds the shares that its machine was created with.

    Raises:
        PluginContractError: the hypervisor returned another number of shares.
    """
    places = await hooks.vm_shares(pod=pod)
    if len(places) != count:
        wrong = (
            "the hypervisor plugin breaks the contract: "
            f"vm_shares returned {len(places)} places for {count} shares"
        )
        raise PluginContractError([f"{wrong}; one that has no shares refuses them in vm_create"])
    return places
