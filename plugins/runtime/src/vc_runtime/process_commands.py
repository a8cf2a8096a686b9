"""The commands that leave a stand-in behind: create and exec."""

from __future__ import annotations

import asyncio
import os
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs

from vc_core.driver_kit.host_process import HostProcess
from vc_runtime import generic_stand_in, stand_in, starter
from vc_runtime.command import explained
from vc_runtime.errors import RuntimeFailure, not_running
from vc_runtime.records import Record, Records, choosing_environment, pod_id_of

if TYPE_CHECKING:
    from vc_core import Pod, Runtime
    from vc_core.spec import ContainerSpec, ProcessSpec
    from vc_runtime.bundles import Bundle


def create(found: Namespace) -> int:
    """Creates a container, in a pod of its own or in that of its sandbox."""
    bundle = found.bundle.absolute()
    records = Records(found.root)
    records.add(
        Record(
            id=found.id,
            pod="",
            container=pod_id_of(found.id),
            owns_pod=False,
            bundle=str(bundle),
            created_ns=time.time_ns(),
            environment=choosing_environment(),
        )
    )

    def work() -> Sequence[str]:
        return asyncio.run(_created(found, records))

    def all_work() -> Sequence[str]:
        from vc_runtime import network_namespace

        return network_namespace.in_network_of(bundle, work)

    try:
        pid = stand_in.leave(all_work, found.console_socket, explained)
        stand_in.write_pid(found.pid_file, pid)
    except BaseException:
        # Most is undone by the child; not if that was killed.
        from vc_runtime import guest_commands

        guest_commands.discard(records, found.id)
        raise
    return 0


async def _created(found: Namespace, records: Records) -> Sequence[str]:
    from vc_core import Runtime
    from vc_core.spec import OciHooks, StandIn
    from vc_runtime import bundles, cgroups, namespaces, network_namespace

    record = records.get(found.id)
    async with Runtime.open() as runtime, AsyncExitStack() as undo:
        bundle = bundles.read(
            Path(record.bundle), record.container, tuple(runtime.config.pod.asset_paths)
        )
        this = HostProcess.this()
        record = structs.replace(
            record,
            pid=this.pid,
            start_ticks=this.start_ticks,
            annotations=dict(bundle.container.annotations),
        )
        records.put(record)
        group = cgroups.path_of(bundle.groups, found.systemd_cgroup)
        records.put_group(record.id, group)
        undo.callback(cgroups.remove, group)
        groups = cgroups.join(group)
        namespaces.check_types(bundle.joined)
        joined_pod, pid_owner = namespaces.pod_and_pid_owner(bundle.joined, bundle.sandbox, records)
        spec = _joining(bundle.container, pid_owner)
        kinds = spec.confinement.namespaces or ()
        shares_pids = pid_owner is not None or "pid" not in kinds
        record = structs.replace(record, pod=joined_pod, shares_pids=shares_pids)
        records.put(record)
        if spec.hooks.are_on_host:
            from vc_runtime import hooks

            await hooks.create(records, record, spec.hooks, runtime.config.deadlines.default)
            in_guest = OciHooks(start_container=spec.hooks.start_container)
            spec = structs.replace(spec, hooks=in_guest)
        if not joined_pod:
            network, namespace = network_namespace.network_of(bundle.network, record.pid)
            bundle = structs.replace(bundle, network=network)
            record = structs.replace(record, namespace=namespace)
            # The same object: another one would open another channel to the guest.
            record, pod = await _start_pod(runtime, records, record, bundle, undo)
            await _adopt(pod, groups)
        else:
            pod = await runtime.get(record.pod)
        container = await pod.create_container(spec)
        undo.push_async_callback(container.delete, force=True)
        process = await container.process(may_wait=True)
        role = StandIn(ends_machine=record.owns_pod, memory_group=cgroups.memory_of(groups))
        with starter.listening(records, record.id) as socket:
            words = await generic_stand_in.own_or_generic(
                process, role, record.environment, socket.fileno()
            )
        undo.pop_all()
    return words


def _joining(spec: ContainerSpec, pid_owner: Record | None) -> ContainerSpec:
    """Returns a container that joins the pid namespace of another one, if that is given."""
    if pid_owner is None:
        return spec
    confinement = structs.replace(spec.confinement, pid_container_id=pid_owner.container)
    return structs.replace(spec, confinement=confinement)


async def _start_pod(
    runtime: Runtime, records: Records, record: Record, bundle: Bundle, undo: AsyncExitStack
) -> tuple[Record, Pod]:
    """Returns the record with the pod, which is stored before there is a machine to be lost."""
    pod = await runtime.create(
        record.container,
        hostname=bundle.container.hostname,
        annotations=record.annotations,
        options=bundle.options,
        network=bundle.network,
    )
    undo.push_async_callback(pod.delete, force=True)
    record = structs.replace(record, pod=pod.id, owns_pod=True)
    records.put(record)
    await pod.start()
    return record, pod


async def _adopt(pod: Pod, groups: tuple[str, ...]) -> None:
    """Moves the machine into the caller's groups."""
    from vc_runtime import cgroups

    machine = (await pod.status(ask_guest=False)).pid
    if machine:
        cgroups.adopt(groups, machine)


def execute(found: Namespace) -> int:
    """Runs a process in a container; without --detach it ends with the code of the process."""
    records = Records(found.root)
    record = records.get(found.id)
    if record.status not in ("running", "paused"):
        raise not_running(found.id)
    if found.tty and not found.console_socket:
        raise RuntimeFailure("--tty needs a --console-socket, which gets the terminal")

    def work() -> Sequence[str]:
        return asyncio.run(_executed(found, record, records.group(record.id)))

    if found.detach:
        stand_in.write_pid(found.pid_file, stand_in.leave(work, found.console_socket, explained))
        return 0
    stand_in.write_pid(found.pid_file, os.getpid())
    stand_in.become(work, found.console_socket)
    return 0


async def _executed(found: Namespace, record: Record, group: str) -> Sequence[str]:
    from vc_core import Runtime
    from vc_core.spec import ProcessSpec, StandIn
    from vc_runtime import cgroups

    record.restore_environment()
    async with Runtime.open() as runtime:
        if found.process is not None:
            process = _process_of(found.process.read_bytes(), found.tty)
        elif found.command:
            process = ProcessSpec(
                args=tuple(found.command),
                env=tuple(found.env),
                cwd=found.cwd,
                user=found.user,
                terminal=found.tty,
            )
        else:
            raise RuntimeFailure("exec needs --process or a command")
        pod = await runtime.get(record.pod)
        made = await pod.container(record.container).exec(process)
        # Not in the group: of version 2, that has room for the machine and one stand-in.
        role = StandIn(memory_group=cgroups.memory_of(cgroups.writable(group)))
        return await generic_stand_in.own_or_generic(made, role, record.environment)


def _process_of(document: bytes, has_terminal: bool) -> ProcessSpec:
    import msgspec

    from vc_core.oci import process
    from vc_core.oci.reading import Reader

    problems: list[str] = []
    read = process.read(Reader(msgspec.json.decode(document), "process", problems))
    if problems:
        raise RuntimeFailure("; ".join(problems))
    return structs.replace(read, terminal=read.terminal or has_terminal)


VERBS: dict[str, Callable[[Namespace], int]] = {"create": create, "exec": execute}
