"""A hypervisor plugin under test, and a machine of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.options import instantiate
from vc_core.first_party import DEFAULTS
from vc_core.spec import (
    Capability,
    Checkpoint,
    Drive,
    Guest,
    HypervisorSpec,
    Pluggable,
    PodRef,
    Share,
    VmPhase,
    VmSpec,
)
from vc_core.testing.mocks import World
from vc_core.testing.rules import wired

GONE = (VmPhase.ENDED, VmPhase.ABSENT)
_MIB = 1 << 20


@dataclass
class HypervisorSubject:
    """A hypervisor plugin under test.

    Attributes:
        make: creates an object, as another process would.
        guest: the guest image of its machines; `installed_guest` returns that of the installed
            agent plugin.
        folder: an empty, private folder for the files of machines.
        memory_mib: memory of a machine, in MiB.
    """

    make: Callable[[], object]
    guest: Guest
    folder: Path
    memory_mib: int = 256
    world: World = field(default_factory=lambda: World(Path("/nowhere")))

    def __post_init__(self) -> None:
        self.pod = PodRef(id="contract", run_dir=self.folder / "run")
        self.pod.run_dir.mkdir(mode=0o700)

    def driver(self) -> HypervisorSpec:
        """Returns its operations, by a new object."""
        return wired(self.world, hypervisor=self.make()).hooks

    def spec(self, *shares: str) -> VmSpec:
        """Returns a machine with folders."""
        for tag in shares:
            (self.folder / tag).mkdir(exist_ok=True)
        found = tuple(Share(tag=tag, path=self.folder / tag) for tag in shares)
        return VmSpec(guest=self.guest, vcpus=1, memory_mib=self.memory_mib, shares=found)

    @asynccontextmanager
    async def machine(self, *shares: str) -> AsyncIterator[HypervisorSpec]:
        """Provides a running machine for the length of a block."""
        driver = self.driver()
        await driver.vm_create(pod=self.pod, spec=self.spec(*shares))
        try:
            await driver.vm_start(pod=self.pod)
            yield driver
        finally:
            await driver.vm_destroy(pod=self.pod)

    async def phase(self, driver: HypervisorSpec) -> VmPhase:
        """Returns the phase of its machine."""
        return (await driver.vm_status(pod=self.pod)).phase

    async def needs(self, *either: Capability) -> frozenset[Capability]:
        """Skips the test without any of these capabilities; returns the declared ones."""
        able = await self.driver().vm_capabilities(pod=self.pod)
        if not able & set(either):
            pytest.skip(f"it does not declare {' or '.join(either)}")
        return able

    async def pluggable(self) -> Pluggable:
        """Returns a device of a kind that it can plug."""
        able = await self.needs(Capability.DRIVE_PLUG, Capability.SHARE_PLUG)
        if Capability.DRIVE_PLUG in able:
            image = self.folder / "image"
            with image.open("wb") as file:
                file.truncate(_MIB)
            return Drive(id="d-1", path=image, read_only=True)
        (self.folder / "plugged").mkdir(exist_ok=True)
        return Share(tag="s-1", path=self.folder / "plugged")

    async def other(self, driver: HypervisorSpec) -> HypervisorSpec:
        """Returns another object that has taken over the machine."""
        other = self.driver()
        await other.vm_adopt(pod=self.pod, state=await driver.vm_export_state(pod=self.pod))
        return other

    async def guest_is_up(self, driver: HypervisorSpec) -> None:
        """Returns when the guest reacts to plugged devices."""
        channel = await driver.vm_open_channel(pod=self.pod, name="vc.agent.up")
        await driver.vm_close_channel(pod=self.pod, channel=channel)

    def checkpoint(self) -> Checkpoint:
        """Returns a new checkpoint."""
        folder = self.folder / "checkpoint"
        folder.mkdir(mode=0o700)
        return Checkpoint(folder=folder, memory=folder / "memory")


def installed_guest(name: str = DEFAULTS["agent"]) -> Guest:
    """Returns the current guest image of an installed agent plugin.

    Raises:
        PluginNotFound: it is not installed.
        AgentError: no guest image has been built, naming the command.
    """
    wiring = wired(World(Path("/nowhere")), agent=instantiate(Catalog().find("agent", name), {}))
    return asyncio.run(
        wiring.hooks.agent_guest(pod=PodRef(id="contract", run_dir=Path("/nowhere")))
    )
