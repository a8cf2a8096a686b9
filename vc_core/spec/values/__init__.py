"""What crosses the border between engine and plugins: frozen `msgspec.Struct`s and enums.

Those about machines and those about containers lie next door; all are imported from here.
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
    Dns,
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
    Pluggable,
    Plugged,
    RestoredDevice,
    Share,
    VhostKind,
    VhostUser,
    VmPhase,
    VmSize,
    VmSpec,
    VmStats,
    VmStatus,
)

Report = Callable[[str], None]
"""Called with one line before each long step of an operation."""


class PodRef(Struct, frozen=True, kw_only=True):
    """Which pod a hook is about.

    Attributes:
        id: unique on this host.
        run_dir: a private folder (0700) for sockets and other runtime files of the drivers; empties
            with a reboot.
    """

    id: str
    run_dir: Path


class Capability(enum.StrEnum):
    """What a hypervisor or an agent can do beyond what all must."""

    UNIX_CHANNEL = "unix-channel"  # channels are unix sockets on the host
    VSOCK_CHANNEL = "vsock-channel"  # channels are vsock addresses
    PAUSE = "pause"
    SHARE = "share"  # folders of the host, given when the machine starts
    SHARE_PLUG = "share-plug"  # and later
    DRIVE_PLUG = "drive-plug"  # block devices and image files, later
    PCI_PLUG = "pci-plug"  # PCI devices of the host, later
    VHOST_USER_PLUG = "vhost-user-plug"  # devices whose backends are processes of the host, later
    CLONE = "clone"  # machines are saved with their memory, and others start from that
    SNAPSHOT = "snapshot"  # machines are saved in the middle of their work, with what was plugged
    QUIESCE = (
        "quiesce"  # the guest can be made quiet for a checkpoint; a new identity is given after
    )
    RESIZE = "resize"  # vCPUs and memory come and go
    ONLINE = "online"  # the guest takes such vCPUs and memory into use
    DRIVE = "drive"  # the guest mounts drives as root file systems
    TERMINAL = "terminal"  # processes with a terminal
    FILES = "files"  # files of containers are reached (agent_serve_files)
    SUPERVISE = (
        "supervise"  # containers are restarted and their health checked (Restart, HealthCheck)
    )
    LOG = "log"  # the guest writes output to a disk (Stdio.LOG)


class Record(enum.StrEnum):
    """What the store keeps. The first group survives a reboot of the host, the second does not."""

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
    """What is in the store.

    Attributes:
        pods: ids, sorted.
        problems: one line for each thing that is there and should not be, with its path.
    """

    pods: tuple[str, ...]
    problems: tuple[str, ...] = ()


class StoreLock(Protocol):
    """A lock that is held."""

    async def release(self) -> None:
        """Gives it back. May be called twice."""


class Verdict(enum.StrEnum):
    """How a finding is meant."""

    GOOD = "good"
    WARNING = "warning"  # works, but not as well as it could
    BAD = "bad"  # does not work


class Finding(Struct, frozen=True, kw_only=True):
    """One line of `vc doctor`.

    Attributes:
        subject: what was looked at.
        verdict: how it is.
        detail: what was found.
        remedy: what to do; empty when it is good.
        fix: a command that does it and harms nothing, for `vc doctor --fix`: words of a shell
            without its operators, beginning with "vc" or a program of the host; empty where people
            must decide.
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
    "AgentInfo",
    "Capabilities",
    "Capability",
    "Channel",
    "ChannelKind",
    "Checkpoint",
    "Confinement",
    "ContainerSpec",
    "ContainerStats",
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
    "GuestNode",
    "GuestRootfs",
    "Health",
    "HealthCheck",
    "HostDevice",
    "HostPci",
    "KernelSource",
    "Mount",
    "MountKind",
    "OciHook",
    "OciHooks",
    "Pluggable",
    "Plugged",
    "PodOptions",
    "PodRef",
    "PodSetup",
    "ProcessInfo",
    "ProcessSpec",
    "ProcessStreams",
    "Record",
    "Report",
    "Resources",
    "Restart",
    "RestartPolicy",
    "RestoredDevice",
    "Rlimit",
    "Rootfs",
    "RootfsMode",
    "Share",
    "Stdio",
    "StoreListing",
    "StoreLock",
    "StreamName",
    "Verdict",
    "VhostKind",
    "VhostUser",
    "VmPhase",
    "VmSize",
    "VmSpec",
    "VmStats",
    "VmStatus",
]
