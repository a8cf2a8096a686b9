"""How libvirt confines a machine's process, as the kernel and libvirtd report it.

What there is depends on the user of the machine and on security_driver, seccomp_sandbox, namespaces
and cgroup_controllers of qemu.conf: libvirt.org/drvqemu.html, "Driver security architecture".
Nothing is concluded from the configuration: /proc of the running process is read, see proc(5).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from vc_core.driver_kit import mountinfo
from vc_core.spec import VmConfinement

_MODULES = ("apparmor", "selinux")  # libvirt's other models, dac and none, are no security modules
_NAMESPACES = ("pid", "net", "ipc")
_FILTERED = 2  # Seccomp of proc(5)
_PRIVATE_DEV = ("/dev", "tmpfs", "devfs")  # as libvirt mounts it: virFileSetupDev
_ENFORCE = Path("/sys/fs/selinux/enforce")


class Layer(enum.StrEnum):
    """A part of libvirt's confinement."""

    MODULE = "security module"
    USER = "user"
    CAPABILITIES = "capabilities"
    SANDBOX = "sandbox"
    NAMESPACES = "namespaces"
    PRIVATE_DEV = "private /dev"
    GROUP = "control group"
    LIMITS = "limits"


ABOUT = {
    Layer.MODULE: "AppArmor or SELinux allows QEMU the files of its machine only",
    Layer.USER: "QEMU is not root",
    Layer.CAPABILITIES: "QEMU has no capability and can get none",
    Layer.SANDBOX: "QEMU's own seccomp filter: a list of refused system calls",
    Layer.NAMESPACES: "the host's processes, network and IPC are not there",
    Layer.PRIVATE_DEV: "/dev has the devices of the machine only",
    Layer.GROUP: "QEMU has a control group of its own",
    Layer.LIMITS: "the kernel bounds the memory of QEMU",
}
REMEDIES = {
    Layer.MODULE: "set security_driver in qemu.conf, on a kernel with AppArmor or SELinux",
    Layer.USER: "run vc as an ordinary user",
    Layer.CAPABILITIES: "run vc as an ordinary user",
    Layer.SANDBOX: "set seccomp_sandbox = 1 in qemu.conf",
    Layer.NAMESPACES: "use the hypervisor qemu, whose jail has them",
    Layer.PRIVATE_DEV: 'set namespaces = [ "mount" ] in qemu.conf of a libvirtd that is root\'s',
    Layer.GROUP: "set cgroup_controllers in qemu.conf of a libvirtd that is root's",
    Layer.LIMITS: "use the hypervisor qemu, whose jail has them",
}


@dataclass(frozen=True)
class Facts:
    """What is known of one running machine.

    Attributes:
        domain: the XML of the domain, as libvirtd reports it.
        status: status of proc(5), field to value.
        label: attr/current of proc(5), the label of the security module; empty when there is none.
        groups: cgroup of proc(5).
        mounts: mountinfo of proc(5).
        shared: namespaces that the process has in common with this one.
        is_permissive: whether SELinux only reports what it would refuse.
    """

    domain: ET.Element
    status: dict[str, str]
    label: str
    groups: str
    mounts: bytes
    shared: tuple[str, ...]
    is_permissive: bool = False

    @classmethod
    def of(cls, pid: int, domain: ET.Element) -> Facts:
        """Reads the facts of a process.

        Raises:
            OSError: it has ended, or is another user's.
        """
        own = Path(f"/proc/{pid}")
        lines = (line.partition(":") for line in (own / "status").read_text().splitlines())
        namespaces = {
            name: (own / "ns" / name).readlink() == Path("/proc/self/ns", name).readlink()
            for name in _NAMESPACES
        }
        return cls(
            domain=domain,
            status={name: value.strip() for name, _, value in lines},
            label=_label(own / "attr/current"),
            groups=(own / "cgroup").read_text(),
            mounts=(own / "mountinfo").read_bytes(),
            shared=tuple(name for name, is_shared in namespaces.items() if is_shared),
            is_permissive=_ENFORCE.exists() and _ENFORCE.read_text().strip() == "0",
        )


