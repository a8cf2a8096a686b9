"""Rules for the mounts of a container.

Nothing is dropped silently: a mount is made, made with a warning, or refused.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from msgspec import structs

from vc_core.driver_kit import mountinfo
from vc_core.engine.host import source_paths
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Mount, MountKind

log = logging.getLogger(__name__)

_DEV = Path("/dev")
_KERNELS = (Path("/proc"), Path("/sys"))


def checked(mount: Mount) -> Mount:
    """Returns the mount as it will be made, with its source resolved.

    Raises:
        InvalidRequest: naming the path and what is wrong with it.
    """
    if not mount.destination.startswith("/") or ".." in Path(mount.destination).parts:
        raise InvalidRequest(
            f"the mount destination {mount.destination!r} must be an absolute path in the container"
        )
    if mount.destination.rstrip("/") == "":
        raise InvalidRequest(
            "a mount on / would hide the root file system; give another rootfs instead"
        )
    if mount.copy_up and (mount.kind is not MountKind.BIND or mount.read_only):
        raise InvalidRequest(
            f"copy_up of {mount.destination} needs a directory of the host that can be written"
        )
    if mount.kind is not MountKind.BIND:
        return mount
    if not mount.source.is_absolute() or not mount.source.exists():
        raise InvalidRequest(
            f"the mount source {mount.source} does not exist on this host; give an absolute path"
        )
    return _of_host(mount, source_paths.resolved(mount.source))


def in_order(is_ours: bool, wanted: tuple[Mount, ...]) -> tuple[Mount, ...]:
    """Returns mounts in the order in which they are made: outer ones first, as other engines do.

    Otherwise inner ones would be hidden. The mounts of a bundle keep their order (runtime-spec,
    config.md: "in the listed order").

    Args:
        is_ours: whether the order may be changed.
        wanted: the mounts in their given order.
    """
    return (
        tuple(sorted(wanted, key=lambda one: len(Path(one.destination).parts)))
        if is_ours
        else wanted
    )


def _of_host(mount: Mount, real: Path) -> Mount:
    if real == _DEV:
        if Path(mount.destination) != _DEV:
            raise InvalidRequest(
                "/dev can only be mounted on /dev, and is the guest's; pass single devices instead"
            )
        log.warning(
            "the container gets the guest's /dev; devices of this host are passed one by one"
        )
        return structs.replace(mount, kind=MountKind.GUEST, source=_DEV)
    for folder in _KERNELS:
        if folder in (real, *real.parents):
            if Path(mount.destination) != mount.source:
                raise InvalidRequest(
                    f"{mount.source} is made by this host's kernel and cannot be shown at "
                    f"{mount.destination}; "
                    f"the guest has its own {mount.source}, mounted there or not at all"
                )
            log.warning("the container gets the guest's own %s, not this host's", mount.source)
            return structs.replace(mount, kind=MountKind.GUEST)
    if real.is_block_device() or real.is_char_device():
        raise InvalidRequest(
            f"{mount.source} is a device; pass it as one (--device), not as a mount"
        )
    if real.is_socket() or real.is_fifo():
        raise InvalidRequest(
            f"{mount.source} is a socket or pipe, which does not reach into another machine"
        )
    if not real.is_dir() and os.geteuid() != 0:
        raise InvalidRequest(
            f"only root can mount the single file {mount.source}; "
            f"mount its directory {mount.source.parent} instead"
        )
    if not mount.recursive and os.geteuid() != 0 and (inner := mountinfo.below(real)):
        raise InvalidRequest(
            f"only root can leave out what is mounted below {mount.source} ({inner[0].point}); "
            "mount it recursively (rbind)"
        )
    return structs.replace(mount, source=real)
