"""The layers of the jail, and those that this host lacks."""

from __future__ import annotations

import enum

from msgspec import Struct


class JailMode(enum.StrEnum):
    """Whether machines run in a jail."""

    AUTO = "auto"  # every layer that this host has
    STRICT = "strict"  # all layers, or no start
    OFF = "off"


class Layer(enum.StrEnum):
    """A mechanism that confines a machine's process; each works by itself."""

    NAMESPACES = "namespaces"
    ROOT = "root"
    CAPABILITIES = "capabilities"
    SECCOMP = "seccomp"
    LIMITS = "limits"
    TEMPLATE = "template"


ABOUT = {
    Layer.NAMESPACES: "no other process, network, mount or IPC of the host is there",
    Layer.ROOT: "the file system has QEMU's own files and the pod's, and nothing else",
    Layer.CAPABILITIES: "no capability but those over files (root), none (others); no_new_privs",
    Layer.SECCOMP: "only calls that QEMU needs: no new socket, program, mount, no signal to others",
    Layer.LIMITS: "memory, threads, open files and core dumps are bounded by the kernel",
    Layer.TEMPLATE: "the memory that clones share is open for reading only",
}


class Missing(Struct, frozen=True):
    """A layer that this host lacks.

    Attributes:
        layer: the layer.
        reason: the error of the kernel or libseccomp.
        remedy: what to do.
    """

    layer: Layer
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.layer.value}: {self.reason}; {self.remedy}"


REMEDIES = {
    Layer.NAMESPACES: "run as root, or allow user namespaces (sysctl user.max_user_namespaces,"
    " kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns)",
    Layer.ROOT: "use Linux 5.12 or newer, and a root that is a mount",
    Layer.CAPABILITIES: "run as root with CAP_SETPCAP, or as an ordinary user",
    Layer.SECCOMP: "use a kernel with CONFIG_SECCOMP_FILTER and install the package libseccomp2",
    Layer.LIMITS: "mount the memory and pids controllers of control groups writable",
    Layer.TEMPLATE: "use QEMU 8.2 or newer, or start with --start cold",
}
