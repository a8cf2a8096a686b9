"""What mock plugins act on: one world per test, seen by every board of every pod, as the host is by real plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vc_core.engine import mountinfo
from vc_core.spec import (
    ALL_SPECS,
    FAMILIES,
    ExitStatus,
    GuestContainer,
    PodSetup,
    Resources,
    Share,
    VmPhase,
    VmSize,
    around,
)


@dataclass
class MockProcess:
    """A process in a mock guest: ends when it is told to."""

    args: tuple[str, ...]
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    status: ExitStatus | None = None

    def end(self, code: int, signal: int = 0) -> None:
        if self.status is None:
            self.status = ExitStatus(code, signal)
            self.ended.set()


@dataclass
class MockContainer:
    made: GuestContainer
    processes: dict[str, MockProcess]
    is_started: bool = False
    resources: Resources | None = None


@dataclass
class MockMachine:
    phase: VmPhase = VmPhase.RUNNING
    reason: str = ""
    pid: int = 1000
    shares: dict[str, Share] = field(default_factory=dict)
    devices: dict[str, object] = field(default_factory=dict)
    size: VmSize = field(default_factory=lambda: VmSize(1, 256))
    channels: set[str] = field(default_factory=set)
    containers: dict[str, MockContainer] = field(default_factory=dict)
    is_set_up: bool = False
    is_clone: bool = False
    is_ready_template: bool = False
    is_let_go: bool = False  # whether its guest uses no folder of the host
    is_hung: bool = False  # whether its guest answers nobody
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def copy(self) -> MockMachine:
        """What goes on from it when it was saved."""
        made = MockMachine(shares=dict(self.shares), devices=dict(self.devices), size=self.size, is_clone=True)
        made.is_set_up, made.is_let_go = self.is_set_up, self.is_let_go
        for name, found in self.containers.items():
            processes = {token: MockProcess(one.args, status=one.status) for token, one in found.processes.items()}
            made.containers[name] = MockContainer(found.made, processes, found.is_started, found.resources)
        return made

    def end(self, reason: str) -> None:
        self.phase = VmPhase.ENDED
        self.reason = self.reason or reason
        self.channels.clear()
        self.ended.set()


@dataclass
class World:
    """All that mock plugins know, and the faults that a test asks for."""

    run_root: Path
    machines: dict[str, MockMachine] = field(default_factory=dict)
    records: dict[str, dict[tuple[str, str], str]] = field(default_factory=dict)
    locks: dict[str, object] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    connections: int = 0
    connected: asyncio.Event = field(default_factory=asyncio.Event)
    capabilities: frozenset[str] = frozenset()
    prepared: set[Path] = field(default_factory=set)
    set_ups: list[PodSetup] = field(default_factory=list)
    saved: dict[Path, MockMachine] = field(default_factory=dict)
    max_vcpus: int = 4
    fault_at: int = -1
    fault_after: bool = False
    is_booting_for_ever: bool = False
    dies_when_cloned: bool = False
    guest_id: str = "mock"
    is_deadly: bool = False  # whether every operation after the fault fails, too

    def reboot(self) -> None:
        """The host lost power: what lives in /run and all processes are gone."""
        self.machines.clear()
        self.locks.clear()
        for records in self.records.values():
            for key in [key for key in records if not key[1].endswith("-config")]:
                del records[key]

    def residue(self) -> list[str]:
        """What is there that belongs to a live pod."""
        alive = [name for name, machine in self.machines.items() if machine.phase in (VmPhase.RUNNING, VmPhase.PAUSED)]
        return [
            *(f"machine {name}" for name in alive),
            *(f"device {path}" for path in self.prepared),
            *(f"mount {one.point}" for one in mountinfo.below(self.run_root)),
            *([f"{self.connections} connections"] if self.connections else []),
        ]


class InjectedFault(Exception):
    """What a test asked for."""


def fault_observer(world: World) -> type:
    """An observer that notes every operation and fails the one that the world says."""

    def surround(name: str) -> Callable[..., object]:
        @asynccontextmanager
        async def step(self):
            number = len(world.calls)
            world.calls.append(name)
            is_dead = world.is_deadly and number > world.fault_at >= 0
            if is_dead or (number == world.fault_at and not world.fault_after):
                raise InjectedFault(f"before {name}")
            yield
            # Whoever fails after a lock was handed out has taken it along; no caller can give that back.
            if number == world.fault_at and world.fault_after and name != "storage_lock":
                raise InjectedFault(f"after {name}")

        step.__name__ = name
        return around(step)

    names = [name for spec in FAMILIES.values() for name in vars(spec) if not name.startswith("_")]
    return type("Faults", (), {name: surround(name) for name in names})


def listening_observer(world: World) -> type:
    """An observer that notes every event."""
    from vc_core.spec import hookimpl

    def listen(name: str) -> Callable[..., object]:
        async def note(self, pod):
            world.events.append(f"{name} {pod.id}")

        note.__name__ = name
        return hookimpl(note)

    names = [name for name in vars(ALL_SPECS[-1]) if not name.startswith("_")]
    return type("Listener", (), {name: listen(name) for name in names})
