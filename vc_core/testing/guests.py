"""An agent plugin to look at, and a guest of it to look at."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vc_core.spec import (
    AgentSpec,
    Channel,
    ContainerSpec,
    GuestContainer,
    GuestRootfs,
    Hooks,
    Plugged,
    PodRef,
    PodSetup,
    ProcessSpec,
    ProcessStreams,
    Rootfs,
    Share,
    Stdio,
    VmSpec,
)
from vc_core.testing.mocks import World
from vc_core.testing.rules import LIMIT_S, wired

SETUP = PodSetup("contract", 1_800_000_000_000_000_000, bytes(range(32)), "0123456789abcdef0123456789abcdef")


def process(args: tuple[str, ...]) -> ProcessSpec:
    """One that finds the programs of AgentSubject.rootfs."""
    return ProcessSpec(args, ("PATH=/bin",))


@dataclass
class AgentSubject:
    """An agent plugin to look at.

    Attributes:
        make: a fresh object, as another process would have one.
        hypervisor: a fresh object of the plugin whose machines boot the agent's guests.
        rootfs: a folder with the programs sh, sleep and cat in its /bin.
        folder: empty and private, for the files of machines.
    """

    make: Callable[[], object]
    hypervisor: Callable[[], object]
    rootfs: Path
    folder: Path
    world: World = field(default_factory=lambda: World(Path("/nowhere")))

    def __post_init__(self) -> None:
        self.pod = PodRef("contract", self.folder / "run")
        self.pod.run_dir.mkdir(mode=0o700)

    def agent(self) -> AgentSpec:
        """Its operations, by a fresh object without a connection."""
        return self._hooks()

    @asynccontextmanager
    async def guest(self) -> AsyncIterator[InGuest]:
        """One that has booted and is set up, for the length of a block."""
        hooks = self._hooks()
        booted = await hooks.agent_guest(pod=self.pod)
        await hooks.vm_create(pod=self.pod, spec=VmSpec(booted, 1, 256, (Share("root", self.rootfs),)))
        try:
            await hooks.vm_start(pod=self.pod)
            channel = await hooks.vm_open_channel(pod=self.pod, name="vc.agent.1")
            await hooks.agent_connect(pod=self.pod, channel=channel)
            await hooks.agent_set_up_pod(pod=self.pod, setup=SETUP)
            (root,) = await hooks.vm_shares(pod=self.pod)
            yield InGuest(self, hooks, channel, root)
        finally:
            await hooks.agent_disconnect(pod=self.pod)
            await hooks.vm_destroy(pod=self.pod)

    def _hooks(self) -> Hooks:
        return wired(self.world, agent=self.make(), hypervisor=self.hypervisor()).hooks


@dataclass
class InGuest:
    """A guest with an agent that is connected."""

    subject: AgentSubject
    agent: Hooks
    channel: Channel
    root: Plugged

    @property
    def pod(self) -> PodRef:
        """Whose it is."""
        return self.subject.pod

    async def create(self, name: str, args: tuple[str, ...], stdio: Stdio = Stdio.NULL) -> None:
        """Makes a container that waits for its start; its first process's token is its name."""
        spec = ContainerSpec(name, Rootfs(self.subject.rootfs), process(args), stdio=stdio)
        await self.agent.agent_create_container(
            pod=self.pod, container=GuestContainer(spec, name, GuestRootfs(self.root))
        )

    async def run(self, name: str, args: tuple[str, ...], stdio: Stdio = Stdio.NULL) -> None:
        """And starts it."""
        await self.create(name, args, stdio)
        await self.agent.agent_start_container(pod=self.pod, container_id=name)

    async def ends(self, name: str) -> int:
        """The exit code of its first process."""
        async with asyncio.timeout(LIMIT_S):
            return (await self.agent.agent_wait(pod=self.pod, container_id=name, token=name)).code

    async def names(self) -> list[str]:
        """The guest's containers."""
        return sorted(one.id for one in await self.agent.agent_list_containers(pod=self.pod))

    async def streams(self, name: str) -> ProcessStreams:
        """Of the first process of a container."""
        return await self.agent.agent_attach(pod=self.pod, container_id=name, token=name)
