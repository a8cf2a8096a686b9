"""What crosses the border about pods' insides: containers, their mounts, limits and devices."""

from __future__ import annotations

import enum
import signal
from fractions import Fraction
from pathlib import Path

from msgspec import Struct

from vc_core.spec.values.oci_hooks import OciHooks
from vc_core.spec.values.process import ExitStatus, ProcessSpec, Stdio
from vc_core.spec.values.restart import Health, HealthCheck, Restart
from vc_core.spec.values.vm import Plugged


class RootfsMode(enum.StrEnum):
    """What a container may do to its root file system."""

    OVERLAY = "overlay"  # writes go to memory and vanish; the folder never changes
    READ_ONLY = "ro"
    READ_WRITE = "rw"  # writes change the folder on the host


class Rootfs(Struct, frozen=True, kw_only=True):
    """A container's root file system.

    Attributes:
        path: a folder on the host; "/" is the host's own.
        mode: what the container may do to it.
        disk_bytes: what an overlay is written to: a disk of this size, which lasts as long as the
            container, or the guest's memory when 0.
        show_secrets: whether also those files of the host's own root are seen that the
            configuration hides; the engine's matter alone.
    """

    path: Path
    mode: RootfsMode = RootfsMode.OVERLAY
    disk_bytes: int = 0
    show_secrets: bool = False


class MountKind(enum.StrEnum):
    """What a mount shows: something of the host, or a file system of the guest's kernel."""

    BIND = "bind"  # a folder or file of the host
    GUEST = "guest"  # a folder or file of the guest itself
    TMPFS = "tmpfs"
    PROC = "proc"
    SYSFS = "sysfs"
    DEVPTS = "devpts"
    MQUEUE = "mqueue"
    CGROUP = "cgroup"


class Mount(Struct, frozen=True, kw_only=True):
    """A mount in a container.

    Attributes:
        source: on the host, absolute; in the guest for MountKind.GUEST; without meaning for the
            other kinds.
        destination: in the container, absolute.
        read_only: whether writing is refused.
        kind: what it shows.
        options: more words of mount(8), given to the guest: "noexec", "size=64m".
        recursive: whether mounts below the source come along.
        copy_up: whether an empty folder of the host gets what the root file system has at the
            destination, with owners and permissions, when the container is first made. It must be
            writable.
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
        """An empty folder in the guest's memory; `size_bytes` 0 is half of that."""
        size = (f"size={size_bytes}",) if size_bytes else ()
        options = ("nosuid", "nodev", f"mode={mode:o}", *size)
        return cls(
            source=Path("tmpfs"), destination=destination, kind=MountKind.TMPFS, options=options
        )


class HostDevice(Struct, frozen=True, kw_only=True):
    """A device of the host that a container shall have.

    Attributes:
        path: on the host, absolute: a node, an image file, a socket, or a folder of
            /sys/bus/pci/devices.
        destination: of its node in the container; empty for a device without one.
        read_only: whether writing is refused.
        kind: what it is where the path does not say: "vhost-user-net", "vhost-user-blk",
            "vhost-user-scsi".
        mode: permission bits of the node.
        uid: owner of the node.
        gid: group of the node.
        mac: of a net device; empty for one that is made up.
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
    """Limits of a container, enforced by the guest's cgroups. What is 0 or empty has no limit.

    Attributes:
        cpu_quota_us: processor time in each period; negative is no limit, too.
        cpu_period_us: how long a period is.
        cpu_shares: weight among siblings, from 2 to 262144, 1024 being usual.
        cpuset: which of the guest's processors, as in "0-2,4".
        memory_bytes: of memory.
        pids: processes.
        unified: files of the container's cgroup (version 2) and what is written to them, as in
            ("memory.oom.group", "1"). It comes after all other limits.
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
        """How many processors it may use; 0 when that is not limited."""
        return Fraction(max(0, self.cpu_quota_us), self.cpu_period_us)


class Confinement(Struct, frozen=True, kw_only=True):
    """How a container is kept from the guest. None is what container engines agree on.

    Attributes:
        namespaces: "pid", "mount", "ipc", "uts", "cgroup", "user", "network": those of its own.
        masked_paths: not to be seen.
        readonly_paths: not to be written.
        sysctl: names and values, of its own namespaces.
        seccomp: JSON text of the runtime-spec's linux.seccomp; empty for no filter.
        propagation: of the root's mounts: "private", "slave", "shared"; empty leaves it alone.
    """

    namespaces: tuple[str, ...] | None = None
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    sysctl: tuple[tuple[str, str], ...] = ()
    seccomp: str | None = None
    propagation: str = ""


