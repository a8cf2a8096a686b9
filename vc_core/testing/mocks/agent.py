"""An agent for mock machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec import structs

from vc_core.spec import (
    AgentError,
    AgentInfo,
    AgentSpec,
    AlreadyExists,
    CannotExecute,
    Capability,
    Channel,
    ContainerSpec,
    ContainerStats,
    ExitStatus,
    Finding,
    Guest,
    GuestContainer,
    GuestContainerStatus,
    GuestDriver,
    InvalidRequest,
    KernelSource,
    Mount,
    NotFound,
    PodRef,
    PodSetup,
    ProcessInfo,
    ProcessSpec,
    ProcessStreams,
    Report,
    Resources,
    StateError,
    Stdio,
    StreamName,
    VmPhase,
    hookimpl,
)
from vc_core.testing.mocks.world import MockContainer, MockMachine, MockProcess, World

_LAST_SIGNAL = 64
_CGROUP_FILES = ("memory.low", "memory.oom.group")
GUEST = Guest(
    id="mock",
    kernel=Path("/mock/kernel"),
    initrd=Path("/mock/initrd"),
    parameters=(),
    proof_parameters=(),
)


class MockStreams:
    """Streams that return what is written, and end with the process."""

    def __init__(self, process: MockProcess) -> None:
        self._process = process
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        self._queue.put_nowait(data)

    async def close_stdin(self) -> None:
        if self._process.args[0] == "endless":
            self._process.on_end.append(lambda: self._queue.put_nowait(None))
            return
        self._process.end(0)
        self._queue.put_nowait(None)

    async def chunks(self) -> AsyncIterator[tuple[StreamName, bytes]]:
        while (data := await self._queue.get()) is not None:
            yield StreamName.STDOUT, data

    async def close(self) -> None:
        self._process.client = None
        self._queue.put_nowait(None)


class MockAgent(AgentSpec):
    """The mock agent plugin; its guests are in the world."""

    world: World

    def __init__(self) -> None:
        self._channel: Channel | None = None

    @hookimpl
    async def agent_capabilities(self, pod: PodRef) -> frozenset[Capability]:
        able = {Capability.ONLINE, Capability.DRIVE, Capability.QUIESCE, Capability.NETWORK}
        return frozenset({Capability.UNIX_CHANNEL, *able})

    @hookimpl
    async def agent_guest(self, pod: PodRef) -> Guest:
        return structs.replace(GUEST, id=self.world.guest_id)

    @hookimpl
    async def agent_prepare(self, pod: PodRef) -> None:
        """Does nothing: there is nothing to load."""

    @hookimpl
    async def agent_connect(self, pod: PodRef, channel: Channel) -> AgentInfo:
        if self.world.machines[pod.id].is_hung and self.world.machines[pod.id].is_clone:
            await asyncio.Event().wait()
        if channel.id not in self.world.machines[pod.id].channels:
            raise AgentError("no such channel")
        self._channel = channel
        self.world.connections += 1
        self.world.connected.set()
        return AgentInfo(version="0", protocol=1, features=(), kernel="mock")

    @hookimpl
    async def agent_disconnect(self, pod: PodRef) -> None:
        if self._channel is not None:
            self._channel = None
            self.world.connections -= 1
            if pod.id in self.world.machines:
                self.world.machines[pod.id].is_let_go = False

    @hookimpl
    async def agent_set_up_pod(self, pod: PodRef, setup: PodSetup) -> None:
        (await self._machine(pod)).is_set_up = True
        self.world.set_ups.append(setup)

    @hookimpl
    async def agent_quiesce(self, pod: PodRef) -> None:
        machine = await self._machine(pod)
        machine.is_let_go = machine.is_ready_template = True

    @hookimpl
    async def agent_unquiesce(self, pod: PodRef) -> None:
        (await self._machine(pod)).is_let_go = False

    @hookimpl
    async def agent_tear_down_pod(self, pod: PodRef) -> None:
        machine = await self._machine(pod)
        for name in list(machine.containers):
            self._remove(machine, name)
        machine.end("the guest powered off")

    @hookimpl
    async def agent_create_container(self, pod: PodRef, container: GuestContainer) -> None:
        machine = await self._machine(pod)
        if not machine.is_set_up:
            raise AgentError("the pod is not set up")
        if container.spec.id in machine.containers:
            raise AlreadyExists(container.spec.id)
        for plugged in (
            container.rootfs.plugged,
            *(one for device in container.devices for one in device.plugged),
        ):
            if (
                plugged.id not in {*machine.shares, *machine.devices}
                and plugged.driver is not GuestDriver.NODE
            ):
                raise AgentError(f"{plugged.id} is not plugged")
        if unknown := [
            name for name, _ in container.spec.resources.unified if name not in _CGROUP_FILES
        ]:
            raise AgentError(f"the cgroup has no file {unknown[0]}")
        owner = container.spec.confinement.pid_container_id
        if owner and owner not in machine.containers:
            raise NotFound(f"container {owner} is not in the guest")
        self._look_for(container.spec.process)
        for one in container.mounts:
            self._copy_up(container.spec, one.mount)
        process = MockProcess(container.spec.process.args)
        machine.containers[container.spec.id] = MockContainer(container, {container.token: process})
        if container.starts:
            self._start(machine.containers[container.spec.id])

    @staticmethod
    def _copy_up(spec: ContainerSpec, mount: Mount) -> None:
        """Copies the names, not the contents, of the files."""
        if mount.copy_up and not any(mount.source.iterdir()):
            for path in (spec.rootfs.path / mount.destination.lstrip("/")).iterdir():
                (mount.source / path.name).touch()

    @hookimpl
    async def agent_start_container(self, pod: PodRef, container_id: str) -> None:
        self._start(self._container(await self._machine(pod), container_id))

    @hookimpl
    async def agent_remove_container(self, pod: PodRef, container_id: str) -> None:
        self._remove(await self._machine(pod), container_id)

    @hookimpl
    async def agent_list_containers(self, pod: PodRef) -> tuple[GuestContainerStatus, ...]:
        machine = await self._machine(pod)
        return tuple(
            GuestContainerStatus(id=name, exit=found.processes[found.made.token].status)
            for name, found in machine.containers.items()
        )

    @hookimpl
    async def agent_update_container(
        self, pod: PodRef, container_id: str, resources: Resources
    ) -> None:
        found = self._container(await self._machine(pod), container_id)
        found.resources = resources

    @hookimpl
    async def agent_online(self, pod: PodRef, vcpus: int, plugged_memory_mib: int) -> None:
        machine = await self._machine(pod)
        if vcpus > machine.size.vcpus:
            raise AgentError(f"{vcpus} vCPUs did not come")

    @hookimpl
    async def agent_container_stats(self, pod: PodRef, container_id: str) -> ContainerStats:
        self._container(await self._machine(pod), container_id)
        return ContainerStats(cpu_ns=1, memory_bytes=2, memory_limit_bytes=0, processes=1)

    @hookimpl
    async def agent_list_processes(self, pod: PodRef, container_id: str) -> tuple[ProcessInfo, ...]:
        found = self._container(await self._machine(pod), container_id)
        return tuple(
            ProcessInfo(
                pid=number,
                parent_pid=0,
                uid=0,
                state="S",
                resident_bytes=0,
                cpu_ns=0,
                command=process.args,
            )
            for number, process in enumerate(found.processes.values(), 1)
            if process.status is None
        )

    @hookimpl
    async def agent_exec(
        self,
        pod: PodRef,
        container_id: str,
        token: str,
        process: ProcessSpec,
        stdio: Stdio,
    ) -> None:
        found = self._container(await self._machine(pod), container_id)
        self._look_for(process)
        found.processes[token] = MockProcess(process.args)

    @hookimpl
    async def agent_attach(self, pod: PodRef, container_id: str, token: str) -> ProcessStreams:
        found = self._container(await self._machine(pod), container_id)
        if token == found.made.token and found.made.spec.stdio is Stdio.NULL:
            raise AgentError("no streams")
        process = self._process(found, token)
        if process.client is self:
            raise AgentError("another client has them")
        process.client = self
        return MockStreams(process)

    @hookimpl
    async def agent_wait(self, pod: PodRef, container_id: str, token: str) -> ExitStatus:
        machine = await self._machine(pod)
        process = self._process(self._container(machine, container_id), token)
        ended = asyncio.ensure_future(process.ended.wait())
        gone = asyncio.ensure_future(machine.ended.wait())
        try:
            await asyncio.wait([ended, gone], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (ended, gone):
                task.cancel()
        if process.status is None:
            raise AgentError("the machine ended")
        return process.status

    @hookimpl
    async def agent_signal(self, pod: PodRef, container_id: str, token: str, signal: int) -> None:
        if not 0 < signal <= _LAST_SIGNAL:
            raise InvalidRequest(f"there is no signal {signal}")
        found = self._container(await self._machine(pod), container_id)
        for process in [self._process(found, token)] if token else found.processes.values():
            if process.status is not None and token:
                raise StateError("process", "signal it", "ended", ["running"])
            if process.args[0] != "stubborn" or signal == 9:
                process.end(128 + signal, signal)

    @hookimpl
    async def agent_resize(
        self, pod: PodRef, container_id: str, token: str, rows: int, columns: int
    ) -> None:
        raise AgentError("no terminal")

    @hookimpl
    async def agent_build_guest(self, source: KernelSource, report: Report) -> Guest:
        if source.image is not None and not source.image.exists():
            raise AgentError(f"{source.image} is missing")
        report("building")
        return GUEST

    @hookimpl
    async def agent_list_guests(self) -> tuple[Guest, ...]:
        return (GUEST,)

    @hookimpl
    async def agent_remove_guest(self, guest_id: str) -> Guest:
        raise NotFound(guest_id)

    @hookimpl
    async def agent_diagnose(self) -> tuple[Finding, ...]:
        return ()

    async def _machine(self, pod: PodRef) -> MockMachine:
        machine = self.world.machines.get(pod.id)
        if self._channel is None:
            raise AgentError("not connected")
        if machine is None or machine.phase is VmPhase.ENDED:
            raise AgentError("the connection broke")
        if machine.is_hung or machine.phase is VmPhase.PAUSED:
            self.world.is_waited_for.set()
            await asyncio.Event().wait()
        return machine

    @staticmethod
    def _look_for(process: ProcessSpec) -> None:
        if process.args[0] == "missing":
            raise CannotExecute("missing", is_missing=True)
        if process.args[0] == "/etc":
            raise CannotExecute("/etc is a directory", is_missing=False)

    @staticmethod
    def _container(machine: MockMachine, container_id: str) -> MockContainer:
        if container_id not in machine.containers:
            raise NotFound(container_id)
        return machine.containers[container_id]

    @staticmethod
    def _process(found: MockContainer, token: str) -> MockProcess:
        if token not in found.processes:
            raise NotFound(token)
        return found.processes[token]

    @staticmethod
    def _start(found: MockContainer) -> None:
        found.is_started = True
        process = found.processes[found.made.token]
        words = process.args[2].split() if process.args[:2] == ("sh", "-c") else process.args
        if words[0] == "exit":
            process.end(int(words[1]))

    @staticmethod
    def _remove(machine: MockMachine, container_id: str) -> None:
        found = machine.containers.pop(container_id, None)
        for process in found.processes.values() if found else ():
            process.end(137, 9)


def mock_agent(world: World) -> type[MockAgent]:
    """Returns a plugin for one world."""
    return type("MockAgent", (MockAgent,), {"world": world})
