"""Reads `mounts` of the runtime-spec."""

from __future__ import annotations

import posixpath
from pathlib import Path

from vc_core.oci.reading import Reader
from vc_core.spec.values import Mount, MountKind

_KNOWN = ("destination", "type", "source", "options")
_BINDS = ("bind", "rbind")
_KINDS = {
    "tmpfs": MountKind.TMPFS,
    "proc": MountKind.PROC,
    "sysfs": MountKind.SYSFS,
    "devpts": MountKind.DEVPTS,
    "mqueue": MountKind.MQUEUE,
    "cgroup": MountKind.CGROUP,
    "cgroup2": MountKind.CGROUP,
}


def read(mount: Reader, bundle: Path) -> Mount | None:
    """Read a mount; None if it is not supported, which is added to the problems."""
    mount.refuse_others(_KNOWN)
    kind, options = mount.text("type"), mount.texts("options")
    destination = _absolute(mount.text("destination"))
    # All that is included is read-only in both cases, on the host as well.
    is_read_only = "ro" in options or "rro" in options
    others = tuple(option for option in options if option not in (*_BINDS, "ro", "rro", "rw"))
    if kind in _BINDS or any(option in _BINDS for option in options):
        source = bundle / mount.text("source")  # an absolute one stays as it is
        is_recursive = "rbind" in (kind, *options)
        return Mount(
            source=source,
            destination=destination,
            read_only=is_read_only,
            kind=MountKind.BIND,
            options=others,
            recursive=is_recursive,
        )
    if kind not in _KINDS:
        mount.problems.append(
            f"{mount.at('type')}: {kind!r} is not supported (on {destination}); use bind or tmpfs"
        )
        return None
    return Mount(
        source=Path(kind),
        destination=destination,
        read_only=is_read_only,
        kind=_KINDS[kind],
        options=others,
    )


def _absolute(destination: str) -> str:
    """Make a destination absolute; before version 1.1 it could be relative to the root."""
    return posixpath.normpath(f"/{destination}").replace("//", "/") if destination else ""
