"""Devices of the host in the machine: their plugins, and the containers that use them.

Containers with the same device share it. Each change of the host is recorded before it is made: if
the process is killed in between, the device is returned to the host when the machine ends.
"""

from __future__ import annotations

from msgspec import structs

from vc_core.engine.session.session import Session
from vc_core.engine.state.records import HeldDevice
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.wiring import vm_calls
from vc_core.engine.wiring.wiring import Wiring
from vc_core.spec.device import DeviceSpec
from vc_core.spec.errors import DeviceError, InvalidRequest
from vc_core.spec.values import (
    Capability,
    Drive,
    GuestDevice,
    GuestDriver,
    GuestNode,
    HostDevice,
    HostPci,
    Pluggable,
    Plugged,
    PodRef,
    Share,
    VhostUser,
)

_NEEDED: dict[type, tuple[Capability, str]] = {
    Share: (Capability.SHARE_PLUG, "folders"),
    Drive: (Capability.DRIVE_PLUG, "disks"),
    HostPci: (Capability.PCI_PLUG, "PCI devices of the host"),
    VhostUser: (Capability.VHOST_USER_PLUG, "vhost-user devices"),
}


def check(device: HostDevice) -> None:
    """Refuses invalid values before anything is done.

    Raises:
        InvalidRequest: naming the device.
    """
    if not device.path.is_absolute():
        raise InvalidRequest(f"the device {device.path} must be an absolute path on this host")
    if not device.path.exists() and not device.path.is_symlink():
        raise InvalidRequest(f"there is no device {device.path} on this host")
    if device.destination and not device.destination.startswith("/"):
        raise InvalidRequest(f"the device {device.path} needs an absolute path in the container")
    if not 0 <= device.mode <= 0o7777:
        raise InvalidRequest(
            f"the device {device.path} has the mode {device.mode:o}, which is none"
        )


async def owner(wiring: Wiring, pod: PodRef, device: HostDevice) -> tuple[str, DeviceSpec]:
    """Returns the one plugin that claims the device, and its hooks.

    Raises:
        DeviceError: no plugin claims it, or several do; names the device plugins that were asked.
    """
    claims = [
        (name, hooks)
        for name, hooks in wiring.devices
        if await hooks.device_claims(pod=pod, device=device)
    ]
    if len(claims) == 1:
        return claims[0]
    if claims:
        names = " and ".join(name for name, _ in claims)
        raise DeviceError(
            f"{device.path} is claimed by {names}; choose one of them in use.devices", pod=pod.id
        )
    asked = ", ".join(name for name, _ in wiring.devices) or "none is chosen"
    raise DeviceError(
        f"no device plugin claims {device.path} (asked: {asked}); add one to use.devices",
        pod=pod.id,
    )


async def acquire(session: Session, device: HostDevice, container_id: str) -> GuestDevice:
    """Adds the device to the machine if necessary, and the container to its users.

    Undone when it fails.
    """
    wanted = _without_node(device)
    held = next((one for one in session.state.devices if one.device == wanted), None)
    if held is not None and held.plugged:
        await _put(session, held, structs.replace(held, users=(*{*held.users, container_id},)))
        return GuestDevice(device=device, plugged=held.plugged)
    if (
        held is not None
        # The call that began to plug it was killed: it is prepared and plugged again, as the
        # contract allows.
    ):
        await _put(session, held, None)
    name, hooks = await owner(session.connection.wiring, session.pod, wanted)
    async with Rollback() as rollback:
        held = HeldDevice(wanted, name, (), (container_id,))
        await _put(session, None, held)
        rollback.push(_forget, session, wanted)
        rollback.push(hooks.device_release, pod=session.pod, device=wanted)
        plugged = []
        for part in await hooks.device_prepare(pod=session.pod, device=wanted):
            plugged.append(await _plug(session, part))
            if not isinstance(part, GuestNode):
                rollback.push(unplug, session, plugged[-1])
        await _put(session, held, structs.replace(held, plugged=tuple(plugged)))
    return GuestDevice(device=device, plugged=tuple(plugged))


async def release(session: Session, container_id: str) -> None:
    """Removes the container from the devices' users; unplugs devices without users."""
    for held in session.state.devices:
        if container_id not in held.users:
            continue
        users = tuple(user for user in held.users if user != container_id)
        if users:
            await _put(session, held, structs.replace(held, users=users))
            continue
        for plugged in reversed(held.plugged or await _found_again(session, held)):
            await unplug(session, plugged)
        await vm_calls.give_back(session.connection.wiring, session.pod, held)
        await _put(session, held, None)


async def _found_again(session: Session, held: HeldDevice) -> list[Plugged]:
    """Plugs again what a killed call may have plugged without recording it, and returns the result.

    By contract, plugging again replaces what that call left.
    """
    _, hooks = await owner(session.connection.wiring, session.pod, held.device)
    return [
        await _plug(session, part)
        for part in await hooks.device_prepare(pod=session.pod, device=held.device)
    ]


async def unplug(session: Session, plugged: Plugged) -> None:
    """Removes one device from the machine, and records that."""
    if plugged.driver is not GuestDriver.NODE:
        await session.hooks.vm_unplug(pod=session.pod, plugged=plugged)
        await session.put_driver_state()


async def _plug(session: Session, part: Pluggable | GuestNode) -> Plugged:
    if isinstance(part, GuestNode):
        return Plugged(id="", driver=GuestDriver.NODE, address=part.path)
    capability, what = _NEEDED[type(part)]
    if capability not in session.capabilities:
        raise InvalidRequest(
            f"the hypervisor, as it is configured, cannot plug {what} ({capability.value})"
        )
    plugged = await session.hooks.vm_plug(pod=session.pod, device=part)
    await session.put_driver_state()
    return plugged


async def _forget(session: Session, device: HostDevice) -> None:
    kept = tuple(one for one in session.state.devices if one.device != device)
    await session.put_state(structs.replace(session.state, devices=kept))


async def _put(session: Session, old: HeldDevice | None, new: HeldDevice | None) -> None:
    kept = [one for one in session.state.devices if one is not old]
    if new is not None:
        kept.append(new)
    await session.put_state(structs.replace(session.state, devices=tuple(kept)))


def _without_node(device: HostDevice) -> HostDevice:
    """Returns the device without its node, because plugging does not depend on the node."""
    plain = HostDevice(path=device.path, destination="")
    return structs.replace(plain, read_only=device.read_only, kind=device.kind, mac=device.mac)
