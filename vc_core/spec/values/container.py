"""Values of the contract about containers, their mounts, limits and devices."""

from __future__ import annotations

import enum
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from vc_core.spec.values.device_node import DeviceNode
from vc_core.spec.values.network import Dns, GuestNetwork, HostEntry
from vc_core.spec.values.oci_hooks import OciHooks
from vc_core.spec.values.process import ExitStatus, ProcessSpec, Stdio
from vc_core.spec.values.restart import Health, HealthCheck, Restart
from vc_core.spec.values.vm import Plugged, Reserved

if TYPE_CHECKING:
    from fractions import Fraction


class RootfsMode(enum.StrEnum):
    """What a container may do to its root file system."""

    OVERLAY = "overlay"  # writes go to memory and vanish; the folder never changes
    READ_ONLY = "ro"
    READ_WRITE = "rw"  # writes change the folder on the host


class Rootfs(Struct, frozen=True, kw_only=True):
    """A container's root file system.

    Attributes:
        path: a folder on the host; "/" is the host's own root.
        mode: what the container may do to it.
        disk_bytes: size of the disk that holds an overlay's writes, in bytes; the disk is kept for
            the container's lifetime. 0 keeps the writes in the guest's memory.
        show_secrets: whether files of the host's own root that the configuration hides are visible;
            used by the engine only.
    """

    path: Path
    mode: RootfsMode = RootfsMode.OVERLAY
    disk_bytes: int = 0
    show_secrets: bool = False


class MountKind(enum.StrEnum):
    """The source of a mount: a file of the host or the guest, or a file system of the
    guest's kernel.
    """

    BIND = "bind"  # a folder or file of the host
    GUEST = "guest"  # a folder or file of the guest
    TMPFS = "tmpfs"
    PROC = "proc"
    SYSFS = "sysfs"
    DEVPTS = "devpts"
    MQUEUE = "mqueue"
    CGROUP = "cgroup"


class Mount(Struct, frozen=True, kw_only=True):
    """A mount in a container.

    Attributes:
        source: an absolute path on the host, or in the guest for MountKind.GUEST; unused for the
            other kinds.
        destination: absolute path in the container.
        read_only: whether writes are refused.
        kind: the source of the mount.
        options: further options of mount(8), passed to the guest: "noexec", "size=64m".
        recursive: whether mounts below the source are included.
        copy_up: whether an empty folder of the host is filled with what the root file system has at
            the destination, with owners and permissions, when the container is first created. The
            mount must be writable.
    """

    source: Path
    destination: str
    read_only: bool = False
    kind: MountKind = MountKind.BIND
    options: tuple[str, ...] = ()
    recursive: bool = True
    copy_up: bool = False

    @classmethod
    def tmpfs(cls, destination: str, size_bytes: int = 0, mode: int = 0o1777) -> Mount:
        """Returns a mount of an empty folder in the guest's memory.

        A `size_bytes` of 0 limits it to half of the guest's memory.
        """
        size = (f"size={size_bytes}",) if size_bytes else ()
        options = ("nosuid", "nodev", f"mode={mode:o}", *size)
        return cls(
            source=Path("tmpfs"), destination=destination, kind=MountKind.TMPFS, options=options
        )


class HostDevice(Struct, frozen=True, kw_only=True):
    """A device of the host for a container.

    Attributes:
        path: absolute path on the host: a device node, an image file, a socket, or a folder
            of /sys/bus/pci/devices.
        destination: path of its node in the container; empty for a device without a node.
        read_only: whether writes are refused.
        kind: the type of the device where the path does not determine it: "vhost-user-net",
            "vhost-user-blk", "vhost-user-scsi".
        mode: permission bits of the node.
        uid: owner of the node.
        gid: group of the node.
        mac: MAC address of a net device; empty for a generated one.
    """

    path: Path
    destination: str
    read_only: bool = False
    kind: str = ""
    mode: int = 0o660
    uid: int = 0
    gid: int = 0
    mac: str = ""


