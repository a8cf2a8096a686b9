"""A container's root file system: a drive that the guest mounts by itself where that can be, else a shared folder."""

from __future__ import annotations

from vc_core.engine import blocks, devices, shares
from vc_core.engine.records import BlockRootfs
from vc_core.engine.session import Session
from vc_core.spec.values import ContainerSpec, GuestRootfs, HostDevice, RootfsMode


async def acquire(session: Session, spec: ContainerSpec) -> tuple[GuestRootfs, BlockRootfs | None]:
    """Makes sure that the root file system is in the machine, in use by the container. Undone by `release`."""
    block = blocks.chosen(spec, session.capabilities, session.config.disable_block_device_use)
    if block is None:
        return GuestRootfs(await shares.acquire(session, shares.of_rootfs(spec), spec.id)), None
    blocks.settle(block)
    device = HostDevice(block.device, "", spec.rootfs.mode is not RootfsMode.READ_WRITE)
    plugged = (await devices.acquire(session, device, spec.id)).plugged[0]
    found = BlockRootfs(block.device, block.fstype, plugged.address)
    return GuestRootfs(plugged, block.fstype, block.subpath), found


async def release(session: Session, container_id: str) -> None:
    """Takes the container's folders, drives and other devices out of the machine. May be called twice."""
    await devices.release(session, container_id)
    await shares.release(session, container_id)


def check(spec: ContainerSpec) -> None:
    """Refuses what cannot be a root file system, before anything is done."""
    shares.check_rootfs(spec)
    if not spec.rootfs.path.is_dir():
        blocks.of(spec.rootfs)
