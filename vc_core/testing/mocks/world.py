"""The state of the mock plugins: one world per test, shared by the plugins of every pod."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vc_core.driver_kit import mountinfo
from vc_core.spec import (
    Capability,
    ExitStatus,
    GuestContainer,
    NamedNetwork,
    NetworkDenial,
    PodSetup,
    PortMapping,
    Resources,
    Share,
    VmPhase,
    VmSize,
)
from vc_core.testing.faults import Faults
from vc_core.testing.recording import Recording


@dataclass
class MockProcess:
    """A process in a mock guest; a test ends it."""

    args: tuple[str, ...]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: ExitStatus | None = None
    client: object = None  # the client that has its streams
    on_end: list[Callable[[], None]] = field(default_factory=list)

    def end(self, code: int, signal: int = 0) -> None:
        if self.status is None:
            self.status = ExitStatus(code=code, signal=signal)
            self.ended.set()
            for call in self.on_end:
                call()


@dataclass
class MockContainer:
    """A container in a mock guest."""

    made: GuestContainer
    processes: dict[str, MockProcess]
    is_started: bool = False
    resources: Resources | None = None


@dataclass
class MockMachine:
    """A mock machine."""

    phase: VmPhase = VmPhase.RUNNING
    reason: str = ""
    pid: int = 0  # a mock machine has no process
    fixed: tuple[str, ...] = ()  # the tags of the shares that it started with
    shares: dict[str, Share] = field(default_factory=dict)
    devices: dict[str, object] = field(default_factory=dict)
    size: VmSize = field(default_factory=lambda: VmSize(vcpus=1, memory_mib=256))
    channels: set[str] = field(default_factory=set)
    containers: dict[str, MockContainer] = field(default_factory=dict)
    is_set_up: bool = False
    is_clone: bool = False
    is_ready_template: bool = False
    is_let_go: bool = False  # whether its guest uses no folder of the host
    is_hung: bool = False  # whether its guest does not answer
    run_dir: Path | None = None  # the folder of the machine's files
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    descriptors: dict[str, int] = field(default_factory=dict)  # copies, by device

    def copy(self) -> MockMachine:
        """Returns a machine that starts from the saved one."""
        made = MockMachine(
            shares=dict(self.shares), devices=dict(self.devices), size=self.size, is_clone=True
        )
        made.is_set_up, made.is_let_go = self.is_set_up, self.is_let_go
        for name, found in self.containers.items():
            processes = {
                token: MockProcess(one.args, status=one.status)
                for token, one in found.processes.items()
            }
            made.containers[name] = MockContainer(
                found.made, processes, found.is_started, found.resources
            )
        return made

    def end(self, reason: str) -> None:
        self.phase = VmPhase.ENDED
        self.reason = self.reason or reason
        self.channels.clear()
        while self.descriptors:
            os.close(self.descriptors.popitem()[1])
        self.ended.set()

    def keep(self, device: str, descriptor: int) -> None:
        """Keeps a copy of the descriptor of a device until the end."""
        if device in self.descriptors:
            os.close(self.descriptors.pop(device))
        self.descriptors[device] = os.dup(descriptor)


class MockLock:
    """A lock with shared readers and an exclusive writer, for one event loop."""

    def __init__(self) -> None:
        self.readers = 0
        self.is_written = False
        self.changed = asyncio.Condition()

    def is_free(self, exclusive: bool) -> bool:
        return not self.is_written and not (exclusive and self.readers)


@dataclass
class MockConnection:
    """A pod's network that is an entry of a table."""

    ports: tuple[PortMapping, ...]
    is_alive: bool = True
    denials: tuple[NetworkDenial, ...] = ()
    network: str = ""


@dataclass
class World:
    """The state of all mock plugins, and the faults that a test requests."""

    run_root: Path
    machines: dict[str, MockMachine] = field(default_factory=dict)
    records: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    locks: dict[str, MockLock] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    recording: Recording = field(default_factory=Recording)
    connections: int = 0
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    is_waited_for: asyncio.Event = field(
        default_factory=asyncio.Event
    )  # a call waits for a guest that hangs
    capabilities: frozenset[Capability] = frozenset()
    networks: dict[str, MockConnection] = field(default_factory=dict)
    named_networks: dict[str, NamedNetwork] = field(default_factory=dict)
    prepared: set[Path] = field(default_factory=set)
    set_ups: list[PodSetup] = field(default_factory=list)
    saved: dict[Path, MockMachine] = field(default_factory=dict)
    max_vcpus: int = 4
    stood_still_s: float | None = None  # what vm_checkpoint returns
    is_booting_for_ever: bool = False
    dies_when_cloned: bool = False
    guest_id: str = "mock"
    litter: list[str] = field(default_factory=list)  # foreign entries of the store

    def reboot(self) -> None:
        """Simulates a power failure of the host: clears /run and all processes."""
        self.machines.clear()
        self.networks.clear()
        self.locks.clear()
        for records in self.records.values():
            for key in [key for key in records if not key[1].endswith("-config")]:
                del records[key]

    def residue(self) -> list[str]:
        """Returns everything that belongs to a live pod."""
        alive = [
            name
            for name, machine in self.machines.items()
            if machine.phase in (VmPhase.RUNNING, VmPhase.PAUSED)
        ]
        return [
            *(f"machine {name}" for name in alive),
            *(f"network of {name}" for name in self.networks),
            *(f"device {path}" for path in self.prepared),
            *(f"mount {one.point}" for one in mountinfo.below(self.run_root)),
            *([f"{self.connections} connections"] if self.connections else []),
        ]
