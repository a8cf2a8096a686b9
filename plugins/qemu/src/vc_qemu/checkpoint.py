"""Saves a machine's state and starts machines from it, by QEMU's migration.

The memory is in a file of its own. The capability x-ignore-shared (QEMU >= 4.0), which both sides
must set, leaves out memory that is shared with a file. Memory that is not shared is moved out of
the state afterwards: migration_stream.py.

The state is passed as a descriptor, which QEMU >= 9.1 warns about. By name ("file:", QEMU >= 8.2)
QEMU 10 keeps the file of a failed save open, and with it the space on a full disk.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from vc_core.driver_kit import read_manifest, write_manifest
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec import Checkpoint
from vc_qemu import migration_stream
from vc_qemu.answers import CharDevice, Migration, Status
from vc_qemu.command_line import FIRST, RAM, STATE_FD
from vc_qemu.errors import QemuError
from vc_qemu.hotplug import Place
from vc_qemu.hotplugged import Device, Hotplugged
from vc_qemu.jail.inside import View

if TYPE_CHECKING:
    from vc_qemu.monitor import Monitor

Kill = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)

_CAPABILITIES = ("x-ignore-shared", "events")
_ENDED = ("completed", "failed", "cancelled")
SCHEMA = 3
_UNLIMITED_BYTES = 1 << 40  # bytes per second
_NOT_FINISHED = "not finalized"  # part of QEMU's message: "Migration is not finalized yet"
_DEVICES_BYTES = 256 << 20  # of state that is no memory; it has some MiB
_LOOK_S = 1.0  # between two looks at how much QEMU has written
_CONT_S = 20.0
_CONT_FIRST_DELAY_S, _CONT_MAX_DELAY_S = 0.001, 0.1


@dataclass(frozen=True)
class Manifest:
    """The manifest of a saved machine.

    Attributes:
        vcpus: number at its start.
        memory_mib: memory in MiB at its start.
        state_bytes: size in bytes of the state that QEMU wrote.
        program: the QEMU that wrote it, as `program_of` identifies it.
        hotplugged: what was plugged into it; None for a template.
        interfaces: places of the network interfaces of a template, into which nothing else is
            plugged.
    """

    vcpus: int
    memory_mib: int
    state_bytes: int
    program: str
    hotplugged: Hotplugged | None = None
    interfaces: tuple[Place, ...] = ()


def format_of(manifest: type) -> str:
    """Returns text that differs for manifests with other fields, also of what they contain."""
    kinds = (manifest, Hotplugged, Place)
    return f"{SCHEMA} " + " ".join(
        f"{field.name}:{field.type}" for kind in kinds for field in fields(kind)
    )


def program_of(binary: str) -> str:
    """Identifies a QEMU by its file, without running it."""
    path = Path(binary).resolve()
    about = path.stat()
    return f"{path} {about.st_ino} {about.st_size} {about.st_mtime_ns}"


def state_path(checkpoint: Checkpoint) -> Path:
    """Returns the file of the state that QEMU wrote."""
    return checkpoint.folder / "state"


def read(checkpoint: Checkpoint, binary: str) -> Manifest:
    """Reads the manifest of a saved machine.

    Raises:
        HypervisorError: it is missing, damaged, or was written by another QEMU.
    """
    subject = f"the saved machine in {checkpoint.folder}"
    manifest = read_manifest(_manifest(checkpoint), Manifest, SCHEMA)
    try:
        sizes = (state_path(checkpoint).stat().st_size, checkpoint.memory.stat().st_size)
    except OSError as error:
        raise QemuError(f"{subject} cannot be read: {error}") from error
    if sizes != (manifest.state_bytes, manifest.memory_mib << 20):
        raise QemuError(f"{subject} is damaged: its files have other sizes than when it was saved")
    if manifest.program != program_of(binary):
        raise QemuError(f"{subject} was written by another QEMU than {binary}")
    return manifest


async def go_on(
    monitor: Monitor,
    view: View,
    checkpoint: Checkpoint,
    hotplugged: Hotplugged,
    devices: Mapping[str, Device],
) -> tuple[Place, ...]:
    """Like `load`, for a machine that was saved while it ran; returns the places of its devices.

    Raises:
        HypervisorError: a device is impossible to plug as it was.
    """
    await _prepare_incoming(monitor)
    places = await hotplugged.plug(monitor, view, checkpoint.folder, devices)
    async with monitor.events("MIGRATION") as changes:
        await monitor.execute("migrate-incoming", {"uri": f"fd:{STATE_FD}"})
        async for _, change in changes:
            if change.get("status") in _ENDED:
                break
    await monitor.execute("cont")
    # Only now: at its start QEMU 7.2 notifies the guest of each port in the state, and crashes when
    # one is missing.
    await hotplugged.drop_ports(monitor)
    return places


async def load(
    monitor: Monitor, view: View, interfaces: tuple[Place, ...], devices: Mapping[str, Device]
) -> tuple[Place, ...]:
    """Makes a waiting QEMU read the state of a template; returns when its vCPUs run.

    A QEMU that fails to read the state ends: the caller must detect that.

    Args:
        monitor: monitor of the machine.
        view: view of the machine.
        interfaces: the template's.
        devices: the interface for each place, by its id.

    Returns:
        The places of the interfaces.

    Raises:
        HypervisorError: an interface is impossible to plug as it was.
    """
    async with monitor.events("RESUME") as resumed:
        await _prepare_incoming(monitor)
        places = await Hotplugged(interfaces).put_back(monitor, view, devices)
        await monitor.execute("migrate-incoming", {"uri": f"fd:{STATE_FD}"})
        async for _ in resumed:
            break
    return places


async def save_template(monitor: Monitor, into: Checkpoint, manifest: Manifest, kill: Kill) -> None:
    """Writes state and manifest of a template, whose memory is already in a file.

    Its vCPUs stay stopped. `kill` is as for `save`.

    Raises:
        QemuError: QEMU fails to save it, or the disk is full.
    """
    ports = await monitor.ask("query-chardev", list[CharDevice])
    if not any(port.label == FIRST and port.frontend_open for port in ports):
        raise QemuError("the guest has not opened the channel for its clones")
    target = state_path(into)
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        await _migrate(monitor, handle, _room(manifest), kill)
    finally:
        os.close(handle)
    manifest = replace(manifest, state_bytes=target.stat().st_size)
    write_manifest(_manifest(into), manifest, SCHEMA)


async def save(monitor: Monitor, into: Checkpoint, manifest: Manifest, kill: Kill) -> float:
    """Writes state, memory and manifest of a machine, which then runs, or is paused, as before.

    All memory is written while the machine runs. Then it stands still until what it has changed
    meanwhile, and the state of its devices, are written too.

    Args:
        monitor: monitor of the machine.
        into: the target.
        manifest: manifest of the machine; the size of the state and the devices are filled in.
        kill: ends QEMU, which is done when it writes more than any machine of this size has.

    Returns:
        How long the vCPUs stood still, in seconds.

    Raises:
        QemuError: QEMU fails to save it, or the disk is full.
    """
    was_running = (await monitor.ask("query-status", Status)).running
    hotplugged = await Hotplugged.look(
        monitor, manifest.hotplugged.places if manifest.hotplugged else ()
    )
    room = _room(manifest, hotplugged)
    try:
        with tempfile.TemporaryFile(dir=into.folder) as raw:
            async with monitor.halts() as halts:
                try:
                    await _migrate(monitor, raw.fileno(), room, kill)
                except BaseException:
                    await _go_back(monitor, was_running)
                    raise
                if was_running:
                    await cont(monitor)
                stood_still_s = halts.seconds()
            size = await asyncio.to_thread(_take_apart, raw, into, hotplugged)
    except OSError as error:
        raise QemuError(
            f"the machine cannot be saved in {into.folder}: {error.strerror}"
        ) from error
    manifest = replace(manifest, state_bytes=size, hotplugged=hotplugged)
    write_manifest(_manifest(into), manifest, SCHEMA)
    return stood_still_s


async def cont(monitor: Monitor) -> None:
    """Resumes the vCPUs, also after a save.

    QEMU reports the end of the save shortly before its migration thread has finished, refuses
    `cont` until then, and has no event for it: therefore `cont` is repeated, at growing intervals.

    Raises:
        QemuError: refused for another reason, or still after _CONT_S seconds.
    """
    delay_s = _CONT_FIRST_DELAY_S
    try:
        async with timeout_after(_CONT_S):
            while True:
                try:
                    await monitor.execute("cont")
                except QemuError as error:
                    if _NOT_FINISHED not in str(error):
                        raise
                else:
                    return
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _CONT_MAX_DELAY_S)
    except TimeoutError as error:
        raise QemuError(
            f"QEMU did not resume the machine within {_CONT_S:g} s after it was saved; "
            "resume the pod"
        ) from error


async def _go_back(monitor: Monitor, was_running: bool) -> None:
    """Ends a save that has failed; an error is only logged: the reason of the failure counts."""
    try:
        await monitor.execute("migrate_cancel")  # else it would stop the machine later
    except QemuError as error:
        log.warning("ending a save that failed: %s", error)
    if was_running:
        try:
            await cont(monitor)
        except QemuError as error:
            log.warning("resuming a machine whose save failed: %s", error)


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


def _room(manifest: Manifest, hotplugged: Hotplugged | None = None) -> int:
    """Returns how many bytes a QEMU that is not taken over writes at most.

    All memory is written once while the machine runs, and once more what it has changed meanwhile.
    """
    plugged = sum(hotplugged.memories.values()) if hotplugged else 0
    return 2 * ((manifest.memory_mib << 20) + plugged) + _DEVICES_BYTES


async def _migrate(monitor: Monitor, handle: int, room: int, kill: Kill) -> None:
    await _set_capabilities(monitor)
    # With no downtime allowed, QEMU stops a running machine when it has written all memory once:
    # migration.c, migration_iteration_run. A guest that writes fast makes that no longer.
    await monitor.execute(
        "migrate-set-parameters", {"max-bandwidth": _UNLIMITED_BYTES, "downtime-limit": 0}
    )
    await monitor.give("state", handle)
    async with monitor.events("MIGRATION") as changes:
        await monitor.execute("migrate", {"uri": "fd:state"})
        ending = asyncio.ensure_future(_end(changes))
        try:
            while not (await asyncio.wait([ending], timeout=_LOOK_S))[0]:
                await _check_room(handle, room, kill)
            status = await ending
        finally:
            ending.cancel()
    await _check_room(handle, room, kill)
    if status != "completed":
        result = await monitor.ask("query-migrate", Migration)
        raise QemuError(f"QEMU could not save the machine: {result.error_desc[:500] or status}")


async def _end(changes: AsyncIterator[tuple[str, Mapping[str, Any]]]) -> str:
    async for _, change in changes:
        if (status := str(change.get("status"))) in _ENDED:
            return status
    raise AssertionError("events end with an exception")


async def _check_room(handle: int, room: int, kill: Kill) -> None:
    """Kills a QEMU that writes too much: it was taken over, and would fill the disk."""
    found = os.fstat(handle)
    if max(found.st_size, found.st_blocks * 512) > room:  # fallocate(2) may leave the size
        await kill()
        raise QemuError(
            f"QEMU wrote more than {room >> 20} MiB of state, more than the machine can have: "
            "it may be taken over, and was killed"
        )


async def _prepare_incoming(monitor: Monitor) -> None:
    await _set_capabilities(monitor)
    # QEMU announces a migrated machine to its network, or lets the guest do so, with the addresses
    # that it was saved with. The new machine gets addresses of its own.
    await monitor.execute("migrate-set-parameters", {"announce-rounds": 0})


async def _set_capabilities(monitor: Monitor) -> None:
    capabilities = [{"capability": name, "state": True} for name in _CAPABILITIES]
    await monitor.execute("migrate-set-capabilities", {"capabilities": capabilities})


def _manifest(checkpoint: Checkpoint) -> Path:
    return checkpoint.folder / "machine.json"
