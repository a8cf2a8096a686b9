"""Values passed between the engine and plugins: frozen `msgspec.Struct`s and enums.

Those about machines and containers are in modules of their own; all are imported from here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from vc_core.spec.values.container import (
    AgentInfo,
    Confinement,
    ContainerSpec,
    ContainerStats,
    GuestContainer,
    GuestContainerStatus,
    GuestDevice,
    GuestMount,
    GuestRootfs,
    HostDevice,
    Mount,
    MountKind,
    PodOptions,
    PodSetup,
    Resources,
    Rootfs,
    RootfsMode,
)
from vc_core.spec.values.device_node import DeviceNode
from vc_core.spec.values.network import (
    TEMPLATE_MAC,
    Dns,
    GuestNetwork,
    HostEntry,
    Interface,
    NamedNetwork,
    Network,
    NetworkRequest,
    NewNetwork,
    PortMapping,
    Route,
)
from vc_core.spec.values.network_policy import (
    NOT_PUBLIC,
    DenialReason,
    NetworkDenial,
    NetworkPolicy,
    NetworkRule,
    PortProtocol,
    Reach,
)
from vc_core.spec.values.oci_hooks import OciHook, OciHooks
from vc_core.spec.values.process import (
    DEFAULT_CAPABILITIES,
    DEFAULT_PATH,
    Capabilities,
    ExitStatus,
    FilesRequest,
    FilesVerb,
    ProcessInfo,
    ProcessSpec,
    ProcessStreams,
    Rlimit,
    StandIn,
    Stdio,
    StreamName,
)
from vc_core.spec.values.restart import Health, HealthCheck, Restart, RestartPolicy
from vc_core.spec.values.vm import (
    FIRST_CHANNEL,
    Channel,
    ChannelKind,
    Checkpoint,
    Drive,
    DriveBus,
    DriverState,
    Guest,
    GuestDriver,
    GuestNode,
    HostPci,
    KernelSource,
    Nic,
    Pluggable,
    Plugged,
    Reserved,
    RestoredDevice,
    Share,
    VhostKind,
    VhostUser,
    VmConfinement,
    VmPhase,
    VmSize,
    VmSpec,
    VmStats,
    VmStatus,
)

Report = Callable[[str], None]
"""Called with one line before each long step of an operation."""


class PodRef(Struct, frozen=True, kw_only=True):
    """Identifies the pod of a hook call.

    Attributes:
        id: unique on this host.
        run_dir: a private folder (0700) for sockets and other runtime files of the drivers; emptied
            by a reboot.
    """

    id: str
    run_dir: Path


class Capability(enum.StrEnum):
    """An optional capability of a hypervisor, an agent or a network."""

    UNIX_CHANNEL = "unix-channel"  # channels are unix sockets on the host
    VSOCK_CHANNEL = "vsock-channel"  # channels are vsock addresses
    PAUSE = "pause"
    SHARE = "share"  # folders of the host, present from the machine's start
    SHARE_PLUG = "share-plug"  # folders of the host, plugged into a running machine
    DRIVE_PLUG = "drive-plug"  # block devices and image files, plugged
    PCI_PLUG = "pci-plug"  # PCI devices of the host, plugged
    VHOST_USER_PLUG = "vhost-user-plug"  # devices with a backend process on the host, plugged
    CLONE = "clone"  # machines are saved with their memory, others start from them
    SNAPSHOT = "snapshot"  # machines are saved during their work, with plugged devices
    QUIESCE = "quiesce"  # the guest can be quiesced for a checkpoint and given a new identity
    RESIZE = "resize"  # vCPUs and memory are plugged and unplugged
    ONLINE = "online"  # the guest takes plugged vCPUs and memory into use
    DRIVE = "drive"  # the guest mounts drives as root file systems
    TERMINAL = "terminal"  # processes with a terminal
    FILES = "files"  # access to the files of containers (agent_serve_files)
    SUPERVISE = (
        "supervise"  # containers are restarted and their health checked (Restart, HealthCheck)
    )
    STAND_IN = "stand-in"  # a program on the host that stands in for a process (agent_stand_in)
    STARTER = "starter"  # it also starts the container when asked (StandIn.starter)
    START_HOOKS = "start-hooks"  # programs run in a container before its first (OciHooks)
    LOG = "log"  # the guest writes output to a log disk (Stdio.LOG)
    NIC = "nic"  # the machine takes a tap (Nic)
    NETWORK = "network"  # the guest configures its interface (PodSetup.network)
    PORTS = "ports"  # a network publishes ports of the pod on the host
    NETWORKS = "networks"  # a network plugin has networks of names, and makes some
    NETWORK_POLICY = "network-policy"  # a network enforces any Reach, and allowed destinations
    RATES = "rates"  # a network limits what a pod receives and sends


class Record(enum.StrEnum):
    """The kinds of records in the store.

    The first group survives a reboot of the host, the second does not.
    """

    POD_CONFIG = "pod-config"
    CONTAINER_CONFIG = "container-config"

    POD_STATE = "pod-state"
    HYPERVISOR = "hypervisor"
    AGENT = "agent"
    CONTAINER_STATE = "container-state"
    PROCESS = "process"
    MOUNTS = "mounts"
    DEVICES = "devices"


class StoreListing(Struct, frozen=True, kw_only=True):
    """The contents of the store.

    Attributes:
        pods: ids, sorted.
        problems: one line, with the path, for each thing that does not belong there.
    """

    pods: tuple[str, ...]
    problems: tuple[str, ...] = ()


class StoreLock(Protocol):
    """A lock that is held."""

    async def release(self) -> None:
        """Releases the lock. May be called twice."""


class Verdict(enum.StrEnum):
    """The severity of a finding."""

    GOOD = "good"
    WARNING = "warning"  # works, but not as well as it could
    BAD = "bad"  # does not work


class Finding(Struct, frozen=True, kw_only=True):
    """One line of `vc doctor`.

    Attributes:
        subject: what was checked.
        verdict: the severity.
        detail: the result of the check.
        remedy: what to do; empty when nothing is wrong.
        fix: a command that applies the remedy and does no harm, for `vc doctor --fix`: words of a
            shell without operators, beginning with "vc" or a program of the host; empty where
            people must decide.
    """

    subject: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    fix: str = ""


__all__ = [
    "DEFAULT_CAPABILITIES",
    "DEFAULT_PATH",
    "FIRST_CHANNEL",
    "NOT_PUBLIC",
    "TEMPLATE_MAC",
    "AgentInfo",
    "Capabilities",
    "Capability",
    "Channel",
    "ChannelKind",
    "Checkpoint",
    "Confinement",
    "ContainerSpec",
    "ContainerStats",
    "DenialReason",
    "DeviceNode",
    "Dns",
    "Drive",
    "DriveBus",
    "DriverState",
    "ExitStatus",
    "FilesRequest",
    "FilesVerb",
    "Finding",
    "Guest",
    "GuestContainer",
    "GuestContainerStatus",
    "GuestDevice",
    "GuestDriver",
    "GuestMount",
    "GuestNetwork",
    "GuestNode",
    "GuestRootfs",
    "Health",
    "HealthCheck",
    "HostDevice",
    "HostEntry",
    "HostPci",
    "Interface",
    "KernelSource",
    "Mount",
    "MountKind",
    "NamedNetwork",
    "Network",
    "NetworkDenial",
    "NetworkPolicy",
    "NetworkRequest",
    "NetworkRule",
    "NewNetwork",
    "Nic",
    "OciHook",
    "OciHooks",
    "Pluggable",
    "Plugged",
    "PodOptions",
    "PodRef",
    "PodSetup",
    "PortMapping",
    "PortProtocol",
    "ProcessInfo",
    "ProcessSpec",
    "ProcessStreams",
    "Reach",
    "Record",
    "Report",
    "Reserved",
    "Resources",
    "Restart",
    "RestartPolicy",
    "RestoredDevice",
    "Rlimit",
    "Rootfs",
    "RootfsMode",
    "Route",
    "Share",
    "StandIn",
    "Stdio",
    "StoreListing",
    "StoreLock",
    "StreamName",
    "Verdict",
    "VhostKind",
    "VhostUser",
    "VmConfinement",
    "VmPhase",
    "VmSize",
    "VmSpec",
    "VmStats",
    "VmStatus",
]
