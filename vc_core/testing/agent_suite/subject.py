"""An agent plugin under test, and a guest of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from vc_core.defaults import DataDefaults
from vc_core.engine.host.container_disks import ContainerDisks
from vc_core.spec import (
    AgentSpec,
    Capability,
    Channel,
    ContainerSpec,
    Drive,
    FilesRequest,
    GuestContainer,
    GuestContainerStatus,
    GuestMount,
    GuestRootfs,
    Hooks,
    Plugged,
    PodOptions,
    PodRef,
    PodSetup,
    ProcessSpec,
    ProcessStreams,
    Rootfs,
    Share,
    Stdio,
    StreamName,
    VmSpec,
)
from vc_core.spec.log_format import Reader, Record
from vc_core.testing.mocks import World
from vc_core.testing.rules import time_limit, wired

SETUP = PodSetup(
    hostname="contract",
    time_ns=1_800_000_000_000_000_000,
    seed=bytes(range(32)),
    machine_id="0123456789abcdef0123456789abcdef",
)

LIVES = ("sleep", "1000")
ENDS = ("sh", "-c", "exit 3")
ECHOES = ("cat",)
MISSING = ("missing",)
FOLDER = ("/etc",)


def process(args: tuple[str, ...]) -> ProcessSpec:
    """Returns a process with a PATH for the programs of AgentSubject.rootfs."""
    return ProcessSpec(args=args, env=("PATH=/bin",), cwd="/", user="0:0", no_new_privileges=True)


@dataclass
class AgentSubject:
    """An agent plugin under test.

    Attributes:
        make: creates an object, as another process would.
        hypervisor: creates an object of the plugin whose machines boot the agent's guests.
        rootfs: a folder with the programs sh, sleep and cat in its /bin.
        folder: an empty, private folder for the files of machines.
    """

    make: Callable[[], object]
    hypervisor: Callable[[], object]
    rootfs: Path
    folder: Path
    world: World = field(default_factory=lambda: World(Path("/nowhere")))

    def __post_init__(self) -> None:
        self.pod = PodRef(id="contract", run_dir=self.folder / "run")
        self.pod.run_dir.mkdir(mode=0o700)

    def agent(self) -> AgentSpec:
        """Returns its operations, by a new object without a connection."""
        return self._hooks()

    @asynccontextmanager
    async def guest(self) -> AsyncIterator[InGuest]:
        """Provides a guest that is booted and set up, for the length of a block."""
        hooks = self._hooks()
        booted = await hooks.agent_guest(pod=self.pod)
        folder = self.folder / "volume"
        folder.mkdir(exist_ok=True)
        shares = (
            Share(tag="root", path=self.rootfs),
            Share(tag="volume", path=folder, read_only=False),
        )
        await hooks.vm_create(
            pod=self.pod, spec=VmSpec(guest=booted, vcpus=1, memory_mib=256, shares=shares)
        )
        try:
            await hooks.vm_start(pod=self.pod)
            channel = await hooks.vm_open_channel(pod=self.pod, name="vc.agent.1")
            await hooks.agent_connect(pod=self.pod, channel=channel)
            await hooks.agent_set_up_pod(pod=self.pod, setup=SETUP)
            root, volume = await hooks.vm_shares(pod=self.pod)
            yield InGuest(self, hooks, channel, root, volume)
        finally:
            await hooks.agent_disconnect(pod=self.pod)
            await hooks.vm_destroy(pod=self.pod)

    def _hooks(self) -> Hooks:
        return wired(self.world, agent=self.make(), hypervisor=self.hypervisor()).hooks


@dataclass
class InGuest:
    """A guest with a connected agent."""

    subject: AgentSubject
    agent: Hooks
    channel: Channel
    root: Plugged
    volume: Plugged

    @property
    def volume_folder(self) -> Path:
        """The folder of the share `volume`."""
        return self.subject.folder / "volume"

    @property
    def pod(self) -> PodRef:
        """The pod of the guest."""
        return self.subject.pod

    async def needs(self, *wanted: Capability) -> None:
        """Skips the test unless agent and hypervisor together declare all of these capabilities."""
        able = await self.agent.agent_capabilities(pod=self.pod) | await self.agent.vm_capabilities(
            pod=self.pod
        )
        if missing := set(wanted) - able:
            pytest.skip(f"{' and '.join(sorted(missing))} is not declared")

    async def create(
        self,
        name: str,
        args: tuple[str, ...],
        stdio: Stdio = Stdio.NULL,
        mounts: tuple[GuestMount, ...] = (),
        pod: PodOptions | None = None,
        **asked: Any,
    ) -> None:
        """Creates a container that waits for its start; the token of its first process is its name.

        Args:
            name: its id.
            args: argv of its first process.
            stdio: what the streams of that process are connected to.
            mounts: all of its mounts.
            pod: options that all containers of its pod share; None for the defaults.
            asked: further fields of its ContainerSpec.
        """
        spec = ContainerSpec(
            id=name,
            rootfs=Rootfs(path=self.subject.rootfs),
            process=process(args),
            stdio=stdio,
            **asked,
        )
        log = await self._plug_log(name) if stdio is Stdio.LOG else None
        await self.agent.agent_create_container(
            pod=self.pod,
            container=GuestContainer(
                spec=spec,
                token=name,
                rootfs=GuestRootfs(plugged=self.root),
                mounts=mounts,
                pod=pod or PodOptions(),
                log=log,
            ),
        )

    async def run(
        self, name: str, args: tuple[str, ...], stdio: Stdio = Stdio.NULL, **asked: Any
    ) -> None:
        """Creates and starts a container."""
        await self.create(name, args, stdio, **asked)
        await self.agent.agent_start_container(pod=self.pod, container_id=name)

    async def _plug_log(self, name: str) -> Plugged:
        return await self.agent.vm_plug(
            pod=self.pod,
            device=Drive(id=f"log-{name}", path=self._data.make_log(self.pod.id, name)),
        )

    def logged(self, name: str) -> list[Record]:
        """Returns the records in a container's log."""
        with Reader(self._data.log(self.pod.id, name)) as reader:
            return list(reader.read())

    @property
    def _data(self) -> ContainerDisks:
        return ContainerDisks(DataDefaults(self.subject.folder / "data"))

    async def ends(self, name: str) -> int:
        """Returns the exit code of its first process."""
        async with time_limit():
            return (await self.agent.agent_wait(pod=self.pod, container_id=name, token=name)).code

    async def container_status(
        self, name: str, is_it: Callable[[GuestContainerStatus], bool]
    ) -> GuestContainerStatus:
        """Returns the status of a container as soon as it meets a condition.

        There is no event for it, so the guest is asked repeatedly.
        """
        async with time_limit():
            while True:
                rows = await self.agent.agent_list_containers(pod=self.pod)
                found = next(one for one in rows if one.id == name)
                if is_it(found):
                    return found
                await asyncio.sleep(0.1)

    async def files(self, name: str, request: FilesRequest) -> tuple[int, bytes, bytes]:
        """Returns the exit code of a request, and the output on its two streams."""
        await self.agent.agent_serve_files(
            pod=self.pod, container_id=name, token="files", request=request
        )
        streams = await self.agent.agent_attach(pod=self.pod, container_id=name, token="files")
        told = dict.fromkeys(StreamName, b"")
        async with time_limit():
            async for stream, chunk in streams.chunks():
                told[stream] += chunk
            status = await self.agent.agent_wait(pod=self.pod, container_id=name, token="files")
        await streams.close()
        return status.code, told[StreamName.STDOUT], told[StreamName.STDERR]

    async def names(self) -> list[str]:
        """Returns the names of the guest's containers."""
        return sorted(one.id for one in await self.agent.agent_list_containers(pod=self.pod))

    async def streams(self, name: str) -> ProcessStreams:
        """Returns the streams of a container's first process."""
        return await self.agent.agent_attach(pod=self.pod, container_id=name, token=name)
