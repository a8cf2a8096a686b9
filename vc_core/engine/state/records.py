"""The engine's records, and the store with typed access to them. Only this module writes state."""

from __future__ import annotations

import errno
import logging
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from vc_core.defaults import SECRET_PATHS, Start
from vc_core.driver_kit.host_process import HostProcess
from vc_core.engine.state.boot_assets import Assets
from vc_core.engine.state.states import State
from vc_core.spec.errors import (
    InvalidRequest,
    NotFound,
    PodDamaged,
    StorageError,
    UnsupportedOperation,
)
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import (
    ContainerSpec,
    DriverState,
    ExitStatus,
    GuestMount,
    Health,
    HostDevice,
    NetworkRequest,
    Plugged,
    PodOptions,
    PortMapping,
    Record,
    Share,
    VmSize,
)

SCHEMA = 2
T = TypeVar("T")
log = logging.getLogger(__name__)


class PluginChoice(Struct, frozen=True):
    """A plugin with which the pod was created, and its options at that time."""

    family: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    distribution: str = ""
    version: str = ""


class PodConfig(Struct, frozen=True):
    """The configuration of a pod. Its annotations may change, and it may get a network later."""

    id: str
    plugins: tuple[PluginChoice, ...]
    vcpus: int
    memory_mib: int
    hostname: str
    created_ns: int
    annotations: dict[str, str] = field(default_factory=dict)
    options: PodOptions = field(default_factory=PodOptions)
    assets: Assets = field(default_factory=Assets)
    disable_block_device_use: bool = False
    start: Start = Start.AUTO
    image: str = ""
    secret_paths: tuple[str, ...] = SECRET_PATHS
    network: NetworkRequest | None = None


class PluggedShare(Struct, frozen=True):
    """A share in the machine and the containers that use it."""

    share: Share
    plugged: Plugged
    users: tuple[str, ...]


class HeldDevice(Struct, frozen=True):
    """A device of the host in the machine.

    Attributes:
        device: the requested device, without the properties of its node.
        owner: name of the device plugin that prepared it.
        plugged: how the guest finds it; empty while it is being plugged.
        users: ids of the containers that use it.
    """

    device: HostDevice
    owner: str
    plugged: tuple[Plugged, ...]
    users: tuple[str, ...]


class PluggedNic(Struct, frozen=True):
    """A network interface in a machine.

    Attributes:
        plugged: how the guest finds it.
        mac: its MAC address in the guest.
    """

    plugged: Plugged
    mac: str


class NetworkState(Struct, frozen=True):
    """The network of a pod that runs, or that was being connected.

    Attributes:
        ports: as they were published.
        name_servers: of the network.
        nics: the interfaces in the machine, each with the MAC address that the guest knows.
        told: what was refused and told by an event.
        is_late: whether it is being connected to a machine that runs. The guest may not have
            configured the interfaces then.
    """

    ports: tuple[PortMapping, ...] = ()
    name_servers: tuple[str, ...] = ()
    nics: tuple[PluggedNic, ...] = ()
    told: tuple[str, ...] = ()
    is_late: bool = False


class PodState(Struct, frozen=True):
    """The state of a pod.

    Attributes:
        state: its state in the table of transitions.
        reason: why it is stopped, as text for people.
        boot: identifies the boot of its machine; a connection to an earlier boot is invalid.
        shares: folders in the machine.
        devices: devices of the host in the machine.
        size: the vCPUs and memory that the guest uses; None for the configured size.
        base: size of the machine at its start, before anything was plugged; None for the
            configured size.
        is_saving: whether the pod is being saved; also set when the saving process was killed.
        home: the folder of a machine that was started for a pool, before this pod existed; None for
            the run folder.
        process: the machine's process, with which it can be ended when its plugin is missing; None
            for none, or that of another user.
        network: what there may be of it on the host; None for nothing.
    """

    state: State
    reason: str = ""
    boot: str = ""
    shares: tuple[PluggedShare, ...] = ()
    devices: tuple[HeldDevice, ...] = ()
    size: VmSize | None = None
    base: VmSize | None = None
    home: Path | None = None
    is_saving: bool = False
    process: HostProcess | None = None
    network: NetworkState | None = None


