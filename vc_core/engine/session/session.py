"""The context of a call on a pod while it holds the pod's lock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Concatenate, ParamSpec

from msgspec import Struct

from vc_core.defaults import Deadlines
from vc_core.driver_kit.host_process import HostProcess
from vc_core.engine.clones.templates import FILES, NOTHING, ROOTS
from vc_core.engine.state.records import PodConfig, PodState, Store
from vc_core.engine.state.states import ALIVE
from vc_core.engine.wiring.connection import Connection
from vc_core.spec.device import DeviceSpec
from vc_core.spec.errors import NotFound
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Capability, PodRef

P = ParamSpec("P")


class Session(Struct):
    """A pod whose lock is held: its records, its machine and the connection to its agent.

    Attributes:
        pod: its id and its run folder.
        config: the configuration it was created with.
        state: the state that was last stored.
        store: its records.
        connection: its wired plugins, and the connection to its agent.
        capabilities: the combined capabilities of its hypervisor and its agent.
        deadlines: deadlines of operations.
    """

    pod: PodRef
    config: PodConfig
    state: PodState
    store: Store
    connection: Connection
    capabilities: frozenset[Capability]
    deadlines: Deadlines

    @property
    def hooks(self) -> Hooks:
        """The pod's operations."""
        return self.connection.hooks

    @property
    def devices(self) -> list[tuple[str, DeviceSpec]]:
        """The device plugins, by name."""
        return self.connection.wiring.devices

    @property
    def is_alive(self) -> bool:
        """Whether the pod has a machine, running or paused."""
        return self.state.state in ALIVE

    @property
    def files_folder(self) -> Path:
        """The folder in which root binds the sources of mounts for the guest."""
        return (self.state.home or self.pod.run_dir) / FILES

    @property
    def roots_folder(self) -> Path:
        """The folder in which root binds root file systems, each a share of its own."""
        return self.pod.run_dir / ROOTS

    @property
    def nothing_folder(self) -> Path:
        """An empty folder, the placeholder for shares that are not in use."""
        return (self.state.home or self.pod.run_dir) / NOTHING

    async def only_container(self) -> str:
        """Returns the id of the pod's only container.

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

    async def notify(
        self,
        event: Callable[Concatenate[Any, P], Awaitable[None]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        """Sends an event to every plugin, as `Wiring.notify`."""
        await self.connection.wiring.notify(event, *args, **kwargs)

    async def put_state(self, state: PodState) -> None:
        """Stores the pod's new state."""
        await self.store.put_pod_state(state)
        self.state = state

    async def put_driver_state(self) -> None:
        """Stores the driver state, with which another process takes the machine over."""
        self.connection.driver_state = await self.hooks.vm_export_state(pod=self.pod)
        await self.store.put_driver_state(self.connection.driver_state)

    async def process(self) -> HostProcess | None:
        """Returns the machine's process, if it is on this host and accessible."""
        pid = (await self.hooks.vm_status(pod=self.pod)).pid
        try:
            return HostProcess.of(pid) if pid else None
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            return None
