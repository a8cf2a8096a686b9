"""A container's root file system: a drive where possible, or else a shared folder."""

from __future__ import annotations

from msgspec import Struct

from vc_core.engine.host import block_rootfs
from vc_core.engine.host.container_disks import ContainerDisks
from vc_core.engine.resources import devices, root_folders, shares
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.session.session import Session
from vc_core.engine.state.records import BlockRootfs
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import (
    ContainerSpec,
    GuestMount,
    GuestRootfs,
    HostDevice,
    Mount,
    Plugged,
    RootfsMode,
    Share,
)


async def block_of(session: Session, spec: ContainerSpec) -> block_rootfs.Block | None:
    """Returns the block device or image that the guest mounts by itself.

    Returns None for a folder that is shared, also if no plugin passes disks.

    Raises:
        InvalidRequest: it is an unusable image or device.
    """
    block = block_rootfs.chosen(spec, session.capabilities, session.config.disable_block_device_use)
    if block is None or not spec.rootfs.path.is_dir():
        return block
    claims = [
        await hooks.device_claims(pod=session.pod, device=_drive(block, spec))
        for _, hooks in session.devices
    ]
    return block if any(claims) else None


class Acquired(Struct, frozen=True):
    """A root file system that is in the machine.

    Attributes:
        guest: the root file system as passed to the agent.
        block: the block device or image, when it is a drive.
        bound: the bind for it, when it is a folder in a share of many.
    """

    guest: GuestRootfs
    block: BlockRootfs | None = None
    bound: tuple[GuestMount, ...] = ()


async def acquire(session: Session, host: HostFiles, spec: ContainerSpec) -> Acquired:
    """Adds the root file system to the machine if necessary, and the container to its users.

    Undone by `release`, and by `shares.unbind` of its binds.
    """
    upper = await _upper(session, host.disks, spec)
    block = await block_of(session, spec)
    if block is None:
        plugged, name = await shares.acquire_root(session, spec, host.hidden)
        is_read_only = spec.rootfs.mode is not RootfsMode.READ_WRITE
        bound = (
            (
                GuestMount(
                    mount=Mount(source=spec.rootfs.path, destination="/", read_only=is_read_only),
                    plugged=plugged,
                    subpath=name,
                ),
            )
            if name
            else ()
        )
        return Acquired(GuestRootfs(plugged=plugged, subpath=name, upper=upper), bound=bound)
    await host.images.verify(spec.rootfs.path)
    block_rootfs.flush(block)
    plugged = (await devices.acquire(session, _drive(block, spec), spec.id)).plugged[0]
    found = BlockRootfs(block.device, block.fstype, plugged.address)
    return Acquired(
        GuestRootfs(plugged=plugged, fstype=block.fstype, subpath=block.subpath, upper=upper), found
    )


async def _upper(session: Session, disks: ContainerDisks, spec: ContainerSpec) -> Plugged | None:
    if not spec.rootfs.disk_bytes:
        return None
    disk = await disks.make_disk(session.pod.id, spec.id, spec.rootfs.disk_bytes)
    return (await devices.acquire(session, HostDevice(path=disk, destination=""), spec.id)).plugged[
        0
    ]


async def wanted(session: Session, spec: ContainerSpec) -> list[Share]:
    """Returns the shares that a container needs, without tags."""
    root = [shares.of_rootfs(session, spec)] if await block_of(session, spec) is None else []
    return list(dict.fromkeys((*root, *shares.of_mounts(session, spec))))


async def release(session: Session, container_id: str) -> None:
    """Removes the container's folders, drives and other devices from the machine.

    May be called twice.
    """
    await devices.release(session, container_id)
    await shares.release(session, container_id)


def check(spec: ContainerSpec) -> None:
    """Refuses an invalid root file system before anything is done."""
    shares.check_rootfs(spec)
    root_folders.check(spec.rootfs)
    if spec.rootfs.disk_bytes < 0 or (
        spec.rootfs.disk_bytes and spec.rootfs.mode is not RootfsMode.OVERLAY
    ):
        raise InvalidRequest(
            "a disk needs a root file system without :rw and :ro; remove the disk or the mode"
        )
    if not spec.rootfs.path.is_dir():
        block_rootfs.of(spec.rootfs)


def _drive(block: block_rootfs.Block, spec: ContainerSpec) -> HostDevice:
    return HostDevice(
        path=block.device, destination="", read_only=spec.rootfs.mode is not RootfsMode.READ_WRITE
    )
