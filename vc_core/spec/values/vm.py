"""What crosses the border about machines."""

from __future__ import annotations

import enum
from pathlib import Path

from msgspec import Struct


class Guest(Struct, frozen=True, kw_only=True):
    """What a machine boots.

    Attributes:
        id: names the image among others.
        kernel: an uncompressed kernel with a direct boot entry.
        initrd: the first root file system.
        parameters: the kernel's command line, one word each.
        proof_parameters: instead of them: makes the guest power off as soon as it has reached
            userspace.
        description: for people.
        size_bytes: of both files.
        is_current: whether new pods get it.
        program: the agent itself, for a hypervisor that runs it without a kernel; None where the
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
        image: a kernel on this host; None fetches the distribution's.
        modules: its modules' folder; None guesses it from the image's name.
        agent: the agent's program; None builds it.
    """

    image: Path | None = None
    modules: Path | None = None
    agent: Path | None = None


class Share(Struct, frozen=True, kw_only=True):
    """A folder of the host that the guest can mount.

    Attributes:
        tag: by which the guest finds it; unique in the pod, at most 31 bytes.
        path: a folder on the host.
        read_only: enforced on the host's side.
    """

    tag: str
    path: Path
    read_only: bool = True


class DriveBus(enum.StrEnum):
    """What a disk looks like to the guest."""

    SCSI = "scsi"  # virtio-scsi: hundreds of disks on one controller
    BLK = "blk"  # virtio-blk: a PCI device of its own for each


class Drive(Struct, frozen=True, kw_only=True):
    """A block device or image file of the host, as a disk in the guest.

    Attributes:
        id: unique in the pod.
        path: the device or a raw image.
        read_only: enforced on the host's side.
        bus: what it looks like to the guest.
    """

    id: str
    path: Path
    read_only: bool = False
    bus: DriveBus = DriveBus.SCSI


class HostPci(Struct, frozen=True, kw_only=True):
    """A PCI device of the host that vfio-pci holds.

    Attributes:
        id: unique in the pod.
        address: domain:bus:device.function, as /sys/bus/pci/devices has it.
    """

    id: str
    address: str


class VhostKind(enum.StrEnum):
    """What a vhost-user backend is to the guest."""

    NET = "vhost-user-net"
    BLK = "vhost-user-blk"
    SCSI = "vhost-user-scsi"


class VhostUser(Struct, frozen=True, kw_only=True):
    """A virtio device whose backend is another process of the host, behind a unix socket.

    Attributes:
        id: unique in the pod.
        kind: what it is to the guest.
        socket: on which the backend listens.
        mac: of a net device; empty for one that is made up.
    """

    id: str
    kind: VhostKind
    socket: Path
    mac: str = ""


class GuestNode(Struct, frozen=True, kw_only=True):
    """A device of the guest's own kernel, like that of the host: nothing is plugged for it.

    Attributes:
        path: below /dev.
    """

    path: str


Pluggable = Share | Drive | HostPci | VhostUser


class GuestDriver(enum.StrEnum):
    """How a guest looks for a device, and what its address is."""

    NINE_P = "9p"  # a mount tag
    BIND = "bind"  # a folder that the guest has already
    SCSI = "scsi"  # "target:lun"
    BLK = "blk"  # a PCI path, "<slot of the root port>/<slot behind it>" in hex digits
    PCI = "pci"  # likewise
    NODE = "node"  # a path below /dev


class Plugged(Struct, frozen=True, kw_only=True):
    """A device that is in the machine.

    Attributes:
        id: what to give to vm_unplug.
        driver: how the guest is to look for it.
        address: what it is to look for, as GuestDriver says.
        is_fixed: part of the machine from its start: it cannot be unplugged.
    """

    id: str
    driver: GuestDriver
    address: str
    is_fixed: bool = False


class VmSize(Struct, frozen=True, kw_only=True):
    """How large a machine is: totals, never differences.

    Attributes:
        vcpus: processors.
        memory_mib: memory.
    """

    vcpus: int
    memory_mib: int


class Checkpoint(Struct, frozen=True, kw_only=True):
    """A machine that was saved with its memory: others start from it instead of booting, any number
    of times.

    Attributes:
        folder: holds what the driver writes, but for the memory. Who asks for it makes and removes
            the folder.
        memory: the file of the memory that it had at its start, without what was plugged since; on
            a file system that the host keeps in memory, or not.
    """

    folder: Path
    memory: Path


class RestoredDevice(Struct, frozen=True, kw_only=True):
    """What was plugged into a machine when it was saved, and is to be in one that goes on from
    there.

    Attributes:
        device: as this machine is to have it: a folder may have moved.
        plugged: as the saved machine had it. Id and address stay.
    """

    device: Pluggable
    plugged: Plugged


class VmSpec(Struct, frozen=True, kw_only=True):
    """The machine to make.

    Attributes:
        guest: what it boots.
        vcpus: at the start, at least 1.
        memory_mib: at the start.
        shares: present from the start.
        binary: the hypervisor's program; None for the one that its options name.
        origin: it starts from this instead of booting.
        restored_devices: what was plugged into the machine of `origin` when that was saved, but for
            its first shares.
        checkpoint_to: where vm_checkpoint will be asked to save it, so that its memory can lie
            there from the start.
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
    """Where a machine is in its life."""

    ABSENT = "absent"  # never started, or destroyed
    RUNNING = "running"
    PAUSED = "paused"
    ENDED = "ended"


class VmStatus(Struct, frozen=True, kw_only=True):
    """What is true of a machine now.

    Attributes:
        phase: where it is in its life.
        pid: of the process that is the machine; 0 when there is none.
        reason: why it ended, for people; empty while it has not.
    """

    phase: VmPhase
    pid: int = 0
    reason: str = ""


class VmStats(Struct, frozen=True, kw_only=True):
    """Use of the host by one machine.

    Attributes:
        cpu_ns: processor time since its start.
        resident_bytes: memory of the host in use.
        read_bytes: from the host's disks since its start, what lay in its page cache not counted; 0
            when not known.
        written_bytes: to them, likewise.
    """

    cpu_ns: int
    resident_bytes: int
    read_bytes: int = 0
    written_bytes: int = 0


class DriverState(Struct, frozen=True, kw_only=True):
    """What another process needs to take a machine over: JSON text, understood by the driver that
    made it.
    """

    json: str


class ChannelKind(enum.StrEnum):
    """How a channel is reached on the host."""

    UNIX = "unix"
    VSOCK = "vsock"


FIRST_CHANNEL = "vc.agent.first"
"""The name of the channel that a machine with an origin has from its start, for one client."""


class Channel(Struct, frozen=True, kw_only=True):
    """A byte stream between one client on the host and the guest's agent.

    Attributes:
        id: unique in the pod, for vm_close_channel.
        kind: how it is reached.
        address: a socket's path, or "cid:port".
    """

    id: str
    kind: ChannelKind
    address: str
