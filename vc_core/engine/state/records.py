"""What the engine remembers, and the store as typed records. The only module that writes state."""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec

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
    Plugged,
    PodOptions,
    Record,
    Share,
    VmSize,
)

SCHEMA = 2
T = TypeVar("T")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PluginChoice:
    """A plugin that the pod was made with, and its options as they were then."""

    family: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    distribution: str = ""
    version: str = ""


@dataclass(frozen=True)
class PodConfig:
    """What a pod is. Nothing of it changes but its annotations."""

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


@dataclass(frozen=True)
class PluggedShare:
    """A share in the machine and the containers that use it."""

    share: Share
    plugged: Plugged
    users: tuple[str, ...]


@dataclass(frozen=True)
class HeldDevice:
    """A device of the host that the machine has.

    Attributes:
        device: as it was asked for, without what only concerns its node.
        owner: the name of the device plugin that readied it.
        plugged: what it is to the guest; empty while it is being plugged.
        users: containers.
    """

    device: HostDevice
    owner: str
    plugged: tuple[Plugged, ...]
    users: tuple[str, ...]


@dataclass(frozen=True)
class PodState:
    """Where a pod is.

    Attributes:
        state: in the table of states.
        reason: why it is stopped, for people.
        boot: another one each time that its machine boots: who has a connection to an older one has
            none.
        shares: folders in the machine.
        devices: of the host in the machine.
        size: what the guest uses of the machine; None while that is what was configured.
        base: what the machine was started with, before anything was plugged; None for what was
            configured.
        is_saving: whether somebody saves it, or was killed meanwhile.
        home: the folder of a machine that was made for a pool, before there was this pod; None for
            the run folder.
        process: that of the machine, with which it can be ended when its plugin is gone; None for
            none, or another user's.
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


@dataclass(frozen=True)
class BlockRootfs:
    """A root file system that the guest has mounted from a drive.

    Attributes:
        device: on the host.
        fstype: as the guest's kernel names it.
        address: by which the guest found it.
    """

    device: Path
    fstype: str
    address: str


@dataclass(frozen=True)
class ContainerState:
    """Where a container is.

    Attributes:
        state: its own; a running container of a paused pod is shown as paused.
        token: of its first process.
        is_in_guest: whether the agent has it.
        exit: how its first process ended, if it did and somebody saw.
        mounts: what was made reachable for it.
        block: its root file system, when that is a drive.
        owes_poststop: whether its hooks were told that it starts, and not yet that it is gone.
        restarts: how often the guest has started it again, as far as somebody saw.
        health: what its checks have found, likewise.
        started_ns: when it was last started, since the epoch; 0 when it never was.
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
        """The same container, no longer in a guest."""
        nothing = replace(self, is_in_guest=False, mounts=(), block=None, health=Health.NONE)
        return replace(nothing, state=state, exit=status or self.exit)


def shown_state(pod: PodState, container: ContainerState) -> State:
    """A container's state as people see it: a paused pod's running containers are paused."""
    if pod.state is State.PAUSED and container.state is State.RUNNING:
        return State.PAUSED
    return container.state


class Store:
    """Typed records of one pod on top of the storage operations."""

    def __init__(self, hooks: Hooks, pod_id: str, is_ending: bool = False) -> None:
        """Create a `Store`.

        Args:
            hooks: of the store.
            pod_id: whose records.
            is_ending: whether the pod or a container is being ended: that must not fail for want of
            space. What is not written then is found out again by whoever looks at the machine.
        """
        self._hooks = hooks
        self._pod = pod_id
        self._is_ending = is_ending

    async def pod_config(self) -> PodConfig:
        """Raises NotFound when there is no such pod, PodDamaged when it cannot be read."""
        config = await self._get("", Record.POD_CONFIG, PodConfig)
        if config is None:  # a store that knows no such pod says so itself
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
        """A pod whose state is gone was there before the host's reboot."""
        gone = PodState(State.STOPPED, "the host was rebooted")
        return await self._get("", Record.POD_STATE, PodState) or gone

    async def put_pod_state(self, state: PodState) -> None:
        """Writes the pod's state."""
        await self._put("", Record.POD_STATE, state)

    async def driver_state(self) -> DriverState | None:
        """What the hypervisor's driver saved; None when no machine was ever made."""
        return await self._get("", Record.HYPERVISOR, DriverState)

    async def put_driver_state(self, state: DriverState) -> None:
        """Writes what the hypervisor's driver saved."""
        await self._put("", Record.HYPERVISOR, state)

    async def containers(self) -> tuple[str, ...]:
        """Ids of the pod's containers, sorted."""
        return await self._hooks.storage_containers(pod_id=self._pod)

    async def container_spec(self, container_id: str) -> ContainerSpec:
        """Raises NotFound when there is no such container."""
        spec = await self._get(container_id, Record.CONTAINER_CONFIG, ContainerSpec)
        if spec is None:
            known = ", ".join(await self.containers()) or "none"
            raise NotFound(f"pod {self._pod} has no container {container_id}; it has: {known}")
        return spec

    async def put_container_spec(self, spec: ContainerSpec) -> None:
        """Writes a container's config; from then on it exists."""
        await self._put(spec.id, Record.CONTAINER_CONFIG, spec)

    async def container_state(self, container_id: str) -> ContainerState:
        """A container whose state is gone was there before the host's reboot."""
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
        except StorageError as error:  # nothing may be written that cannot be read
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
        """Each of both may name the place."""
        return damaged(self._pod, reason if place in reason else f"{place}: {reason}")

    async def driver_damaged(self, reason: str) -> PodDamaged:
        """When the hypervisor's driver cannot read what it saved."""
        return self._damaged(await self._place("", Record.HYPERVISOR), reason)


def damaged(pod_id: str, reason: str) -> PodDamaged:
    """With the remedy."""
    return PodDamaged(
        f"{reason}; 'vc pod delete --force {pod_id}' ends its machine and removes it", pod=pod_id
    )


def _lacks_space(error: StorageError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
    )


def encode(value: object) -> str:
    """Readable JSON with the schema's version."""
    envelope = {"schema": SCHEMA, "data": msgspec.to_builtins(value, enc_hook=str)}
    return msgspec.json.format(msgspec.json.encode(envelope), indent=2).decode() + "\n"


def decode(text: str, kind: type[T], what: str) -> T:
    """Raises StorageError naming `what` when the text is damaged or of another schema."""
    try:
        envelope = msgspec.json.decode(text)
        schema = envelope["schema"]
        if schema != SCHEMA:
            raise StorageError(
                f"{what} has schema {schema}, this version reads {SCHEMA}; "
                "use the version that wrote it"
            )
        return msgspec.convert(envelope["data"], kind, dec_hook=_decode_path)
    except (msgspec.MsgspecError, KeyError, TypeError) as error:
        raise StorageError(f"{what} is damaged: {error}") from error


def _decode_path(kind: type, value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(kind)
