"""Values of the contract about machines."""

from __future__ import annotations

import enum
from pathlib import Path

from msgspec import Struct


class Guest(Struct, frozen=True, kw_only=True):
    """A guest image: what a machine boots.

    Attributes:
        id: identifies the image.
        kernel: an uncompressed kernel with a direct boot entry.
        initrd: the initial root file system.
        parameters: the kernel's command line, one word each.
        proof_parameters: an alternative command line, with which the guest powers off as soon as it
            has reached userspace.
        description: text for people.
        size_bytes: total size of both files, in bytes.
        is_current: whether new pods use it.
        program: the agent's program, for a hypervisor that runs it without a kernel; None where the
            image has none.
    """

    id: str
    kernel: Path
    initrd: Path
    parameters: tuple[str, ...]
    proof_parameters: tuple[str, ...]
    description: str = ""
    size_bytes: int = 0
    is_current: bool = True
    program: Path | None = None


class KernelSource(Struct, frozen=True, kw_only=True):
    """Where a guest image's kernel comes from.

    Attributes:
        image: a kernel on this host; None downloads that of the distribution.
        modules: folder of its modules; None derives it from the image's name.
        agent: the agent's program; None builds it.
    """

    image: Path | None = None
    modules: Path | None = None
    agent: Path | None = None


class Share(Struct, frozen=True, kw_only=True):
    """A folder of the host that the guest can mount.

    Attributes:
        tag: the mount tag; unique in the pod, at most 31 bytes.
        path: a folder on the host.
        read_only: enforced on the host.
    """

    tag: str
    path: Path
    read_only: bool = True


class DriveBus(enum.StrEnum):
    """How a disk is attached to the guest."""

    SCSI = "scsi"  # virtio-scsi: hundreds of disks on one controller
    BLK = "blk"  # virtio-blk: a PCI device for each disk


class Drive(Struct, frozen=True, kw_only=True):
    """A block device or image file of the host, as a disk in the guest.

    Attributes:
        id: unique in the pod.
        path: the device or a raw image.
        read_only: enforced on the host.
        bus: how it is attached to the guest.
    """

    id: str
    path: Path
    read_only: bool = False
    bus: DriveBus = DriveBus.SCSI


class HostPci(Struct, frozen=True, kw_only=True):
    """A PCI device of the host that is bound to vfio-pci.

    Attributes:
        id: unique in the pod.
        address: domain:bus:device.function, as in /sys/bus/pci/devices.
    """

    id: str
    address: str


class VhostKind(enum.StrEnum):
    """The type of the virtio device that a vhost-user backend implements."""

    NET = "vhost-user-net"
    BLK = "vhost-user-blk"
    SCSI = "vhost-user-scsi"


class VhostUser(Struct, frozen=True, kw_only=True):
    """A virtio device whose backend is another process of the host, behind a unix socket.

    Attributes:
        id: unique in the pod.
        kind: the type of the virtio device.
        socket: path of the backend's socket.
        mac: MAC address of a net device; empty for a generated one.
    """

    id: str
    kind: VhostKind
    socket: Path
    mac: str = ""


class Nic(Struct, frozen=True, kw_only=True):
    """A network interface of the machine, on a tap of the host.

    Attributes:
        id: unique in the pod.
        mac: address of the interface as the guest sees it.
        mtu: of the tap, in bytes.
        descriptor: of the tap, open in this process with IFF_VNET_HDR. The driver keeps a copy.
    """

    id: str
    mac: str
    mtu: int
    descriptor: int


class GuestNode(Struct, frozen=True, kw_only=True):
    """A device of the guest's own kernel, used in place of the same device of the host.

    Nothing is plugged for it.

    Attributes:
        path: path below /dev.
    """

    path: str


Pluggable = Share | Drive | HostPci | VhostUser | Nic


class GuestDriver(enum.StrEnum):
    """How the guest finds a device, and the format of its address."""

    NINE_P = "9p"  # a mount tag
    BIND = "bind"  # a folder that exists in the guest
    SCSI = "scsi"  # "target:lun"
    BLK = "blk"  # a PCI path, "<slot of the root port>/<slot behind it>" in hex digits
    PCI = "pci"  # a PCI path, likewise
    NODE = "node"  # a path below /dev


