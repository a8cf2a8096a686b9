"""Channels: virtio-serial ports, each plugged for one client and unplugged after it."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from vc_core.driver_kit import ChannelId, HostProcess
from vc_core.spec import HypervisorError
from vc_qemu.answers import CharDevice
from vc_qemu.command_line import FIRST, SERIAL_BUS
from vc_qemu.errors import QemuError
from vc_qemu.sockets import listening_socket

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor
    from vc_qemu.running_machine import RunningMachine

_UNPLUG_S = 10.0  # a port is released at once: the guest is not asked
_END_S = 2.0  # QEMU ends within milliseconds of the end of its monitor
_UNTAKEN = f"{FIRST}.sock"
_TAKEN = ".1st"  # after the pid and start ticks of its client; short: socket paths have 107 bytes


def first_path(run_dir: Path) -> Path:
    """Returns the socket of a clone's first channel, until a client takes it."""
    return run_dir / _UNTAKEN


def take_first(run_dir: Path) -> Path | None:
    """Takes the first channel: returns its socket to the first client, None to every other."""
    client = HostProcess.this()
    path = run_dir / f"{client.pid:x}-{client.start_ticks:x}{_TAKEN}"
    try:
        return first_path(run_dir).rename(path)
    except FileNotFoundError:
        return None


def forget(run_dir: Path) -> None:
    """Removes the sockets of a machine that has ended."""
    for path in (*run_dir.glob("*.sock"), *run_dir.glob(f"*{_TAKEN}")):
        path.unlink(missing_ok=True)


async def add(monitor: Monitor, run_dir: Path, name: str) -> tuple[str, Path]:
    """Plugs a port and waits until the guest has opened it.

    Args:
        monitor: monitor of the machine.
        run_dir: the folder for its socket.
        name: name of the port, as seen by the guest's agent.

    Returns:
        The channel's id and its socket.

    Raises:
        HypervisorError: QEMU refuses. The caller must detect that the machine ends meanwhile.
    """
    await _sweep(monitor, run_dir)
    channel_id = ChannelId.of_name(name)
    channel, path = str(channel_id), channel_id.socket(run_dir)
    with listening_socket(path) as socket:  # QEMU can make none
        await monitor.give(channel, socket.fileno())
    address = {"type": "fd", "data": {"str": channel}}
    backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
    await monitor.execute("chardev-add", {"id": channel, "backend": backend})
    try:
        async with monitor.events("VSERPORT_CHANGE") as changes:
            port = {
                "driver": "virtserialport",
                "bus": f"{SERIAL_BUS}.0",
                "id": f"{channel}-port",
                "chardev": channel,
            }
            await monitor.execute("device_add", {**port, "name": name})
            async for _, change in changes:
                if change == {"id": f"{channel}-port", "open": True}:
                    break
    except BaseException:
        # The first error is the one to report; a machine that has ended has no ports.
        with contextlib.suppress(HypervisorError):
            await remove(monitor, channel, path)
        raise
    return channel, path


async def close(machine: RunningMachine, channel: str, path: Path) -> None:
    """Removes a channel of a machine; one that ends meanwhile is no error.

    Its port is gone at once. QEMU releases it some 50 ms later: that is not waited for, and what is
    left until then, the end of the socket in QEMU, is removed when the next channel is added.

    Raises:
        HypervisorError: QEMU refuses, and does not end.
    """
    if machine.process is None or not machine.is_alive():
        path.unlink(missing_ok=True)
        return
    try:
        async with machine.monitor() as monitor:
            await monitor.begin_unplug(f"{channel}-port")
            path.unlink(missing_ok=True)
    except HypervisorError:
        # Its monitor is closed before the process has ended.
        if not await machine.process.ended_within(_END_S):
            raise
        path.unlink(missing_ok=True)


async def remove(monitor: Monitor, channel: str, path: Path) -> None:
    """Unplugs a port and removes its socket. A port that is not there is no error."""
    await monitor.unplug(f"{channel}-port", _UNPLUG_S)
    if channel in await _labels(monitor):
        await monitor.execute("chardev-remove", {"id": channel})
    path.unlink(missing_ok=True)


async def _sweep(monitor: Monitor, run_dir: Path) -> None:
    """Removes the channels of clients that have ended, and the rest of those that were closed."""
    ports = await monitor.devices()
    for label in await _labels(monitor):
        channel_id = ChannelId.parse(label)
        if _is_closed(label, ports):
            if channel_id is not None:  # its client may have been killed before it did that
                channel_id.socket(run_dir).unlink(missing_ok=True)
            with contextlib.suppress(QemuError):  # it is not released yet: the next one removes it
                await monitor.execute("chardev-remove", {"id": label})
        elif channel_id is not None and not channel_id.owner.is_alive():
            await remove(monitor, label, channel_id.socket(run_dir))
    for path in run_dir.glob(f"*{_TAKEN}"):
        pid, ticks = path.stem.split("-")
        if not HostProcess(int(pid, 16), int(ticks, 16)).is_alive():
            await remove(monitor, FIRST, path)


async def settle(monitor: Monitor) -> None:
    """Returns when QEMU has released the ports of closed channels, and removes what is left.

    A state that is saved earlier cannot be loaded.

    Raises:
        HypervisorError: QEMU refuses, or does not release one.
    """
    ports = await monitor.devices()
    for label in await _labels(monitor):
        if _is_closed(label, ports):
            await monitor.released(f"{label}-port", "chardev-remove", {"id": label}, _UNPLUG_S)


def _is_closed(label: str, ports: set[str]) -> bool:
    """Returns whether a character device is that of a channel whose port was unplugged."""
    is_channel = label == FIRST or ChannelId.parse(label) is not None
    return is_channel and f"{label}-port" not in ports


async def _labels(monitor: Monitor) -> list[str]:
    return [device.label for device in await monitor.ask("query-chardev", list[CharDevice])]
