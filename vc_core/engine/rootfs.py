"""A container's root file system: a drive that the guest mounts by itself where that can be, else a shared folder."""

from __future__ import annotations

from vc_core.engine import blocks, devices, shares
from vc_core.engine.records import BlockRootfs
from vc_core.engine.session import Session
from vc_core.spec.values import ContainerSpec, GuestRootfs, HostDevice, RootfsMode, Share


async def block_of(session: Session, spec: ContainerSpec) -> blocks.Block | None:
    """What the guest is to mount by itself; None for a folder that is shared, also where no plugin passes disks.

    Raises:
        InvalidRequest: it is an image or a device, and that cannot be.
    """
    block = blocks.chosen(spec, session.capabilities, session.config.disable_block_device_use)
    if block is None or not spec.rootfs.path.is_dir():
        return block
    claims = [await hooks.device_claims(pod=session.pod, device=_drive(block, spec)) for _, hooks in session.devices]
    return block if any(claims) else None


async def acquire(session: Session, spec: ContainerSpec) -> tuple[GuestRootfs, BlockRootfs | None]:
    """Makes sure that the root file system is in the machine, in use by the container. Undone by `release`."""
    block = await block_of(session, spec)
    if block is None:
        return GuestRootfs(await shares.acquire(session, shares.of_rootfs(spec), spec.id)), None
    blocks.settle(block)
    plugged = (await devices.acquire(session, _drive(block, spec), spec.id)).plugged[0]
    found = BlockRootfs(block.device, block.fstype, plugged.address)
    return GuestRootfs(plugged, block.fstype, block.subpath), found


async def wanted(session: Session, spec: ContainerSpec) -> list[Share]:
    """The shares that a container needs. Tags are not given yet."""
    root = [shares.of_rootfs(spec)] if await block_of(session, spec) is None else []
    return list(dict.fromkeys((*root, *shares.of_mounts(session, spec))))


async def release(session: Session, container_id: str) -> None:
    """Takes the container's folders, drives and other devices out of the machine. May be called twice."""
    await devices.release(session, container_id)
    await shares.release(session, container_id)


def check(spec: ContainerSpec) -> None:
    """Refuses what cannot be a root file system, before anything is done."""
    shares.check_rootfs(spec)
    if not spec.rootfs.path.is_dir():
        blocks.of(spec.rootfs)


def _drive(block: blocks.Block, spec: ContainerSpec) -> HostDevice:
    return HostDevice(block.device, "", spec.rootfs.mode is not RootfsMode.READ_WRITE)
