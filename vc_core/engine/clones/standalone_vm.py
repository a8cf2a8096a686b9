"""Machines that belong to no pod: one that becomes a template, and waiting ones of a pool.

With the record beside each, any process can end a machine whose maker was killed.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from msgspec import Struct, structs

from vc_core.defaults import Deadlines
from vc_core.driver_kit.ownership import write_private_file
from vc_core.engine.clones import lost_machines
from vc_core.engine.state.records import PluggedNic, PluginChoice, decode, encode
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.wiring import assemble, vm_calls
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.connection import Connection
from vc_core.engine.wiring.vm_calls import start_vm
from vc_core.spec.errors import (
    ConfigError,
    PluginContractError,
    PluginError,
    StorageError,
)
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import (
    TEMPLATE_MAC,
    DriverState,
    GuestNetwork,
    Nic,
    PodRef,
    PodSetup,
    VmSpec,
)

log = logging.getLogger(__name__)

_RECORD = "machine-record.json"


class TemplateNic(Struct, frozen=True):
    """The interface that a template is made with.

    Attributes:
        tap: its MAC address is TEMPLATE_MAC if all clones have the same addresses.
        guest: returns its configuration. Called only when the template is made.
    """

    tap: Nic
    guest: Callable[[], Awaitable[GuestNetwork]]

    @property
    def is_alike(self) -> bool:
        """Whether all clones have the same addresses."""
        return self.tap.mac == TEMPLATE_MAC


class StandaloneVm:
    """A machine with its files in a folder of its own and its own plugin objects."""

    def __init__(
        self, catalog: Catalog, deadlines: Deadlines, plugins: Sequence[PluginChoice], pod: PodRef
    ) -> None:
        self._connection = Connection(assemble.wire(catalog, plugins, deadlines), pod, deadlines)
        self.pod = pod
        self._plugins = tuple(plugins)
        self._deadlines = deadlines

    @property
    def hooks(self) -> Hooks:
        """The machine's operations."""
        return self._connection.hooks

    async def start(self, spec: VmSpec) -> None:
        """Starts the machine. The record for `end_left` remains if this process is killed."""
        await start_vm(self.hooks, self.pod, spec, self.put_driver_state)

    async def put_driver_state(self) -> DriverState:
        """Stores what is necessary to find the machine again."""
        state = await self.hooks.vm_export_state(pod=self.pod)
        write_private_file(self.pod.run_dir / _RECORD, encode((state, self._plugins)))
        return state

    async def plug(self, interface: TemplateNic) -> PluggedNic:
        """Plugs a network interface with the MAC address TEMPLATE_MAC; the agent is connected.

        Returns when the guest has loaded the driver. If the pod's own MAC address is TEMPLATE_MAC,
        all clones have the same addresses, and the guest has configured them. Otherwise the
        interface is down and has no address: a clone may share its link with other machines, and
        must not answer for the address of another pod.
        """
        nic = structs.replace(interface.tap, mac=TEMPLATE_MAC)
        guest = await interface.guest()
        if not interface.is_alike:
            guest = GuestNetwork(mac=TEMPLATE_MAC, mtu=guest.mtu, addresses=())
        plugged = await self.hooks.vm_plug(pod=self.pod, device=nic)
        await self.put_driver_state()
        # The identity is the clone's, and comes with the clone.
        setup = PodSetup(
            hostname="",
            time_ns=0,
            seed=b"",
            machine_id="",
            networks=(guest,),
        )
        await self.hooks.agent_set_up_pod(pod=self.pod, setup=setup)
        return PluggedNic(plugged, nic.mac)

    def forget(self) -> None:
        """Removes the record: a pod is responsible for the machine now, or the machine is gone."""
        (self.pod.run_dir / _RECORD).unlink()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """Connects to the agent for the length of a block; waits for the boot."""
        async with Rollback() as rollback:
            rollback.push(self.hooks.agent_disconnect, pod=self.pod)
            await self._connection.open(self._deadlines.boot)
            yield
            await self._connection.close()

    async def is_alive(self) -> bool:
        """Returns whether it runs or is paused."""
        return (await self.hooks.vm_status(pod=self.pod)).phase in vm_calls.ALIVE

    async def end(self) -> None:
        """Ends the machine and removes the driver's files. May be called twice."""
        await self.hooks.vm_stop(pod=self.pod, grace_s=0)
        await self.hooks.vm_destroy(pod=self.pod)


def shaped_by(interface: TemplateNic | None) -> list[str]:
    """Returns what distinguishes a template made with this interface, as parts of its key."""
    if interface is None:
        return []
    return ["configured nic" if interface.is_alike else "silent nic"]


async def end_left(catalog: Catalog, deadlines: Deadlines, pod: PodRef) -> None:
    """Ends the machine that a killed process left in a folder, if there is one.

    When its record is unreadable, or its plugin is gone, every available hypervisor plugin looks
    for it.
    """
    try:
        left = await in_folder(catalog, deadlines, pod)
    except (StorageError, ConfigError, PluginError, PluginContractError) as error:
        log.warning("%s", error)
        for problem in await lost_machines.end(catalog, pod):
            log.warning("%s", problem)
        return
    if left is not None:
        await left.end()


async def in_folder(catalog: Catalog, deadlines: Deadlines, pod: PodRef) -> StandaloneVm | None:
    """Returns the machine whose record is in a pod's folder, None if there is no record.

    Raises:
        StorageError, ConfigError, PluginError, PluginContractError: the record is unreadable, or
            its plugin cannot be used.
    """
    record = pod.run_dir / _RECORD
    if not record.exists():
        return None
    try:
        text = record.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{record} cannot be read: {error}") from error
    state, plugins = decode(text, tuple[DriverState, tuple[PluginChoice, ...]], str(record))
    left = StandaloneVm(catalog, deadlines, plugins, pod)
    await left.hooks.vm_adopt(pod=pod, state=state)
    return left
