"""Virtio-serial ports that are plugged for one client and unplugged after it."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from vc_core.driver_kit import HostProcess
from vc_qemu.command_line import FIRST, SERIAL_BUS
from vc_qemu.errors import QemuError

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

# channel-<pid>-<start ticks>-<name>: who owns it, so that what a killed client left can be told and
# taken away.
_OWNED = re.compile(r"channel-(\d+)-(\d+)-(.+)")


_LIMIT_S = 10.0  # a port goes at once: no guest is asked
_UNTAKEN = f"{FIRST}.sock"
_TAKEN = ".1st"  # the name before it tells by whom; short, for unix sockets have short paths


def first_path(run_dir: Path) -> Path:
    """Where the channel that is there from the start is found until somebody takes it."""
    return run_dir / _UNTAKEN


def take_first(run_dir: Path) -> Path | None:
    """The socket of the channel that is there from the start, for exactly one of all who ask."""
    me = HostProcess.this()
    mine = run_dir / f"{me.pid:x}-{me.start_ticks:x}{_TAKEN}"
    try:
        return first_path(run_dir).rename(mine)
    except FileNotFoundError:
        return None


def forget(run_dir: Path) -> None:
    """Removes the sockets of a machine that is no more."""
    for path in (*run_dir.glob("*.sock"), *run_dir.glob(f"*{_TAKEN}")):
        path.unlink(missing_ok=True)


async def add(monitor: Monitor, run_dir: Path, name: str) -> tuple[str, Path]:
    """Plugs a port and waits until the guest has opened it.

    Args:
        monitor: of the machine.
        run_dir: where its socket goes.
        name: the guest's agent knows its ports by name.

    Returns:
        The channel's id and its socket.

    Raises:
        QemuError: refused. A machine that ends meanwhile is for the caller to notice.
    """
    await _sweep(monitor, run_dir)
    me = HostProcess.this()
    channel = f"channel-{me.pid}-{me.start_ticks}-{name}"
    path = socket_path(run_dir, channel)
    path.unlink(missing_ok=True)
    address = {"type": "unix", "data": {"path": str(path)}}
    backend = {"type": "socket", "data": {"addr": address, "server": True, "wait": False}}
    await monitor.execute("chardev-add", {"id": channel, "backend": backend})
    try:
        path.chmod(0o600)
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
        with contextlib.suppress(
            QemuError
        ):  # the first error is the one that tells; a dead machine has no ports
            await remove(monitor, channel, path)
        raise
    return channel, path


async def remove(monitor: Monitor, channel: str, path: Path) -> None:
    """Unplugs a port. One that is not there is no error."""
    await monitor.unplug(f"{channel}-port", _LIMIT_S)
    if channel in await _labels(monitor):
        await monitor.execute("chardev-remove", {"id": channel})
    path.unlink(missing_ok=True)


def socket_path(run_dir: Path, channel: str) -> Path:
    """Where a channel's socket lies: short, for unix sockets have short paths."""
    return run_dir / f"{channel.rpartition('.')[2]}.sock"


async def _sweep(monitor: Monitor, run_dir: Path) -> None:
    """Takes away what clients left that are no more."""
    for label in await _labels(monitor):
        match = _OWNED.fullmatch(label)
        if match and not HostProcess(int(match[1]), int(match[2])).is_alive():
            await remove(monitor, label, socket_path(run_dir, label))
    for path in run_dir.glob(f"*{_TAKEN}"):
        pid, ticks = path.stem.split("-")
        if not HostProcess(int(pid, 16), int(ticks, 16)).is_alive():
            await remove(monitor, FIRST, path)


async def _labels(monitor: Monitor) -> list[str]:
    return [device["label"] for device in await monitor.execute("query-chardev")]
