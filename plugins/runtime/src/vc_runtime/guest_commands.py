"""The commands on a container that need its machine.

The engine and asyncio are imported when they are used: `delete --force` of what is gone, which
callers repeat, needs neither.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import signal
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec import structs

from vc_core.driver_kit.host_process import HostProcess
from vc_runtime import cgroups
from vc_runtime.errors import DamagedRecord, RuntimeFailure, UnknownContainer, not_running
from vc_runtime.records import Record, Records, pod_id_of

if TYPE_CHECKING:
    from vc_core import Container, Pod, Runtime
    from vc_core.spec import Resources

log = logging.getLogger(__name__)

_FREEZER = "cgroup.freeze"
_END_S = 10.0
T = TypeVar("T")


def _run(work: Coroutine[None, None, T]) -> T:
    import asyncio

    return asyncio.run(work)


@asynccontextmanager
async def _container(record: Record) -> AsyncIterator[Container]:
    from vc_core import Runtime

    record.restore_environment()
    async with Runtime.open() as runtime:
        yield (await runtime.get(record.pod)).container(record.container)


def start(found: Namespace) -> int:
    """Starts a created container."""
    records = Records(found.root)
    with records.locked(found.id):
        record = records.get(found.id)
        if record.status != "created":
            raise RuntimeFailure(
                f"cannot start a container in the {record.status} state; it must be created"
            )
        _run(_start(records, record))
        records.put(structs.replace(record, was_started=True))
    # Without the lock: a hook may call this program, and another command need not wait for it.
    if records.hooks(found.id):
        from vc_runtime import hooks

        _run(hooks.started(records, record))
    return 0


def _late_network(record: Record) -> str:
    """Returns the network that the engine has connected since `create`; empty for none.

    Docker does so from its version 28 on.
    """
    if not record.namespace:
        return ""
    from vc_runtime import network_namespace

    is_connected = network_namespace.is_connected(record.namespace)
    return f"ns:{record.namespace}" if is_connected else ""


async def _start(records: Records, record: Record) -> None:
    record.restore_environment()
    if network := _late_network(record):
        await _start_connected(record, network)
        return
    from vc_core.engine.api import delegated_start
    from vc_runtime import starter

    ask = functools.partial(starter.ask, records, record.id)
    if await delegated_start.start(record.pod, record.container, ask):
        return
    async with _container(record) as container:
        await container.start()


async def _start_connected(record: Record, network: str) -> None:
    from vc_core import Runtime

    async with Runtime.open() as runtime:
        pod = await runtime.get(record.pod)
        await pod.connect(network)
        await pod.container(record.container).start()


def delete(found: Namespace) -> int:
    """Deletes a container, and its pod if it has made that."""
    records = Records(found.root)
    try:
        with records.locked(found.id):
            _delete(records, found)
    except UnknownContainer:
        if not found.force:
            raise
    return 0


def _delete(records: Records, found: Namespace) -> None:
    record = _readable(records, found)
    if record is None:
        _run(_pod_gone(pod_id_of(found.id)))
        _remove_groups(records, found.id)
        _told(records, found.id)
    else:
        if record.pid and record.stand_in.is_alive():
            if not found.force and record.status != "created":
                raise RuntimeFailure(
                    f"cannot delete container {found.id!r} that is not stopped: {record.status}"
                )
            record.stand_in.send(signal.SIGKILL)
        _remove(records, record)
    records.remove(found.id)


def discard(records: Records, container_id: str) -> None:
    """Removes all of a container whose creation has failed."""
    _remove(records, records.get(container_id))
    records.remove(container_id)


def _remove(records: Records, record: Record) -> None:
    if record.pod:
        _run(_gone(record))
    _remove_groups(records, record.id)
    _told(records, record.id)


def _told(records: Records, container_id: str) -> None:
    """Runs the hooks that wait for the end of a container, when all of it is removed."""
    if records.hooks(container_id):
        from vc_runtime import hooks

        _run(hooks.deleted(records, container_id))


def _remove_groups(records: Records, container_id: str) -> None:
    """Removes the caller's control groups, when what is in them has ended: the guard of a stand-in,
    or a stand-in whose pid is not known.
    """
    try:
        path = records.group(container_id)
    except DamagedRecord as error:
        log.warning("%s; its control groups are not removed", error)
        return
    if cgroups.remove(path):
        _run(_ended(cgroups.processes(path)))
        for folder in cgroups.remove(path):
            log.warning("the control group %s stays: it has processes", folder)


async def _ended(pids: set[int]) -> None:
    import asyncio

    processes = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            processes.append(HostProcess.of(pid))
    await asyncio.gather(*(one.ended_within(_END_S) for one in processes))


def _readable(records: Records, found: Namespace) -> Record | None:
    """Returns the record; with --force None for one that is damaged, after a warning.

    A pod of its own is found by the id; in which pod another container is, is not known.
    """
    try:
        return records.get(found.id)
    except DamagedRecord as error:
        if not found.force:
            raise
        log.warning("%s", error)
        return None


async def _gone(record: Record) -> None:
    from vc_core import Runtime
    from vc_core.spec import NotFound

    if record.pid:
        await record.stand_in.ended_within(_END_S)
    record.restore_environment()
    async with Runtime.open() as runtime:
        with contextlib.suppress(NotFound):  # by an earlier call, or by 'vc'
            if not record.owns_pod:
                await _member_gone(await runtime.get(record.pod), record.container)
                return
            await _machine_ended(runtime, record)
            await runtime.delete(record.pod, force=True)


async def _member_gone(pod: Pod, container_id: str) -> None:
    """Deletes a container of a pod of others, whose machine may end meanwhile."""
    from vc_core import State
    from vc_core.spec import OperationError

    container = pod.container(container_id)
    try:
        await container.delete(force=True)
    except OperationError:
        if (await pod.status(ask_guest=False)).state is not State.STOPPED:
            raise
        await container.delete(force=True)


async def _pod_gone(pod_id: str) -> None:
    from vc_core import Runtime
    from vc_core.spec import NotFound

    async with Runtime.open() as runtime:
        with contextlib.suppress(NotFound):
            await runtime.delete(pod_id, force=True)


async def _machine_ended(runtime: Runtime, record: Record) -> None:
    """Waits for the end of a machine that follows its stand-in: until then it writes back files."""
    from vc_core.spec import PodDamaged

    try:
        machine = (await (await runtime.get(record.pod)).status(ask_guest=False)).pid
        if machine and not await HostProcess.of(machine).ended_within(_END_S):
            log.warning("the machine of container %s is killed: it does not end", record.id)
    except ProcessLookupError:
        return  # it has just ended
    except PodDamaged as error:
        log.warning("%s", error)


def kill_all(record: Record, number: int) -> int:
    """Sends a signal to all processes of a container; SIGKILL also when the first has ended."""
    is_alive = bool(record.pid) and record.stand_in.is_alive()
    if not is_alive and number != signal.SIGKILL:
        raise not_running(record.id)
    _run(_kill_all(record, number, is_alive))
    return 0


async def _kill_all(record: Record, number: int, is_alive: bool) -> None:
    from vc_core.spec import NotFound

    if not record.pod:
        return
    # Gone: by 'delete', by 'vc', or with its machine.
    with contextlib.suppress(NotFound):
        async with _container(record) as container:
            if not is_alive:
                await container.stop(grace_s=0)
                return
            await container.kill(number, everything=True)


def pause(found: Namespace) -> int:
    """Suspends the processes of a container; the others of its pod go on."""
    return _freeze(found, "running", True)


def resume(found: Namespace) -> int:
    """Resumes the processes of a container."""
    return _freeze(found, "paused", False)


def _freeze(found: Namespace, wanted: str, is_paused: bool) -> int:
    records = Records(found.root)
    with records.locked(found.id):
        record = records.get(found.id)
        if record.status != wanted:
            raise RuntimeFailure(f"container {found.id!r} is {record.status}, not {wanted}")
        _run(_set_freezer(record, is_paused))
        records.put(structs.replace(record, is_paused=is_paused))
    return 0


async def _set_freezer(record: Record, is_paused: bool) -> None:
    async with _container(record) as container:
        current = (await container.spec()).resources
        others = tuple(pair for pair in current.unified if pair[0] != _FREEZER)
        unified = (*others, (_FREEZER, str(int(is_paused))))
        await container.update(structs.replace(current, unified=unified))


def update(found: Namespace) -> int:
    """Changes the limits that are given, those of linux.resources in the runtime-spec."""
    import msgspec

    from vc_core.oci import limits
    from vc_core.oci.reading import Reader

    record = Records(found.root).get(found.id)
    if not found.resources:
        raise RuntimeFailure("update needs --resources with a file, or - for stdin")
    text = sys.stdin.buffer.read() if found.resources == "-" else Path(found.resources).read_bytes()
    problems: list[str] = []
    given = msgspec.json.decode(text)
    wanted = limits.read(Reader(given, "resources", problems))
    if problems:
        raise RuntimeFailure("; ".join(problems))
    _run(_update(record, wanted, given))
    return 0


async def _update(record: Record, wanted: Resources, given: dict[str, dict[str, object]]) -> None:
    """Changes what is given; zero and what is absent stay as they are."""
    async with _container(record) as container:
        current = (await container.spec()).resources
        cpu, memory, pids = (given.get(name) or {} for name in ("cpu", "memory", "pids"))
        changes: dict[str, object] = {}
        if cpu.get("quota"):
            changes |= {"cpu_quota_us": wanted.cpu_quota_us, "cpu_period_us": wanted.cpu_period_us}
        if cpu.get("shares"):
            changes["cpu_shares"] = wanted.cpu_shares
        if cpu.get("cpus"):
            changes["cpuset"] = wanted.cpuset
        if memory.get("limit"):
            changes["memory_bytes"] = wanted.memory_bytes
        if pids.get("limit"):
            changes["pids"] = wanted.pids
        if wanted.unified:
            changes["unified"] = tuple({**dict(current.unified), **dict(wanted.unified)}.items())
        await container.update(structs.replace(current, **changes))


def ps(found: Namespace) -> int:
    """Prints the processes of a container: pids of the guest, or with json that of the stand-in.

    Callers look for the pids of json in this host's /proc, where there is the stand-in only.
    """
    record = Records(found.root).get(found.id)
    if record.status not in ("running", "paused", "created"):
        raise not_running(found.id)
    if found.format == "json":
        sys.stdout.write(json.dumps([record.pid]) + "\n")
        return 0
    sys.stdout.write(_run(_processes(record)))
    return 0


async def _processes(record: Record) -> str:
    async with _container(record) as container:
        rows = [("UID", "PID", "PPID", "STAT", "TIME", "CMD")]
        for one in await container.processes():
            time_s = one.cpu_ns // 10**9
            clock = f"{time_s // 3600:02}:{time_s // 60 % 60:02}:{time_s % 60:02}"
            command = " ".join(one.command).encode("unicode_escape").decode()
            rows.append(
                (str(one.uid), str(one.pid), str(one.parent_pid), one.state, clock, command)
            )
    return "".join("{:<8}{:>8}{:>8} {:<5}{:<10}{}\n".format(*row) for row in rows)


VERBS: dict[str, Callable[[Namespace], int]] = {
    "start": start,
    "delete": delete,
    "pause": pause,
    "resume": resume,
    "update": update,
    "ps": ps,
}