def of_process(pid: int, domain: ET.Element) -> VmConfinement:
    """Returns how a machine's process is confined.

    Args:
        pid: the process.
        domain: the XML of its domain, as libvirtd reports it.
    """
    try:
        facts = Facts.of(pid, domain)
    except OSError as error:
        if not Path(f"/proc/{pid}").exists():
            return VmConfinement()  # it has ended
        return VmConfinement(missing=(f"all: unknown, {error.filename}: {error.strerror}",))
    return of_facts(facts)


def of_facts(facts: Facts) -> VmConfinement:
    """Returns the layers that facts show, and a sentence on each that they do not show."""
    reasons = lacks(facts)
    return VmConfinement(
        layers=tuple(layer.value for layer in Layer if layer not in reasons),
        missing=tuple(
            f"{layer.value}: {reason}; {REMEDIES[layer]}" for layer, reason in reasons.items()
        ),
    )


def lacks(facts: Facts) -> dict[Layer, str]:
    """Returns the missing layers, each with the reason."""
    return {layer: reason for layer, reason in _reasons(facts) if reason}


def models(capabilities: ET.Element) -> tuple[str, ...]:
    """Returns the names of libvirtd's security drivers, from its capabilities."""
    return tuple(model.text or "" for model in capabilities.iterfind("host/secmodel/model"))


def _reasons(facts: Facts) -> Iterator[tuple[Layer, str]]:
    status = facts.status
    yield Layer.MODULE, _module_lack(facts)
    user = status["Uid"].split()[1]
    yield Layer.USER, "" if int(user) else "QEMU is root, whose files the pod has"
    held = int(status["CapEff"], 16).bit_count()
    is_final = status.get("NoNewPrivs") == "1"
    can_more = "" if is_final else "QEMU can get capabilities by a set-uid program"
    yield Layer.CAPABILITIES, f"QEMU has {held}" if held else can_more
    is_filtered = int(status.get("Seccomp", "0")) == _FILTERED
    yield Layer.SANDBOX, "" if is_filtered else "QEMU runs without a seccomp filter"
    shared = ", ".join(facts.shared)
    yield Layer.NAMESPACES, f"QEMU is in the host's: {shared}" if shared else ""
    yield Layer.PRIVATE_DEV, "" if _has_private_dev(facts.mounts) else "QEMU has the host's"
    is_grouped = "libvirt-qemu" in facts.groups or "machine-qemu" in facts.groups
    yield Layer.GROUP, "" if is_grouped else "QEMU is in libvirtd's"
    is_bounded = facts.domain.find("memtune/hard_limit") is not None
    yield Layer.LIMITS, "" if is_bounded else "libvirt bounds no memory of this machine"


def _module_lack(facts: Facts) -> str:
    for label in facts.domain.iterfind("seclabel"):
        model, wanted = label.get("model", ""), label.findtext("label") or ""
        if model not in _MODULES or not wanted:
            continue
        name, _, mode = facts.label.partition(" ")
        if name != wanted:
            return f"libvirt has set {wanted}, and the kernel reports {facts.label or 'none'}"
        is_lax = "complain" in mode if model == "apparmor" else facts.is_permissive
        return f"{model} reports only, and refuses nothing" if is_lax else ""
    return "libvirt has given QEMU no label of one"


def _label(file: Path) -> str:
    try:
        return file.read_text().strip("\0\n")
    except OSError as error:
        if error.filename is None:  # read(2) fails with EINVAL: the kernel has no security module
            return ""
        raise


def _has_private_dev(mounts: bytes) -> bool:
    found = mountinfo.parse(mounts)
    return any((str(one.point), one.fstype, one.source) == _PRIVATE_DEV for one in found)
