"""One call's view of a pod: its lock, its records, its board, brought in line with the truth."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from dataclasses import dataclass, field
from pathlib import Path

from vc_core.defaults import Deadlines
from vc_core.driver_kit.host_process import HostProcess
from vc_core.engine.clones.pool import Pool
from vc_core.engine.clones.templates import FILES, NOTHING, ROOTS, Templates
from vc_core.engine.host import oci_hooks
from vc_core.engine.host.container_disks import Data
from vc_core.engine.session.exit_reason import true_state
from vc_core.engine.session.teardown import end_machine
from vc_core.engine.state.event_journal import Journal
from vc_core.engine.state.ids import fresh
from vc_core.engine.state.records import (
    ContainerState,
    PluginChoice,
    PodConfig,
    PodState,
    Store,
)
from vc_core.engine.state.states import State
from vc_core.engine.wiring import assemble
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.wiring import Wiring
from vc_core.images import Images
from vc_core.spec.device import DeviceSpec
from vc_core.spec.errors import (
    NotFound,
    OperationError,
    OperationTimeout,
)
from vc_core.spec.events import EventSpec
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Capability, Channel, ContainerSpec, DriverState, PodRef, VmPhase

log = logging.getLogger(__name__)


@dataclass
class Board:
    """A wired board of one machine, with at most one connection to its agent."""

    wiring: Wiring
    machine: DriverState | None
    boot: str
    channel: Channel | None = None
    connecting: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(frozen=True)
class Shared:
    """What all pods of a runtime have in common."""

    catalog: Catalog
    chosen: tuple[PluginChoice, ...]
    templates: Templates
    pool: Pool
    images: Images
    data: Data
    journal: Journal
    deadlines: Deadlines
    stores: tuple[Path, ...] = ()  # folders of ours, of which no guest sees anything


@dataclass
class Session:
    """What a call on a pod works with, while it holds the pod's lock."""

    pod: PodRef
    config: PodConfig
    state: PodState
    store: Store
    board: Board
    capabilities: frozenset[Capability]
    shared: Shared

    @property
    def hooks(self) -> Hooks:
        """The pod's operations."""
        return self.board.wiring.hooks

    @property
    def deadlines(self) -> Deadlines:
        """Limits of operations."""
        return self.shared.deadlines

    @property
    def devices(self) -> list[tuple[str, DeviceSpec]]:
        """The device plugins, by name."""
        return self.board.wiring.devices

    @property
    def is_alive(self) -> bool:
        """Whether the pod has a machine, running or paused."""
        return self.state.state in (State.RUNNING, State.PAUSED)

    @property
    def files_folder(self) -> Path:
        """Where what root mounts is bound, piece by piece, for the guest."""
        return (self.state.home or self.pod.run_dir) / FILES

    @property
    def roots_folder(self) -> Path:
        """Where root binds root file systems that are folders, each a share of its own."""
        return self.pod.run_dir / ROOTS

    @property
    def nothing_folder(self) -> Path:
        """An empty folder, for what must be there and is not needed."""
        return (self.state.home or self.pod.run_dir) / NOTHING

    async def only_container(self) -> str:
        """The id of the one container that the pod has.

        Raises NotFound when it has none, or more.
        """
        known = await self.store.containers()
        if not known:
            raise NotFound(
                f"pod {self.pod.id} has no container; 'vc container create {self.pod.id}' makes one"
            )
        if len(known) > 1:
            raise NotFound(
                f"pod {self.pod.id} has {len(known)} containers ({', '.join(known)}); name one"
            )
        return known[0]

    async def put_state(self, state: PodState) -> None:
        """Remembers the pod's new state."""
        await self.store.put_pod_state(state)
        self.state = state

    async def save_machine(self) -> None:
        """Remembers what another process needs to take the machine over."""
        self.board.machine = await self.hooks.vm_export_state(pod=self.pod)
        await self.store.put_driver_state(self.board.machine)

    async def process(self) -> HostProcess | None:
        """That of the machine, if it is one of this host and can be looked at."""
        pid = (await self.hooks.vm_status(pod=self.pod)).pid
        try:
            return HostProcess.of(pid) if pid else None
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None

    async def connect(self, limit_s: float | None = None, name: str = "") -> None:
        """Connects to the agent, unless that is done. The whole way, a booting guest included, has one deadline.

        Args:
            limit_s: the deadline; the default one when None.
            name: of the channel; made up when empty.
        """
        async with (
            self.board.connecting
        ):  # tasks that share the pod's lock share the connection, too
            if self.board.channel is None:
                await self._connect(limit_s, name or f"vc.agent.{fresh()}")

    async def _connect(self, limit_s: float | None, name: str) -> None:
        limit = limit_s or self.deadlines.default
        try:
            async with asyncio.timeout(limit):
                channel = await self.hooks.vm_open_channel(pod=self.pod, name=name)
        except TimeoutError as error:
            setting = "boot" if limit_s else "default"
            raise OperationTimeout(limit, "vm_open_channel", "", self.pod.id, setting) from error
        try:
            await assemble.connect(self.hooks, self.pod, channel)
        except BaseException:
            try:
                await self.hooks.vm_close_channel(pod=self.pod, channel=channel)
            except (
                OperationError
            ) as error:  # not the reason: the next one to open a channel sweeps this one
                log.info("a channel of pod %s could not be closed: %s", self.pod.id, error)
            raise
        self.board.channel = channel

    async def forget_guest(self) -> None:
        """Puts containers back that an interrupted start had made in a guest: they are as their pod is."""
        before = State.STOPPED if self.state.state is State.STOPPED else State.READY
        for container_id in await self.store.containers():
            state = await self.store.container_state(container_id)
            if state.is_in_guest or state.state is State.RUNNING:
                await self._gone(container_id, state, before)
        clean = dataclasses.replace(self.state, devices=(), shares=(), size=None, base=None)
        if clean != self.state:
            await self.put_state(clean)

    async def mark_stopped(self, reason: str) -> None:
        """Brings the store in line with a machine that is gone."""
        for container_id in await self.store.containers():
            state = await self.store.container_state(container_id)
            kept = (
                State.READY
                if state.state is State.READY and not state.is_in_guest
                else State.STOPPED
            )
            await self._gone(container_id, state, kept)
        await self.put_state(PodState(State.STOPPED, reason, home=self.state.home))

    async def poststop(self, spec: ContainerSpec, state: ContainerState) -> None:
        """Runs the hooks of a container that is gone from the guest, if it was told of its start."""
        if state.owes_poststop:
            await oci_hooks.tell(spec.hooks.poststop, spec, "stopped", 0, self.deadlines.default)

    async def _gone(self, container_id: str, state: ContainerState, now: State) -> None:
        await self.store.put_container_state(
            container_id, dataclasses.replace(state.gone(now), owes_poststop=False)
        )
        if state.owes_poststop:
            await self.poststop(await self.store.container_spec(container_id), state)


