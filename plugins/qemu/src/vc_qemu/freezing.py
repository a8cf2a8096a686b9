"""A machine's state to a file, and from it: QEMU's migration, without the memory, which lies in a file of its own.

The capability x-ignore-shared (QEMU >= 4.0) leaves memory out that is shared with a file. Both sides must set it.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vc_core.spec import Frozen
from vc_qemu.command_line import FIRST, STATE_FD
from vc_qemu.errors import QemuError

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

_CAPABILITIES = ("x-ignore-shared", "events")
_ENDED = ("completed", "failed", "cancelled")
_SCHEMA = 1


@dataclass(frozen=True)
class Origin:
    """What a machine must know of the one that it starts from.

    Attributes:
        vcpus: that it was started with.
        memory_mib: that it was started with.
        state_bytes: the size of what QEMU wrote.
        program: which QEMU wrote it, as `program_of` tells.
    """

    vcpus: int
    memory_mib: int
    state_bytes: int
    program: str


def program_of(binary: str) -> str:
    """Tells one QEMU from another without running it."""
    found = Path(binary).resolve()
    about = found.stat()
    return f"{found} {about.st_ino} {about.st_size} {about.st_mtime_ns}"


def state_path(frozen: Frozen) -> Path:
    """Where QEMU's own state lies."""
    return frozen.folder / "state"


def read(frozen: Frozen, binary: str) -> Origin:
    """What is known of a saved machine.

    Raises:
        QemuError: it is not there, incomplete, or another QEMU's.
    """
    try:
        told = json.loads(_record(frozen).read_text())
        if told.pop("schema") != _SCHEMA:
            raise QemuError(
                f"the saved machine in {frozen.folder} was written by another version of virtcontainers-qemu"
            )
        origin = Origin(**told)
        sizes = (state_path(frozen).stat().st_size, frozen.memory.stat().st_size)
    except OSError as error:
        raise QemuError(f"the saved machine in {frozen.folder} cannot be read: {error}") from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise QemuError(f"the saved machine in {frozen.folder} is damaged: {error}") from error
    if sizes != (origin.state_bytes, origin.memory_mib << 20):
        raise QemuError(
            f"the saved machine in {frozen.folder} is damaged: its files have other sizes than when it was saved"
        )
    if origin.program != program_of(binary):
        raise QemuError(f"the saved machine in {frozen.folder} is of another QEMU than {binary}")
    return origin


async def load(monitor: Monitor) -> None:
    """Lets a QEMU that waits for it read the state from its descriptor; returns when its vCPUs run.

    A QEMU that cannot read it ends: that is for the caller to notice.
    """
    async with monitor.events("RESUME") as resumed:
        await _set_capabilities(monitor)
        await monitor.execute("migrate-incoming", {"uri": f"fd:{STATE_FD}"})
        async for _ in resumed:
            return


async def freeze(monitor: Monitor, into: Frozen, vcpus: int, memory_mib: int, binary: str) -> None:
    """Writes state and record; the memory lies where it should already. The vCPUs stand still afterwards.

    Raises:
        QemuError: QEMU cannot save it, or the disk is full.
    """
    ports = await monitor.execute("query-chardev")
    if not any(port["label"] == FIRST and port["frontend-open"] for port in ports):
        raise QemuError("the guest has not opened the channel that its clones are to have")
    target = state_path(into)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        await _migrate(monitor, handle)
    finally:
        os.close(handle)
    origin = Origin(vcpus, memory_mib, target.stat().st_size, program_of(binary))
    _record(into).write_text(json.dumps({"schema": _SCHEMA, **asdict(origin)}))


async def _migrate(monitor: Monitor, handle: int) -> None:
    await _set_capabilities(monitor)
    await monitor.give("state", handle)
    async with monitor.events("MIGRATION") as changes:
        await monitor.execute("migrate", {"uri": "fd:state"})
        status = ""
        async for _, change in changes:
            status = str(change["status"])
            if status in _ENDED:
                break
    if status != "completed":
        told = await monitor.execute("query-migrate")
        raise QemuError(f"QEMU could not save the machine: {told.get('error-desc', status)}")


async def _set_capabilities(monitor: Monitor) -> None:
    wanted = [{"capability": name, "state": True} for name in _CAPABILITIES]
    await monitor.execute("migrate-set-capabilities", {"capabilities": wanted})


def _record(frozen: Frozen) -> Path:
    return frozen.folder / "machine.json"