class ContainerSpec(Struct, frozen=True, kw_only=True):
    """A container to make.

    Attributes:
        id: unique in the pod.
        rootfs: its root file system.
        process: its first process.
        mounts: in the order in which they are made.
        stdio: what its first process's streams are connected to.
        hostname: what the process sees; empty for the pod's.
        annotations: kept and given back, nothing more.
        devices: of the host.
        resources: its limits.
        shm_bytes: size of its /dev/shm.
        has_default_mounts: whether /proc, /dev and the like are made where `mounts` do not name
            them.
        confinement: what keeps it in.
        hooks: programs of the host to run.
        bundle: the OCI bundle it came from, for hooks; empty for none.
        stop_signal: what asks its first process to end.
        restart: when it is started again.
        health: how it is found to be well; None for no check.
    """

    id: str
    rootfs: Rootfs
    process: ProcessSpec
    mounts: tuple[Mount, ...] = ()
    stdio: Stdio = Stdio.NULL
    hostname: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    devices: tuple[HostDevice, ...] = ()
    resources: Resources = Resources()
    shm_bytes: int = 64 << 20
    has_default_mounts: bool = True
    confinement: Confinement = Confinement()
    hooks: OciHooks = OciHooks()
    bundle: str = ""
    stop_signal: int = signal.SIGTERM
    restart: Restart = Restart()
    health: HealthCheck | None = None


class Dns(Struct, frozen=True, kw_only=True):
    """What stands in the containers' /etc/resolv.conf.

    Attributes:
        servers: addresses.
        searches: domains.
        options: as resolv.conf(5) has them.
    """

    servers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


class PodOptions(Struct, frozen=True, kw_only=True):
    """What the containers of a pod have in common.

    Attributes:
        dns: where names are looked up; without servers containers keep their own file.
        is_pid_shared: whether they see each other's processes.
        shared_shm_bytes: size of a /dev/shm for all of them; 0 gives each its own.
        can_quiesce: whether their folders of the host are mounted so that the guest can let go of
            them (agent_quiesce).
    """

    dns: Dns = Dns()
    is_pid_shared: bool = False
    shared_shm_bytes: int = 0
    can_quiesce: bool = False


class GuestRootfs(Struct, frozen=True, kw_only=True):
    """A root file system as the agent has to find it.

    Attributes:
        plugged: the share or drive that holds it.
        fstype: of a drive; empty for a share.
        subpath: below the share's or drive's root; empty for the root itself.
        upper: the disk, an ext4, that an overlay is written to; None for the guest's memory.
    """

    plugged: Plugged
    fstype: str = ""
    subpath: str = ""
    upper: Plugged | None = None


class GuestMount(Struct, frozen=True, kw_only=True):
    """A mount as the agent has to make it.

    Attributes:
        mount: what was asked for.
        plugged: the share that holds a folder or file of the host; None for what the guest makes by
            itself.
        subpath: below the share's root; empty for the root itself.
    """

    mount: Mount
    plugged: Plugged | None = None
    subpath: str = ""


class GuestDevice(Struct, frozen=True, kw_only=True):
    """A device as the agent has to find it.

    Attributes:
        device: what was asked for.
        plugged: what it is to the guest; several for a group of devices.
    """

    device: HostDevice
    plugged: tuple[Plugged, ...]


class GuestContainer(Struct, frozen=True, kw_only=True):
    """A container as the agent has to make it.

    Attributes:
        spec: what was asked for.
        token: of its first process.
        rootfs: its root file system.
        mounts: in order.
        devices: all of them.
        pod: what it has in common with its siblings.
        starts: whether its first process runs at once, instead of waiting for
            agent_start_container.
        log: the disk to which Stdio.LOG writes, a ring of blocks as vc_core.spec.log_format has it.
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
    """What the guest knows about one container.

    Attributes:
        id: the container's.
        exit: how its first process ended; None while it lives, or is started again.
        restarts: how often it was started again.
        health: what its checks have found.
    """

    id: str
    exit: ExitStatus | None
    restarts: int = 0
    health: Health = Health.NONE


class ContainerStats(Struct, frozen=True, kw_only=True):
    """Use of the guest by one container.

    Attributes:
        cpu_ns: processor time since its start.
        memory_bytes: in use.
        memory_limit_bytes: 0 when there is none.
        processes: their number.
        oom_kills: processes that the limit of memory has cost.
    """

    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int
    processes: int
    oom_kills: int = 0


class PodSetup(Struct, frozen=True, kw_only=True):
    """What makes a freshly booted or cloned guest this pod.

    Attributes:
        hostname: at most 64 bytes.
        time_ns: since the epoch.
        seed: for the guest's random numbers.
        machine_id: as machine-id(5): 32 hex digits, the same for as long as the pod exists.
        options: what its containers have in common.
    """

    hostname: str
    time_ns: int
    seed: bytes
    machine_id: str
    options: PodOptions = PodOptions()

    def __repr__(self) -> str:  # the seed is a secret, and logs show calls
        return f"PodSetup(hostname={self.hostname!r}, machine_id={self.machine_id!r})"


class AgentInfo(Struct, frozen=True, kw_only=True):
    """Who answers in the guest.

    Attributes:
        version: of the agent.
        protocol: agreed on.
        features: names of what this agent can do beyond its protocol.
        kernel: its release.
    """

    version: str
    protocol: int
    features: tuple[str, ...]
    kernel: str