class Plugged(Struct, frozen=True, kw_only=True):
    """A device that is plugged into the machine.

    Attributes:
        id: the argument of vm_unplug.
        driver: how the guest finds it.
        address: its address, in the format of the GuestDriver.
        is_fixed: whether it is part of the machine from its start and is never unplugged.
    """

    id: str
    driver: GuestDriver
    address: str
    is_fixed: bool = False


class VmSize(Struct, frozen=True, kw_only=True):
    """The size of a machine, as totals.

    Attributes:
        vcpus: number of processors.
        memory_mib: memory, in MiB.
    """

    vcpus: int
    memory_mib: int


class Reserved(Struct, frozen=True, kw_only=True):
    """What a machine has from its start on for containers that come later.

    Attributes:
        vcpus: number of virtual CPUs.
        memory_bytes: memory in bytes, besides that of a machine without containers.
    """

    vcpus: int = 0
    memory_bytes: int = 0


class Checkpoint(Struct, frozen=True, kw_only=True):
    """A machine that was saved with its memory; any number of machines can start from it.

    Attributes:
        folder: holds everything that the driver writes apart from the memory. The caller creates
            and removes the folder.
        memory: file of the memory that the machine had at its start, without memory that was
            plugged later; it may be on a file system in the host's memory.
    """

    folder: Path
    memory: Path


class RestoredDevice(Struct, frozen=True, kw_only=True):
    """A device that was plugged when a machine was saved, for a machine that starts from it.

    Attributes:
        device: the device in the new machine; the path of a folder may differ.
        plugged: the device in the saved machine. Id and address stay the same.
    """

    device: Pluggable
    plugged: Plugged


class VmSpec(Struct, frozen=True, kw_only=True):
    """The machine to create.

    Attributes:
        guest: what it boots.
        vcpus: number of processors at the start, at least 1.
        memory_mib: memory at the start, in MiB.
        shares: present from the start.
        binary: the hypervisor's program; None for the one in the driver's options.
        origin: the checkpoint from which it starts; None boots it.
        restored_devices: devices that were plugged into the machine of `origin` when it was saved,
            other than its first shares.
        checkpoint_to: the checkpoint that vm_checkpoint will be asked for, so that the memory can
            be in its file from the start.
    """

    guest: Guest
    vcpus: int
    memory_mib: int
    shares: tuple[Share, ...] = ()
    binary: Path | None = None
    origin: Checkpoint | None = None
    restored_devices: tuple[RestoredDevice, ...] = ()
    checkpoint_to: Checkpoint | None = None


class VmPhase(enum.StrEnum):
    """The phase of a machine's life cycle."""

    ABSENT = "absent"  # never started, or destroyed
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class VmConfinement(Struct, frozen=True, kw_only=True):
    """How a machine's process is confined on its host.

    Attributes:
        layers: names of the active layers of confinement.
        missing: a sentence for each layer that the host lacks: name, reason, remedy.
    """

    layers: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class VmStatus(Struct, frozen=True, kw_only=True):
    """The current state of a machine.

    Attributes:
        phase: phase of its life cycle.
        pid: id of the machine's process on the host; 0 when there is none.
        reason: why the machine ended, as text for people; empty while it has not.
        confinement: how that process is confined.
    """

    phase: VmPhase
    pid: int = 0
    reason: str = ""
    confinement: VmConfinement = VmConfinement()


class VmStats(Struct, frozen=True, kw_only=True):
    """Use of the host's resources by one machine.

    Attributes:
        cpu_ns: processor time since its start, in nanoseconds.
        resident_bytes: resident memory on the host, in bytes.
        read_bytes: bytes read from the host's disks since its start, without reads served by the
            page cache; 0 when unknown.
        written_bytes: bytes written to the host's disks, likewise.
    """

    cpu_ns: int
    resident_bytes: int
    read_bytes: int = 0
    written_bytes: int = 0


class DriverState(Struct, frozen=True, kw_only=True):
    """The state that another process needs to take over a machine.

    JSON text, interpreted only by the driver that wrote it.
    """

    json: str


class ChannelKind(enum.StrEnum):
    """The transport of a channel on the host."""

    UNIX = "unix"
    VSOCK = "vsock"


FIRST_CHANNEL = "vc.agent.first"
"""Name of the channel that a machine with an origin has from its start, for one client."""


class Channel(Struct, frozen=True, kw_only=True):
    """A byte stream between one client on the host and the guest's agent.

    Attributes:
        id: unique in the pod, for vm_close_channel.
        kind: its transport.
        address: path of a socket, or "cid:port".
    """

    id: str
    kind: ChannelKind
    address: str
