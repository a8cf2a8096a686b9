"""Builds QEMU's command line as a tuple of words.

No shell is involved, and values are escaped in one place.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct, structs

MONITOR_FD = 3
FIRST_FD = 4
STATE_FD = 5
FIRST = "first"
CONSOLE = "console"
SERIAL_BUS = "vs0"
# Parts of the machine type that no guest of this plugin uses, and that a guest could attack.
UNUSED_PARTS = ("usb", "vmport", "sata", "smbus", "hpet", "i8042")
MAX_PORTS = 64
_LAST_PORT = 0x1E  # 0x1f is the q35 chipset's own
RAM = "ram"
BALLOON = "balloon"
BALLOON_DRIVER = "virtio-balloon-pci"
SANDBOX = (
    "-sandbox",
    "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
)


class FolderShare(Struct, frozen=True):
    """A 9p device that is present from the start."""

    tag: str
    path: Path
    read_only: bool


class Machine(Struct, frozen=True):
    """Everything that shapes the command line.

    Attributes:
        binary: QEMU's path.
        name: name in process lists.
        uuid: identifies the process as one of this plugin.
        accelerator: "kvm" or "tcg".
        machine: QEMU's machine type.
        cpu: CPU model.
        vcpus: number at the start.
        max_vcpus: the largest number.
        memory_mib: memory at the start, in MiB.
        max_memory_mib: the largest memory, in MiB.
        memory_slots: how many times memory can be plugged.
        shared_memory: whether other processes can map it.
        memory_file: file of the memory; anonymous memory when None.
        is_clone: whether it starts from a saved state, with the file's memory copied on write.
        first_channel: name of a channel that is present from the start; empty for none.
        memory_is_read: whether the memory's file may only be read, by a clone; QEMU >= 8.2.
        kernel: an ELF kernel with a PVH entry.
        initrd: the guest's initial root file system.
        parameters: the kernel's command line.
        run_dir: folder for console and slots.
        shares: present from the start.
        root_ports: number of root ports for hot plug.
        balloon_port: root port of a balloon, which returns memory; -1 for none.
        share_slots: number of folders that can be added later.
        is_root: whether QEMU may change owners of files.
        extra: words to append.
    """

    binary: str
    name: str
    uuid: str
    accelerator: str
    machine: str
    cpu: str
    vcpus: int
    max_vcpus: int
    memory_mib: int
    max_memory_mib: int
    memory_slots: int
    shared_memory: bool
    kernel: Path
    initrd: Path
    parameters: tuple[str, ...]
    run_dir: Path
    shares: tuple[FolderShare, ...] = ()
    root_ports: int = 0
    balloon_port: int = -1
    share_slots: int = 0
    is_root: bool = False
    extra: tuple[str, ...] = ()
    memory_file: Path | None = None
    is_clone: bool = False
    first_channel: str = ""
    memory_is_read: bool = False


def words(machine: Machine) -> tuple[str, ...]:
    """Returns the whole argv. The monitor's listening socket is descriptor MONITOR_FD."""
    return (
        machine.binary,
        *_base(machine),
        *_boot(machine),
        *_channels(machine),
        *_devices(machine),
        *machine.extra,
    )


def shape(machine: Machine) -> tuple[str, ...]:
    """Returns the argv without the words that may differ after a start from a saved state."""
    nowhere = Path("/")
    shares = tuple(structs.replace(share, path=nowhere, read_only=True) for share in machine.shares)
    memory = nowhere if machine.memory_file else None
    return words(
        structs.replace(
            machine,
            name="",
            uuid="",
            run_dir=nowhere,
            shares=shares,
            memory_file=memory,
            is_clone=False,
        )
    )


def proof_words(
    binary: str, kernel: Path, initrd: Path, parameters: tuple[str, ...]
) -> tuple[str, ...]:
    """Returns the argv of a minimal KVM guest that powers off by itself."""
    return (
        binary,
        *("-machine", "q35,accel=kvm"),
        *(
            "-cpu",
            "host",
            "-m",
            "256",
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
        ),
        *("-kernel", str(kernel), "-initrd", str(initrd), "-append", " ".join(parameters)),
    )


def option(kind: str, /, **values: str | int | bool) -> str:
    """Returns `kind,key=value,...` with commas in values doubled, as QEMU's option parser requires.

    The kind is a leading name. Booleans become on and off.
    """
    parts = [_escaped(kind)]
    for key, value in values.items():
        text = ("on" if value else "off") if isinstance(value, bool) else str(value)
        parts.append(f"{key}={_escaped(text)}")
    return ",".join(parts)


def port_address(number: int) -> str:
    """Returns the fixed slot of a root port, in hex digits.

    Slots are assigned from the end of the bus, where QEMU places nothing by itself.
    """
    return f"{_LAST_PORT - number:x}"


def slot_path(run_dir: Path, number: int) -> Path:
    """Returns the path of the link to a folder that is made before its slot is plugged."""
    return run_dir / "slots" / str(number)


