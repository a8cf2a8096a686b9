"""The runtime-spec's `linux`: namespaces, limits, devices and what confines a container."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from vc_core.oci import limits
from vc_core.oci.reading import Reader
from vc_core.spec.values import Confinement, HostDevice, Resources

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
_KINDS = {"c": "char", "u": "char", "b": "block"}


def confinement(linux: Reader) -> Confinement:
    """What keeps the container in."""
    linux.refuse_others(_KNOWN)
    personality = linux.object("personality")
    personality.refuse_others(("domain",))
    if personality.text("domain") not in ("", "LINUX"):
        personality.refuse(
            "domain", "programs of the guest's own architecture run there; LINUX says so"
        )
    if linux.text("mountLabel"):
        log.warning(
            "linux.mountLabel: the guest has no SELinux; the machine keeps the container from this host"
        )
    seccomp = linux.raw("seccomp")
    masked, read_only = linux.raw("maskedPaths"), linux.raw("readonlyPaths")
    return Confinement(
        namespaces=linux.each("namespaces", _namespace),
        masked_paths=() if masked is None else linux.texts("maskedPaths"),
        readonly_paths=() if read_only is None else linux.texts("readonlyPaths"),
        sysctl=linux.pairs("sysctl"),
        seccomp=json.dumps(seccomp)
        if seccomp
        else "",  # a bundle says all of it: none is no filter
        propagation=linux.text("rootfsPropagation"),
    )


def resources(linux: Reader) -> Resources:
    """Limits; negative ones are none."""
    return limits.read(linux.object("resources"))


def device(found: Reader) -> HostDevice | None:
    """A device; None for one that cannot be, which the problems say."""
    kind, path = found.text("type"), found.text("path")
    if not path:
        found.problems.append(f"{found.at('path')}: is missing")
        return None
    if kind not in _KINDS:
        found.problems.append(
            f"{found.at('type')}: {kind!r} cannot be passed into a machine; c, u and b can be tried"
        )
        return None
    mode = found.raw("fileMode")
    return HostDevice(
        _host_path(_KINDS[kind], found.number("major"), found.number("minor"), path),
        path,
        mode=0o660 if mode is None else found.number("fileMode") & 0o7777,
        uid=found.number("uid"),
        gid=found.number("gid"),
    )


def _host_path(kind: str, major: int, minor: int, path: str) -> Path:
    """The host's node with these numbers, by sysfs(5); the path in the container where the host has none."""
    uevent = Path(f"/sys/dev/{kind}/{major}:{minor}/uevent")
    if uevent.exists():
        fields = dict(line.split("=", 1) for line in uevent.read_text().splitlines() if "=" in line)
        if name := fields.get("DEVNAME"):
            return Path("/dev") / name
    return Path(path)


def _namespace(found: Reader) -> str | None:
    kind, path = found.text("type"), found.text("path")
    if kind not in _NAMESPACES:
        found.problems.append(f"{found.at('type')}: the namespace {kind!r} cannot be honoured")
        return None
    if not path:
        return kind
    if kind == "network":
        log.warning("%s: %s is not joined: pods have no network of the host's", found.path, path)
        return kind
    if kind == "pid":
        log.warning(
            "%s: %s is not joined: whether pids are shared is an option of the pod",
            found.path,
            path,
        )
        return kind
    return None  # of the sandbox on the host: here the guest's own is the pod's