class Resources(Struct, frozen=True, kw_only=True):
    """Limits of a container, enforced by the guest's cgroups. 0 or empty means no limit.

    Attributes:
        cpu_quota_us: processor time per period, in microseconds; negative means no limit, too.
        cpu_period_us: length of a period, in microseconds.
        cpu_shares: weight relative to sibling cgroups, from 2 to 262144; 1024 is the usual weight.
        cpuset: the guest's processors that the container may use, as in "0-2,4".
        memory_bytes: limit of memory, in bytes.
        pids: maximum number of processes.
        unified: files of the container's cgroup (version 2) and their contents, as in
            ("memory.oom.group", "1"). They are written after all other limits.
    """

    cpu_quota_us: int = 0
    cpu_period_us: int = 100_000
    cpu_shares: int = 0
    cpuset: str = ""
    memory_bytes: int = 0
    pids: int = 0
    unified: tuple[tuple[str, str], ...] = ()

    @property
    def cpus(self) -> Fraction:
        """The number of processors that the container may use; 0 for no limit."""
        from fractions import Fraction

        return Fraction(max(0, self.cpu_quota_us), self.cpu_period_us)


class Confinement(Struct, frozen=True, kw_only=True):
    """How a container is isolated from the guest. The defaults are those of container engines.

    Attributes:
        namespaces: the container's own namespaces, of "pid", "mount", "ipc", "uts", "cgroup",
            "user" and "network".
        masked_paths: paths that are hidden.
        readonly_paths: paths that are read-only.
        sysctl: names and values, in the container's own namespaces.
        seccomp: JSON text of the runtime-spec's linux.seccomp; empty for no filter.
        propagation: mount propagation of the root: "private", "slave", "shared"; empty leaves
            it unchanged.
        pid_container_id: the container of the same pod whose pid namespace it joins, which must
            be created or running; empty for the one that `namespaces` says.
    """

    namespaces: tuple[str, ...] | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    sysctl: tuple[tuple[str, str], ...] = ()
    seccomp: str | None = None
    propagation: str = ""
    pid_container_id: str = ""


class ContainerSpec(Struct, frozen=True, kw_only=True):
    """A container to create.

    Attributes:
        id: unique in the pod.
        rootfs: its root file system.
        process: its first process.
        mounts: in the order in which they are mounted.
        stdio: what the streams of its first process are connected to.
        hostname: its host name; empty for that of the pod.
        annotations: stored and returned unchanged.
        devices: devices of the host.
        nodes: further nodes, without a device.
        resources: its limits.
        shm_bytes: size of its /dev/shm, in bytes.
        has_default_mounts: whether /proc, /dev and the other standard mounts are made where
            `mounts` does not name them.
        confinement: how it is isolated from the guest.
        hooks: programs of the host to run.
        bundle: the OCI bundle it was made from, for hooks; empty for none.
        stop_signal: the signal that asks its first process to end.
        restart: when it is started again.
        health: its health check; None for no check.
    """

    id: str
    rootfs: Rootfs
    process: ProcessSpec
    mounts: tuple[Mount, ...] = ()
    stdio: Stdio = Stdio.NULL
    hostname: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    devices: tuple[HostDevice, ...] = ()
    nodes: tuple[DeviceNode, ...] = ()
    resources: Resources = Resources()
    shm_bytes: int = 64 << 20
    has_default_mounts: bool = True
    confinement: Confinement = Confinement()
    hooks: OciHooks = OciHooks()
    bundle: str = ""
    stop_signal: int = signal.SIGTERM
    restart: Restart = Restart()
    health: HealthCheck | None = None


class PodOptions(Struct, frozen=True, kw_only=True):
    """Options that all containers of a pod share.

    Attributes:
        dns: the resolver's configuration; without servers containers keep their own file.
        is_pid_shared: whether the containers share one pid namespace.
        shared_shm_bytes: size in bytes of a /dev/shm that all containers share; 0 gives each
            its own.
        can_quiesce: whether folders of the host are mounted so that the guest can close them for a
            checkpoint (agent_quiesce).
        hosts: lines of /etc/hosts beside localhost and the container's own name.
        reserved: what the containers get together before the machine grows for them. The engine
            sizes the machine; drivers need not look at it.
    """

    dns: Dns = Dns()
    is_pid_shared: bool = False
    shared_shm_bytes: int = 0
    can_quiesce: bool = False
    hosts: tuple[HostEntry, ...] = ()
    reserved: Reserved = Reserved()


