"""What QEMU answers to the commands of its monitor, as far as it is read here.

An attacker who has taken over QEMU writes these answers. Fields that are stored in a snapshot come
back as arguments of commands to another machine: therefore they may only have the form that this
plugin gives them. Format: qemu.git, qapi/*.json.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Text = Annotated[str, Meta(max_length=1024)]
Label = Annotated[str, Meta(max_length=200)]
Number = Annotated[int, Meta(ge=0, lt=1 << 31)]
Long = Annotated[int, Meta(ge=0, lt=1 << 62)]
CpuDriver = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.+-]+-cpu\Z", max_length=128)]
Place = Annotated[str, Meta(pattern=r"^[a-z]+-id\Z", max_length=32)]
Dimm = Annotated[str, Meta(pattern=r"^dimm-[0-9]{1,6}\Z")]
Memory = Annotated[str, Meta(pattern=r"^/objects/mem-[0-9]{1,6}\Z")]


class Status(Struct):
    """Of query-status."""

    running: bool
    status: Text


class CharDevice(Struct, rename="kebab"):
    """One of query-chardev."""

    label: Label
    frontend_open: bool = False


class BlockNode(Struct, rename="kebab"):
    """One of query-named-block-nodes."""

    node_name: Text


class QomItem(Struct):
    """One of qom-list."""

    name: Text
    type: Text


class FdSet(Struct, rename="kebab"):
    """Of add-fd."""

    fdset_id: Number


class Migration(Struct, rename="kebab"):
    """Of query-migrate."""

    error_desc: str = ""


class VcpuSlot(Struct, rename="kebab"):
    """One of query-hotpluggable-cpus.

    Attributes:
        type: driver of device_add.
        props: place of the vCPU in the machine: socket-id, core-id, thread-id and such.
        qom_path: where it is plugged; empty for a free place.
    """

    type: CpuDriver
    props: dict[Place, Number]
    qom_path: Text = ""

    @property
    def position(self) -> tuple[int, int, int]:
        """Socket, core and thread."""
        socket, core, thread = (self.props.get(f"{name}-id", 0) for name in _LEVELS)
        return socket, core, thread


_LEVELS = ("socket", "core", "thread")


class Module(Struct):
    """A module of memory, of those that this plugin plugs.

    Attributes:
        id: of the device.
        memdev: path of the memory behind it.
        size: in bytes.
        slot: number of the slot.
        addr: physical address in the guest.
    """

    id: Dimm
    memdev: Memory
    size: Long
    slot: Number
    addr: Long

    @property
    def memory(self) -> str:
        """The id of the memory behind it."""
        return self.memdev.rpartition("/")[2]


class MemoryDevice(Struct):
    """One of query-memory-devices."""

    data: Module


class Moment(Struct):
    """The time of an event, by the host's clock."""

    seconds: Long
    microseconds: Annotated[int, Meta(ge=0, lt=1_000_000)]


class Halt(Struct):
    """An event of the vCPUs, STOP or RESUME."""

    event: Text
    timestamp: Moment