class BlockRootfs(Struct, frozen=True):
    """A root file system that the guest has mounted from a drive.

    Attributes:
        device: the device or image on the host.
        fstype: the file system type, as the guest's kernel names it.
        address: the address by which the guest found it.
    """

    device: Path
    fstype: str
    address: str


class ContainerState(Struct, frozen=True):
    """The state of a container.

    Attributes:
        state: its own state; a running container of a paused pod is shown as paused.
        token: identifies its first process.
        is_in_guest: whether the agent has it.
        exit: how its first process ended, if it did and that was observed.
        mounts: the mounts that were made accessible to the guest for it.
        block: its root file system, when that is a drive.
        owes_poststop: whether its start hooks have run and its poststop hooks have not.
        restarts: last known number of restarts by the guest.
        health: last known result of its health checks.
        started_ns: time of its last start, in nanoseconds since the epoch; 0 when it was
            never started.
    """

    state: State
    token: str
    is_in_guest: bool = False
    exit: ExitStatus | None = None
    mounts: tuple[GuestMount, ...] = ()
    block: BlockRootfs | None = None
    owes_poststop: bool = False
    restarts: int = 0
    health: Health = Health.NONE
    started_ns: int = 0

    def gone(self, state: State, status: ExitStatus | None = None) -> ContainerState:
        """Returns the state of the same container outside a guest."""
        nothing = replace(self, is_in_guest=False, mounts=(), block=None, health=Health.NONE)
        return replace(nothing, state=state, exit=status or self.exit)

    def after_machine(self) -> ContainerState:
        """Returns the state of the same container after the end of its machine."""
        if self.state is State.READY and not self.is_in_guest:
            return self
        return self.gone(State.STOPPED)


def shown_state(pod: PodState, container: ContainerState) -> State:
    """Returns a container's state as shown: a paused pod's running containers are paused."""
    if pod.state is State.PAUSED and container.state is State.RUNNING:
        return State.PAUSED
    return container.state


