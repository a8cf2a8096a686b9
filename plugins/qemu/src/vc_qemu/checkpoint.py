"""A machine's state to a file, and from it: QEMU's migration, without the memory, which lies in a file of its own.

The capability x-ignore-shared (QEMU >= 4.0) leaves memory out that is shared with a file. Both sides must set it. Of a
machine whose memory is its own, the memory is taken out of the state afterwards: stream.py.

A descriptor is given and taken, which QEMU >= 9.1 warns about. By name ("file:", QEMU >= 8.2) QEMU 10 keeps the file of
a save that has failed open, and with it the room on a disk that was full.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

from vc_core.driver_kit import write_private_file
from vc_core.spec import Checkpoint, Drive, Share
from vc_qemu import migration_stream
from vc_qemu.command_line import FIRST, RAM, STATE_FD
from vc_qemu.errors import QemuError
from vc_qemu.hotplug import Place
from vc_qemu.hotplugged import Hotplugged

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

_CAPABILITIES = ("x-ignore-shared", "events")
_ENDED = ("completed", "failed", "cancelled")
_SCHEMA = 3
_UNLIMITED_BYTES = 1 << 40  # per second


@dataclass(frozen=True)
class Manifest:
    """What a machine must know of the one that it starts from.

    Attributes:
        vcpus: that it was started with.
        memory_mib: that it was started with.
        state_bytes: the size of what QEMU wrote.
        program: which QEMU wrote it, as `program_of` tells.
        hotplugged: what was plugged into it; None for a machine that was made to be cloned.
    """

    vcpus: int
    memory_mib: int
    state_bytes: int
    program: str
    hotplugged: Hotplugged | None = None


def program_of(binary: str) -> str:
    """Tells one QEMU from another without running it."""
    found = Path(binary).resolve()
    about = found.stat()
    return f"{found} {about.st_ino} {about.st_size} {about.st_mtime_ns}"


def state_path(checkpoint: Checkpoint) -> Path:
    """Where QEMU's own state lies."""
    return checkpoint.folder / "state"


def read(checkpoint: Checkpoint, binary: str) -> Manifest:
    """What is known of a saved machine.

    Raises:
        QemuError: it is not there, incomplete, or another QEMU's.
    """
    try:
        told = json.loads(_record(checkpoint).read_text())
        if told.pop("schema") != _SCHEMA:
            raise QemuError(
                f"the saved machine in {checkpoint.folder} was written by another version of virtcontainers-qemu"
            )
        hotplugged = told.pop("hotplugged")
        origin = Manifest(**told, hotplugged=Hotplugged.of(hotplugged) if hotplugged else None)
        sizes = (state_path(checkpoint).stat().st_size, checkpoint.memory.stat().st_size)
    except OSError as error:
        raise QemuError(
            f"the saved machine in {checkpoint.folder} cannot be read: {error}"
        ) from error
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise QemuError(f"the saved machine in {checkpoint.folder} is damaged: {error}") from error
    if sizes != (origin.state_bytes, origin.memory_mib << 20):
        raise QemuError(
            f"the saved machine in {checkpoint.folder} is damaged: its files have other sizes than when it was saved"
        )
    if origin.program != program_of(binary):
        raise QemuError(
            f"the saved machine in {checkpoint.folder} is of another QEMU than {binary}"
        )
    return origin


async def go_on(
    monitor: Monitor,
    run_dir: Path,
    checkpoint: Checkpoint,
    hotplugged: Hotplugged,
    devices: Mapping[str, Share | Drive],
) -> tuple[Place, ...]:
    """As `load`, for a machine that was saved in the middle of its work; gives what is plugged.

    Raises:
        QemuError: something cannot be plugged as it was.
    """
    await _set_capabilities(monitor)
    places = await hotplugged.plug(monitor, run_dir, checkpoint.folder, devices)
    async with monitor.events("MIGRATION") as changes:
        await monitor.execute("migrate-incoming", {"uri": f"fd:{STATE_FD}"})
        async for _, change in changes:
            if change["status"] in _ENDED:
                break
    await monitor.execute("cont")
    # Only now: to begin, QEMU 7.2 tells the guest about each port that the state has, and dies when
    # one is gone.
    await hotplugged.drop_ports(monitor)
    return places


async def load(monitor: Monitor) -> None:
    """Lets a QEMU that waits for it read the state from its descriptor; returns when its vCPUs run.

    A QEMU that cannot read it ends: that is for the caller to notice.
    """
    async with monitor.events("RESUME") as resumed:
        await _set_capabilities(monitor)
        await monitor.execute("migrate-incoming", {"uri": f"fd:{STATE_FD}"})
        async for _ in resumed:
            return


async def save_template(monitor: Monitor, into: Checkpoint, origin: Manifest) -> None:
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
    _write(into, replace(origin, state_bytes=target.stat().st_size))


def _write(into: Checkpoint, origin: Manifest) -> None:
    write_private_file(_record(into), json.dumps({"schema": _SCHEMA, **asdict(origin)}))


async def save(monitor: Monitor, into: Checkpoint, origin: Manifest) -> None:
    """Writes state, memory and record of a machine that is at work; it goes on, or stands still, as before.

    Args:
        monitor: of the machine.
        into: where to.
        origin: what to write down of it; the size of the state is found out.

    Raises:
        QemuError: QEMU cannot save it, or the disk is full.
    """
    was_running = bool((await monitor.execute("query-status"))["running"])
    hotplugged = await Hotplugged.look(
        monitor, origin.hotplugged.places if origin.hotplugged else ()
    )
    try:
        with tempfile.TemporaryFile(dir=into.folder) as raw:
            try:
                await monitor.execute("stop")
                await _migrate(monitor, raw.fileno())
            finally:
                if was_running:
                    await _cont(monitor)
            size = await asyncio.to_thread(_take_apart, raw, into, hotplugged)
    except OSError as error:
        raise QemuError(
            f"the machine cannot be saved in {into.folder}: {error.strerror}"
        ) from error
    _write(into, replace(origin, state_bytes=size, hotplugged=hotplugged))


async def _cont(monitor: Monitor) -> None:
    """Lets the vCPUs run. QEMU tells that it has saved all a moment before its migration thread has ended, and
    until then refuses; of that end it tells nothing, so that asking again is all there is.
    """
    while True:
        try:
            await monitor.execute("cont")
        except QemuError as error:
            if "not finalized" not in str(error):
                raise
        else:
            return


def _take_apart(raw: IO[bytes], into: Checkpoint, hotplugged: Hotplugged) -> int:
    files = {RAM: into.memory, **{name: into.folder / name for name in hotplugged.memories}}
    with (
        mmap.mmap(raw.fileno(), 0, prot=mmap.PROT_READ) as mapped,
        memoryview(mapped) as data,
        _new_private_file(state_path(into)) as rest,
    ):
        migration_stream.split(data, rest, files)
        return rest.tell()


def _new_private_file(path: Path) -> BinaryIO:
    return os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb"
    )


async def _migrate(monitor: Monitor, handle: int) -> None:
    await _set_capabilities(monitor)
    await monitor.execute("migrate-set-parameters", {"max-bandwidth": _UNLIMITED_BYTES})
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


def _record(checkpoint: Checkpoint) -> Path:
    return checkpoint.folder / "machine.json"