class GuestRootfs(Struct, frozen=True, kw_only=True):
    """Where the agent finds a root file system.

    Attributes:
        plugged: the share or drive that holds it.
        fstype: file system type of a drive; empty for a share.
        subpath: path below the root of the share or drive; empty for the root itself.
        upper: the disk (ext4) that holds an overlay's writes; None for the guest's memory.
    """

    plugged: Plugged
    fstype: str = ""
    subpath: str = ""
    upper: Plugged | None = None


class GuestMount(Struct, frozen=True, kw_only=True):
    """A mount as passed to the agent.

    Attributes:
        mount: the requested mount.
        plugged: the share that holds a folder or file of the host; None for what the guest provides
            by itself.
        subpath: path below the share's root; empty for the root itself.
    """

    mount: Mount
    plugged: Plugged | None = None
    subpath: str = ""


class GuestDevice(Struct, frozen=True, kw_only=True):
    """A device as passed to the agent.

    Attributes:
        device: the requested device.
        plugged: how the guest finds it; several entries for a group of devices.
    """

    device: HostDevice
    plugged: tuple[Plugged, ...]


class GuestContainer(Struct, frozen=True, kw_only=True):
    """A container as passed to the agent.

    Attributes:
        spec: the requested container.
        token: identifies its first process.
        rootfs: its root file system.
        mounts: in the order in which they are mounted.
        devices: all of its devices.
        pod: options that all containers of the pod share.
        starts: whether its first process runs at once, instead of waiting
            for agent_start_container.
        log: the disk to which Stdio.LOG writes, in the format of vc_core.spec.log_format.
    """

    spec: ContainerSpec
    token: str
    rootfs: GuestRootfs
    mounts: tuple[GuestMount, ...] = ()
    devices: tuple[GuestDevice, ...] = ()
    pod: PodOptions = PodOptions()
    starts: bool = False
    log: Plugged | None = None


class GuestContainerStatus(Struct, frozen=True, kw_only=True):
    """The state of one container in the guest.

    Attributes:
        id: the container's id.
        exit: how its first process ended; None while it runs or is about to be restarted.
        restarts: number of restarts.
        health: result of its health checks.
    """

    id: str
    exit: ExitStatus | None
    restarts: int = 0
    health: Health = Health.NONE


class ContainerStats(Struct, frozen=True, kw_only=True):
    """Use of the guest's resources by one container.

    Attributes:
        cpu_ns: processor time since its start, in nanoseconds.
        memory_bytes: memory in use, in bytes.
        memory_limit_bytes: limit of memory, in bytes; 0 for no limit.
        processes: number of processes.
        oom_kills: number of processes killed at the limit of memory.
        user_cpu_ns: the part of cpu_ns in user mode, in nanoseconds.
        system_cpu_ns: the part of cpu_ns in the kernel, in nanoseconds.
    """

    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    processes: int
    oom_kills: int = 0
    user_cpu_ns: int = 0
    system_cpu_ns: int = 0


class PodSetup(Struct, frozen=True, kw_only=True):
    """The identity that a newly booted or cloned guest gets from its pod.

    Attributes:
        hostname: at most 64 bytes.
        time_ns: current time, in nanoseconds since the epoch.
        seed: entropy for the guest's random number generator.
        machine_id: as in machine-id(5): 32 hex digits, constant for the lifetime of the pod.
        options: options that all containers of the pod share.
        networks: how the guest configures its interfaces, which it waits for. Empty for agents
            that do not declare Capability.NETWORK. In a template, where `hostname` is empty, an
            interface without addresses stays down.
    """

    hostname: str
    time_ns: int
    seed: bytes
    machine_id: str
    options: PodOptions = PodOptions()
    networks: tuple[GuestNetwork, ...] = ()

    def __repr__(self) -> str:  # the seed is a secret, and logs show calls
        return f"PodSetup(hostname={self.hostname!r}, machine_id={self.machine_id!r})"


class AgentInfo(Struct, frozen=True, kw_only=True):
    """The guest's agent, as it describes itself.

    Attributes:
        version: version of the agent.
        protocol: the negotiated version of the protocol.
        features: names of optional features of the agent.
        kernel: release of the guest's kernel.
    """

    version: str
    protocol: int
    features: tuple[str, ...]
    kernel: str
