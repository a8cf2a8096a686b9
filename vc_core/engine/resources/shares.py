"""Folders of the host in the machine: those that a container needs, and the users of each.

Containers with the same folder share one device. For root, each source is bound into a folder of
the pod that is a share itself; for other users, each folder is a share of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import structs

from vc_core.engine.host import bind_mounts
from vc_core.engine.resources import root_folders
from vc_core.engine.session.session import Session
from vc_core.engine.state.records import PluggedShare
from vc_core.engine.state.rollback import Rollback
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import (
    Capability,
    ContainerSpec,
    GuestDriver,
    GuestMount,
    Mount,
    MountKind,
    Plugged,
    RootfsMode,
    Share,
)

_NOT_YET = Plugged(id="", driver=GuestDriver.NINE_P, address="")  # until the machine has the share


def check_rootfs(spec: ContainerSpec) -> None:
    """Refuses a root file system that does not exist, before anything is done.

    Raises:
        InvalidRequest: naming the path and what is wrong with it.
    """
    root = spec.rootfs.path
    is_there = root.is_dir() or root.is_file() or root.is_block_device()
    if not root.is_absolute() or not is_there:
        raise InvalidRequest(
            f"the rootfs {root} is not a directory, image or block device on this host; "
            "give an absolute path, or / for the host's own"
        )
    if not os.access(root, os.R_OK | (os.X_OK if root.is_dir() else 0)):
        raise InvalidRequest(f"the rootfs {root} cannot be read by this user")


def of_rootfs(session: Session, spec: ContainerSpec) -> Share:
    """Returns the share of a root file system that is a folder.

    For root this is the bind of the folder, otherwise the folder itself.
    """
    path = (
        session.roots_folder / root_folders.name(spec.rootfs)
        if os.geteuid() == 0
        else spec.rootfs.path
    )
    return Share(tag="", path=path, read_only=spec.rootfs.mode is not RootfsMode.READ_WRITE)


def of_mounts(session: Session, spec: ContainerSpec) -> list[Share]:
    """Returns the shares of all mounts of a container with a source on the host."""
    return [of_mount(session, mount) for mount in spec.mounts if mount.kind is MountKind.BIND]


def of_mount(session: Session, mount: Mount) -> Share:
    """Returns the share of a mount.

    For root this is one share of the pod for everything that can be bound, otherwise the folder's
    own share.
    """
    if os.geteuid() == 0:
        return Share(tag="", path=session.files_folder, read_only=False)
    return Share(tag="", path=mount.source, read_only=mount.read_only)


def assign(wanted: Mapping[str, list[Share]]) -> list[PluggedShare]:
    """Assigns tags to the shares of containers that are created with the machine, by container.

    Nothing is plugged yet.
    """
    users: dict[Share, list[str]] = {}
    for container_id, shares in wanted.items():
        for share in shares:
            users.setdefault(share, []).append(container_id)
    return [
        PluggedShare(structs.replace(share, tag=f"vc{number}"), _NOT_YET, tuple(ids))
        for number, (share, ids) in enumerate(users.items())
    ]


def of_boot(session: Session, wanted: list[PluggedShare]) -> list[PluggedShare]:
    """Returns the shares of a machine that boots.

    These are the required ones and, where no share can be plugged later, the one for root's binds.
    """
    files = Share(tag=f"vc{len(wanted)}", path=session.files_folder, read_only=False)
    has_it = any(one.share.path == session.files_folder for one in wanted)
    if has_it or os.geteuid() != 0 or Capability.SHARE_PLUG in session.capabilities:
        return wanted
    return [*wanted, PluggedShare(files, _NOT_YET, ())]


def of_clone(
    session: Session, wanted: list[PluggedShare], tags: tuple[str, str]
) -> list[PluggedShare]:
    """Returns the shares of a clone, which are as many as those of its template.

    These are a root file system, and root's binds or one more folder. The others are plugged when
    their containers are created.
    """
    nothing = Share(tag="", path=session.nothing_folder, read_only=True)
    nothing.path.mkdir(mode=0o700, exist_ok=True)
    free = [one for one in wanted if one.share.path != session.files_folder]
    files = next((one for one in wanted if one not in free), None)
    empty = PluggedShare(nothing, _NOT_YET, ())
    first = free[0] if free else empty
    second = free[1] if len(free) > 1 else empty
    if os.geteuid() == 0:
        second = files or structs.replace(
            empty, share=Share(tag="", path=session.files_folder, read_only=False)
        )
    pairs = zip((first, second), tags, strict=True)
    return [structs.replace(one, share=structs.replace(one.share, tag=tag)) for one, tag in pairs]


def find(session: Session, share: Share) -> PluggedShare | None:
    """Returns the device that has this folder already."""
    for held in session.state.shares:
        if structs.replace(held.share, tag="") == share:
            return held
    return None


async def acquire_root(
    session: Session, spec: ContainerSpec, hidden: tuple[Path, ...]
) -> tuple[Plugged, str]:
    """Like `acquire`, for a root file system.

    Also returns the name of the bind by root, if the root file system gets no share of its own
    any more.
    """
    share = of_rootfs(session, spec)
    is_there = find(session, share) is not None
    if os.geteuid() != 0:
        return await acquire(session, share, spec.id), ""
    if is_there or Capability.SHARE_PLUG in session.capabilities:
        root_folders.show(session, spec.rootfs, hidden)
        try:
            return await acquire(session, share, spec.id), ""
        except BaseException:
            if not is_there:
                bind_mounts.remove(session.roots_folder, share.path.name)
            raise
    files = Share(tag="", path=session.files_folder, read_only=False)
    name = root_folders.bind(session, spec.rootfs, files.path, hidden)
    return await _acquire_bound(session, files, spec.id, name), name


async def acquire(session: Session, share: Share, container_id: str) -> Plugged:
    """Adds the folder to the machine if necessary, and the container to its users."""
    held = find(session, share)
    if held is not None:
        await _put(session, held, structs.replace(held, users=(*{*held.users, container_id},)))
        return held.plugged
    if Capability.SHARE_PLUG not in session.capabilities:
        raise InvalidRequest(
            f"the hypervisor cannot add {share.path} to a running pod; "
            "create the container before the pod starts"
        )
    taken = {other.share.tag for other in session.state.shares}
    tag = next(f"vc{number}" for number in range(len(taken) + 1) if f"vc{number}" not in taken)
    plugged = await session.hooks.vm_plug(pod=session.pod, device=structs.replace(share, tag=tag))
    async with Rollback() as rollback:
        rollback.push(session.hooks.vm_unplug, pod=session.pod, plugged=plugged)
        await session.put_driver_state()
        held = PluggedShare(structs.replace(share, tag=tag), plugged, (container_id,))
        await _put(session, None, held)
    return plugged


async def release(session: Session, container_id: str) -> None:
    """Removes the container from the users of all shares.

    A share without users is removed from the machine, if that is possible.
    """
    for held in session.state.shares:
        if container_id not in held.users:
            continue
        users = tuple(user for user in held.users if user != container_id)
        if users or held.plugged.is_fixed:
            await _put(session, held, structs.replace(held, users=users))
        else:
            await session.hooks.vm_unplug(pod=session.pod, plugged=held.plugged)
            await session.put_driver_state()
            await _put(session, held, None)
            if held.share.path.parent == session.roots_folder:
                bind_mounts.remove(session.roots_folder, held.share.path.name)


async def mount(
    session: Session, spec: ContainerSpec, mount: Mount, hidden: tuple[Path, ...]
) -> GuestMount:
    """Makes the source of one mount accessible to the guest."""
    if mount.kind is not MountKind.BIND:
        return GuestMount(mount=mount)
    share = of_mount(session, mount)
    is_bound = share.path == session.files_folder
    name = bind(session, mount, hidden) if is_bound else ""
    return GuestMount(
        mount=mount, plugged=await _acquire_bound(session, share, spec.id, name), subpath=name
    )


def bind(session: Session, mount: Mount, hidden: tuple[Path, ...], name: str = "") -> str:
    """Binds a mount's source into the pod's folder; returns its name there.

    The name is generated if not given. Folders of `hidden` below the source are covered.
    """
    return bind_mounts.add(
        mount.source, session.files_folder, mount.read_only, mount.recursive, name, hidden
    )


async def _acquire_bound(session: Session, share: Share, container_id: str, name: str) -> Plugged:
    try:
        return await acquire(session, share, container_id)
    except BaseException:
        bind_mounts.remove(share.path, name)
        raise


async def unbind(session: Session, mounts: tuple[GuestMount, ...]) -> None:
    """Removes the binds of a container. May be called twice."""
    for one in reversed(mounts):
        if one.subpath:
            bind_mounts.remove(session.files_folder, one.subpath)


async def _put(session: Session, old: PluggedShare | None, new: PluggedShare | None) -> None:
    """Replaces a share in its place.

    A machine that starts from this one's saved state finds its shares by their order, too.
    """
    shares = [new if held is old else held for held in session.state.shares]
    if old is None:
        shares.append(new)
    await session.put_state(structs.replace(session.state, shares=tuple(filter(None, shares))))