class Store:
    """Typed records of one pod, on top of the storage operations."""

    def __init__(self, hooks: Hooks, pod_id: str, is_ending: bool = False) -> None:
        """Creates a `Store`.

        Args:
            hooks: operations of the store.
            pod_id: id of the pod.
            is_ending: whether the pod or a container is being ended, which must not fail for lack
                of space. A state that is not written then is determined again from the machine by a
                later call.
        """
        self._hooks = hooks
        self._pod = pod_id
        self._is_ending = is_ending

    async def pod_config(self) -> PodConfig:
        """Returns the pod's config. Raises NotFound without a pod, PodDamaged if unreadable."""
        config = await self._get("", Record.POD_CONFIG, PodConfig)
        if config is None:  # a store raises NotFound itself
            raise self._damaged(await self._place("", Record.POD_CONFIG), "it is missing")
        if config.id != self._pod:
            raise self._damaged(
                await self._place("", Record.POD_CONFIG), f"it is that of the pod {config.id}"
            )
        return config

    async def put_pod_config(self, config: PodConfig) -> None:
        """Writes the pod's config."""
        await self._put("", Record.POD_CONFIG, config)

    async def pod_state(self) -> PodState:
        """Returns the pod's state; without one, the pod was created before a reboot of the host.

        Only true under the pod's lock; see `recorded_pod_state`.
        """
        gone = PodState(State.STOPPED, "the host was rebooted")
        return await self.recorded_pod_state() or gone

    async def recorded_pod_state(self) -> PodState | None:
        """Returns the pod's state; None after a reboot, and while the pod is made or deleted."""
        return await self._get("", Record.POD_STATE, PodState)

    async def put_pod_state(self, state: PodState) -> None:
        """Writes the pod's state."""
        await self._put("", Record.POD_STATE, state)

    async def driver_state(self) -> DriverState | None:
        """Returns what the hypervisor's driver saved; None when no machine was ever started."""
        return await self._get("", Record.HYPERVISOR, DriverState)

    async def put_driver_state(self, state: DriverState) -> None:
        """Writes what the hypervisor's driver saved."""
        await self._put("", Record.HYPERVISOR, state)

    async def containers(self) -> tuple[str, ...]:
        """Returns the ids of the pod's containers, sorted."""
        return await self._hooks.storage_containers(pod_id=self._pod)

    async def container_spec(self, container_id: str) -> ContainerSpec:
        """Returns a container's config. Raises NotFound when there is no such container."""
        spec = await self._get(container_id, Record.CONTAINER_CONFIG, ContainerSpec)
        if spec is None:
            known = ", ".join(await self.containers()) or "none"
            raise NotFound(f"pod {self._pod} has no container {container_id}; it has: {known}")
        return spec

    async def put_container_spec(self, spec: ContainerSpec) -> None:
        """Writes a container's config, which creates the container."""
        await self._put(spec.id, Record.CONTAINER_CONFIG, spec)

    async def container_state(self, container_id: str) -> ContainerState:
        """Returns a container's state; without one, it was created before a reboot of the host."""
        return await self._get(
            container_id, Record.CONTAINER_STATE, ContainerState
        ) or ContainerState(State.STOPPED, "")

    async def put_container_state(self, container_id: str, state: ContainerState) -> None:
        """Writes a container's state."""
        await self._put(container_id, Record.CONTAINER_STATE, state)

    async def delete(self, container_id: str = "") -> None:
        """Removes a container, or the whole pod."""
        await self._hooks.storage_delete(pod_id=self._pod, container_id=container_id)

    async def _put(self, container_id: str, record: Record, value: object) -> None:
        data = encode(value)
        try:
            decode(data, type(value), f"the {record}")
        except StorageError as error:  # an unreadable record must not be written
            raise InvalidRequest(
                f"pod {self._pod}: {error.message}; nothing was written"
            ) from error
        try:
            await self._hooks.storage_put(
                pod_id=self._pod, container_id=container_id, record=record, data=data
            )
        except StorageError as error:
            if not self._is_ending or not _lacks_space(error):
                raise
            log.warning("%s", error)

    async def _get(self, container_id: str, record: Record, kind: type[T]) -> T | None:
        try:
            text = await self._hooks.storage_get(
                pod_id=self._pod, container_id=container_id, record=record
            )
        except StorageError as error:
            raise self._damaged(await self._place(container_id, record), error.message) from error
        if text is None:
            return None
        try:
            return decode(text, kind, "it")
        except StorageError as error:
            place = await self._place(container_id, record)
            raise damaged(self._pod, error.message.replace("it", place, 1)) from error

    async def _place(self, container_id: str, record: Record) -> str:
        try:
            return await self._hooks.storage_place(
                pod_id=self._pod, container_id=container_id, record=record
            )
        except UnsupportedOperation:
            return f"the {record} of container {container_id}" if container_id else f"the {record}"

    def _damaged(self, place: str, reason: str) -> PodDamaged:
        """Returns the error for an unreadable record, whose place either part may name."""
        return damaged(self._pod, reason if place in reason else f"{place}: {reason}")

    async def driver_damaged(self, reason: str) -> PodDamaged:
        """Returns the error for a driver state that the hypervisor's driver fails to read."""
        return self._damaged(await self._place("", Record.HYPERVISOR), reason)


def damaged(pod_id: str, reason: str) -> PodDamaged:
    """Returns the error for an unreadable record, with the remedy."""
    return PodDamaged(
        f"{reason}; 'vc pod delete --force {pod_id}' ends its machine and removes it", pod=pod_id
    )


def _lacks_space(error: StorageError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
    )


def encode(value: object) -> str:
    """Returns readable JSON with the version of the schema."""
    envelope = {"schema": SCHEMA, "data": msgspec.to_builtins(value, enc_hook=str)}
    return msgspec.json.format(msgspec.json.encode(envelope), indent=2).decode() + "\n"


def decode(text: str, kind: type[T], what: str) -> T:
    """Parses a record. Raises StorageError naming `what` if it is damaged or of another schema."""
    try:
        envelope = msgspec.json.decode(text)
        schema = envelope["schema"]
        if schema != SCHEMA:
            raise StorageError(
                f"{what} has schema {schema}, this version reads {SCHEMA}; "
                "use the version that wrote it"
            )
        return msgspec.convert(envelope["data"], kind, dec_hook=_decode_path)
    except (msgspec.MsgspecError, KeyError, TypeError, UnicodeError, RecursionError) as error:
        raise StorageError(f"{what} is damaged: {error}") from error


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)
