"""Reads `linux` of the runtime-spec: namespaces, limits, devices and confinement."""

from __future__ import annotations

import json
import logging
import os
import stat
from pathlib import Path

from vc_core.oci import limits
from vc_core.oci.reading import Reader
from vc_core.spec.values import Confinement, DeviceNode, HostDevice, Resources

log = logging.getLogger(__name__)

_KNOWN = (
    *(
        "namespaces",
        "devices",
        "cgroupsPath",
        "resources",
        "sysctl",
        "seccomp",
        "rootfsPropagation",
        "maskedPaths",
    ),
    *("readonlyPaths", "personality", "mountLabel"),
)
_NAMESPACES = ("pid", "mount", "ipc", "uts", "cgroup", "network")
# Changes no clock without linux.timeOffsets, which are refused; and a pod's clocks are the guest's.
_TIME = "time"
# /dev/net/tun and /dev/fuse (Documentation/admin-guide/devices.txt of Linux), which containers in a
# privileged container need. The guest's are meant.
_OF_ANY_KERNEL = {("/dev/net/tun", 10, 200), ("/dev/fuse", 10, 229)}
_PIPE = "p"
_KINDS = {"c": "char", "u": "char", "b": "block", _PIPE: ""}
_DEFAULT_MODE = 0o660


def confinement(linux: Reader) -> Confinement:
    """Read namespaces, masked paths, sysctls and the seccomp filter."""
    linux.refuse_others(_KNOWN)
    personality = linux.object("personality")
    personality.refuse_others(("domain",))
    if personality.text("domain") not in ("", "LINUX"):
        personality.refuse(
            "domain", "must be LINUX, as the guest runs programs of its own architecture only"
        )
    if linux.text("mountLabel"):
        log.warning("linux.mountLabel: has no effect, as the guest has no SELinux")
    seccomp = linux.raw("seccomp")
    masked, read_only = linux.raw("maskedPaths"), linux.raw("readonlyPaths")
    return Confinement(
        namespaces=linux.each("namespaces", _namespace),
        masked_paths=() if masked is None else linux.texts("maskedPaths"),
        readonly_paths=() if read_only is None else linux.texts("readonlyPaths"),
        sysctl=linux.pairs("sysctl"),
        # Without a profile in the bundle there is no filter, not the default one.
        seccomp=json.dumps(seccomp) if seccomp else "",
        propagation=linux.text("rootfsPropagation"),
    )


def resources(linux: Reader) -> Resources:
    """Read the limits; a negative one means no limit."""
    return limits.read(linux.object("resources"))


def devices(linux: Reader) -> tuple[tuple[HostDevice, ...], tuple[DeviceNode, ...]]:
    """Read devices; for a privileged container, for which engines list all, those of any kernel.

    Returns:
        Devices of the host, and nodes of what this host does not have.
    """
    found = linux.objects("devices")
    # What is invalid there is reported by `resources`.
    if limits.allows_all_devices(Reader(linux.raw("resources"), "", [])):
        listed, found = found, [one for one in found if _is_of_any_kernel(one)]
        if left_out := len(listed) - len(found):
            log.warning(
                "linux.devices: %d devices of the host are left out, as the container is "
                "privileged; to pass one of them, name it and leave out --privileged",
                left_out,
            )
    read = [_device(one) for one in found]
    return (
        tuple(one for one in read if isinstance(one, HostDevice)),
        tuple(one for one in read if isinstance(one, DeviceNode)),
    )


def _is_of_any_kernel(entry: Reader) -> bool:
    numbers = entry.text("path"), entry.number("major"), entry.number("minor")
    return entry.text("type") in ("c", "u") and numbers in _OF_ANY_KERNEL


def _device(entry: Reader) -> HostDevice | DeviceNode | None:
    """Read a device; None if it is invalid, which is added to the problems."""
    kind, path = entry.text("type"), entry.text("path")
    if not path:
        entry.problems.append(f"{entry.at('path')}: is missing")
        return None
    if kind not in _KINDS:
        entry.problems.append(f"{entry.at('type')}: {kind!r} is not supported; use c, u, b or p")
        return None
    mode = entry.raw("fileMode")
    permissions = _DEFAULT_MODE if mode is None else entry.number("fileMode") & 0o7777
    uid, gid = entry.number("uid"), entry.number("gid")
    if kind == _PIPE:
        return DeviceNode(path=path, kind=_PIPE, mode=permissions, uid=uid, gid=gid)
    major, minor = entry.number("major"), entry.number("minor")
    host_path = _host_path(_KINDS[kind], major, minor, path)
    if host_path is not None:
        return HostDevice(path=host_path, destination=path, mode=permissions, uid=uid, gid=gid)
    return DeviceNode(
        path=path,
        kind="b" if kind == "b" else "c",
        major=major,
        minor=minor,
        mode=permissions,
        uid=uid,
        gid=gid,
    )


def _host_path(kind: str, major: int, minor: int, path: str) -> Path | None:
    """Find the host's device node by its numbers (sysfs(5)), or at the container's path.

    Returns None when this host has no such device.
    """
    uevent = Path(f"/sys/dev/{kind}/{major}:{minor}/uevent")
    if uevent.exists():
        fields = dict(line.split("=", 1) for line in uevent.read_text().splitlines() if "=" in line)
        if name := fields.get("DEVNAME"):
            return Path("/dev") / name
    try:
        found = Path(path).stat()
    except OSError:
        return None
    is_kind = stat.S_ISBLK if kind == _KINDS["b"] else stat.S_ISCHR
    is_same = is_kind(found.st_mode) and found.st_rdev == os.makedev(major, minor)
    return Path(path) if is_same else None


def _namespace(entry: Reader) -> str | None:
    kind, path = entry.text("type"), entry.text("path")
    if kind not in (*_NAMESPACES, _TIME):
        entry.problems.append(
            f"{entry.at('type')}: the namespace {kind!r} is not supported; remove it"
        )
        return None
    if kind == _TIME:
        return None
    if path and kind not in ("network", "pid"):
        return None  # a namespace of the sandbox on the host: the pod's is the guest's own
    return kind


def joined(linux: Reader) -> dict[str, str]:
    """Read the paths of namespaces of this host that are to be joined, by their kinds."""
    entries = linux.objects("namespaces")
    return {one.text("type"): one.text("path") for one in entries if one.text("path")}
