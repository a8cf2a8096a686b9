"""Channels: virtio-serial ports, each plugged for one client and unplugged after it."""

from __future__ import annotations

import contextlib
from pathlib import Path

from vc_core.driver_kit import ChannelId
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec import HypervisorError
from vc_libvirt import device_xml
from vc_libvirt.errors import LibvirtError
from vc_libvirt.events import Listener, Opened, Stopped
from vc_libvirt.running_machine import RunningMachine

_UNDO_S = 5.0


async def add(machine: RunningMachine, run_dir: Path, name: str) -> tuple[str, Path]:
    """Plugs a port and waits until the guest has opened it.

    Args:
        machine: a running machine.
        run_dir: the folder for its socket.
        name: name of the port, as seen by the guest's agent.

    Returns:
        The channel's alias and its socket.

    Raises:
        HypervisorError: libvirt refuses, or the machine has ended.
    """
    await _sweep(machine, run_dir)
    channel_id = ChannelId.of_name(name)
    alias, path = device_xml.channel_alias(channel_id), channel_id.socket(run_dir)
    path.unlink(missing_ok=True)
    with machine.listening() as listener:
        try:
            await machine.attach(device_xml.channel(alias, path, name))
            await _opened(listener, alias)
        except BaseException:
            # In a machine that hangs, the port stays until this process ends; the next client
            # removes it.
            with contextlib.suppress(TimeoutError, HypervisorError):
                async with timeout_after(_UNDO_S):
                    await remove(machine, alias, path)
            raise
    return alias, path


async def remove(machine: RunningMachine, alias: str, path: Path) -> None:
    """Unplugs a port and removes its socket. A port or a machine that is gone is no error."""
    import libvirt

    try:
        await machine.detach(alias)
    except LibvirtError as error:
        if error.code != libvirt.VIR_ERR_NO_DOMAIN:
            raise
    path.unlink(missing_ok=True)


def forget(run_dir: Path) -> None:
    """Removes the sockets of a machine that has ended."""
    for path in run_dir.glob("*.sock"):
        path.unlink(missing_ok=True)


async def _opened(listener: Listener, alias: str) -> None:
    async for event in listener.events():
        if isinstance(event, Stopped):
            raise LibvirtError("the machine has ended")
        if event == Opened(alias):
            return


async def _sweep(machine: RunningMachine, run_dir: Path) -> None:
    """Removes the channels of clients that have ended."""
    for alias in device_xml.aliases(await machine.xml()):
        channel_id = device_xml.channel_id(alias)
        if channel_id is not None and not channel_id.owner.is_alive():
            await remove(machine, alias, channel_id.socket(run_dir))