def slot_fsdev(number: int, read_only: bool) -> str:
    """Returns the word for the file system device of a slot."""
    return f"slot{number}{'ro' if read_only else 'rw'}"


def _base(machine: Machine) -> Iterator[str]:
    yield from ("-name", option(f"vc-{machine.name}", process=f"vc-{machine.name}"[:15]))
    yield from ("-uuid", machine.uuid)
    parts: dict[str, str | bool] = {**dict.fromkeys(UNUSED_PARTS, False), "memory-backend": RAM}
    yield from ("-machine", option(machine.machine, accel=machine.accelerator, **parts))
    yield from ("-object", _memory_backend(machine))
    yield from ("-cpu", machine.cpu)
    yield from ("-smp", option(str(machine.vcpus), maxcpus=max(machine.vcpus, machine.max_vcpus)))
    ceiling = max(machine.memory_mib, machine.max_memory_mib)
    if ceiling > machine.memory_mib:
        yield from (
            "-m",
            option(f"{machine.memory_mib}M", slots=machine.memory_slots, maxmem=f"{ceiling}M"),
        )
    else:
        yield from ("-m", f"{machine.memory_mib}M")
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot")
    yield from SANDBOX
    # The log contains the cause of the end, also when the process that started the machine is gone.
    yield from ("-trace", "runstate_set", "-trace", "qemu_system_shutdown_request")


def _memory_backend(machine: Machine) -> str:
    size = f"{machine.memory_mib}M"
    if machine.memory_file:
        values: dict[str, str | bool] = {
            "mem-path": str(machine.memory_file),
            "share": not machine.is_clone,
        }
        if machine.memory_is_read:
            values |= {"readonly": True, "rom": "off"}
        return option("memory-backend-file", id=RAM, size=size, **values)
    if machine.shared_memory:
        return option("memory-backend-memfd", id=RAM, size=size, share=True)
    return option(
        "memory-backend-ram", id=RAM, size=size
    )  # a saved state requires the name of a file-backed block


def _boot(machine: Machine) -> Iterator[str]:
    yield from ("-kernel", str(machine.kernel), "-initrd", str(machine.initrd))
    yield from ("-append", " ".join(machine.parameters))
    if machine.is_clone:
        yield from ("-incoming", "defer")


def console_word(run_dir: Path) -> str:
    """Returns the word of the console, which is unique to the machine of a folder."""
    return option("file", id=CONSOLE, path=str(run_dir / CONSOLE), append=True)


def _channels(machine: Machine) -> Iterator[str]:
    yield from ("-chardev", option("socket", id="monitor", fd=MONITOR_FD, server=True, wait=False))
    yield from ("-mon", option("monitor", mode="control"))
    yield from ("-chardev", console_word(machine.run_dir))
    yield from ("-serial", f"chardev:{CONSOLE}")
    yield from ("-device", option("virtio-serial-pci", id=SERIAL_BUS, max_ports=MAX_PORTS))
    if machine.first_channel:
        yield from ("-chardev", option("socket", id=FIRST, fd=FIRST_FD, server=True, wait=False))
        port = option(
            "virtserialport",
            id=f"{FIRST}-port",
            bus=f"{SERIAL_BUS}.0",
            chardev=FIRST,
            name=machine.first_channel,
        )
        yield from ("-device", port)


def _devices(machine: Machine) -> Iterator[str]:
    yield from ("-device", option("vmgenid", guid="auto"))
    yield from ("-device", option("virtio-scsi-pci", id="scsi0"))
    for number in range(machine.root_ports):
        name, address = f"rp{number}", port_address(number)
        yield from (
            "-device",
            option("pcie-root-port", id=name, chassis=number + 1, slot=number + 1, addr=address),
        )
    if machine.balloon_port >= 0:
        bus = f"rp{machine.balloon_port}"
        yield from (
            "-device",
            option(BALLOON_DRIVER, id=BALLOON, bus=bus, **{"free-page-reporting": True}),
        )
    for share in machine.shares:
        model = _security_model(machine, share.read_only)
        yield from ("-fsdev", _fsdev(share.tag, share.path, share.read_only, model))
        yield from (
            "-device",
            option("virtio-9p-pci", id=f"share-{share.tag}", fsdev=share.tag, mount_tag=share.tag),
        )
    for number in range(machine.share_slots):
        for read_only in (True, False):
            model = _security_model(machine, read_only)
            path = slot_path(machine.run_dir, number)
            yield from ("-fsdev", _fsdev(slot_fsdev(number, read_only), path, read_only, model))


def _fsdev(name: str, path: Path, read_only: bool, security_model: str) -> str:
    return option(
        "local",
        id=name,
        path=str(path),
        security_model=security_model,
        readonly=read_only,
        multidevs="remap",
    )


def _security_model(machine: Machine, read_only: bool) -> str:
    """Returns the security model: only root can change owners, for other users owners are kept."""
    return "passthrough" if machine.is_root and not read_only else "none"


def _escaped(text: str) -> str:
    return text.replace(",", ",,")
