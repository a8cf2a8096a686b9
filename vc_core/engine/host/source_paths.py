"""Paths of the host that a container names: resolved when it is created, and without links later.

A container can replace what it can write: for example a folder by a link to a file of the host,
which the next start would follow.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

from vc_core.engine.host import mount_calls
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import ContainerSpec, MountKind

# Names of devices, given by the host's kernel and udev. They are links whose targets change with a
# reboot, and no container can write there.
_OF_DEVICES = (Path("/dev"), Path("/sys"))


def resolved(path: Path) -> Path:
    """Resolves a path to its current target, which the container has from now on.

    Names of devices stay unresolved.
    """
    return path if _names_device(path) else path.resolve()


def opened_plainly(path: Path) -> int:
    """Opens a resolved path; returns a descriptor.

    Raises:
        InvalidRequest: something in the path is a link by now, or does not exist any more.
    """
    try:
        return mount_calls.open_plain(path)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise InvalidRequest(
                f"{path} is not what it was when the container was created: "
                "part of the path is a link or not a directory; "
                "restore it, or delete the container and create it again"
            ) from error
        raise InvalidRequest(
            f"{path} cannot be opened: {error.strerror}; "
            "put it back, or delete the container and create it again"
        ) from error


def check(spec: ContainerSpec) -> None:
    """Refuses a container if one of its paths was replaced by a link since it was created.

    Raises:
        InvalidRequest: naming the path.
    """
    for path in _of(spec):
        if not _names_device(path):
            with mount_calls.opened(opened_plainly(path)):
                pass


def _of(spec: ContainerSpec) -> Iterator[Path]:
    yield spec.rootfs.path
    yield from (mount.source for mount in spec.mounts if mount.kind is MountKind.BIND)
    yield from (device.path for device in spec.devices)


def _names_device(path: Path) -> bool:
    return any(folder in path.parents for folder in _OF_DEVICES)