async def disconnect(current: Board, pod: PodRef) -> None:
    """Ends the connection to the agent and takes its channel away.

    The machine may be gone: that is no error.
    """
    channel = current.channel
    if channel is not None:
        await current.wiring.hooks.agent_disconnect(pod=pod)
        current.channel = None
        await current.wiring.hooks.vm_close_channel(pod=pod, channel=channel)


async def settle(session: Session) -> None:
    """Brings the store in line with the truth and ends what an interrupted call left half done."""
    state = await true_state(session)
    if state.is_saving and state.state is State.PAUSED:
        await session.hooks.vm_resume(pod=session.pod)
        state = dataclasses.replace(state, state=State.RUNNING)
    state = dataclasses.replace(state, is_saving=False)
    if session.is_alive and state.state is State.STOPPED:
        await end_machine(session, 0)
        await session.mark_stopped(state.reason)
        await session.board.wiring.notify(
            EventSpec.pod_stopped, pod=session.pod, reason=state.reason
        )
    elif not session.is_alive and session.board.machine is not None:
        await disconnect(session.board, session.pod)  # a stop that failed may have left it
        status = await session.hooks.vm_status(pod=session.pod)
        if status.phase is not VmPhase.ABSENT:
            await end_machine(session, 0)
            await session.save_machine()
        await session.forget_guest()
    elif state != session.state:
        await session.put_state(state)
