"""Containers for tests."""

from __future__ import annotations

from pathlib import Path

from vc_core.spec import ContainerSpec, Mount, ProcessSpec, Rootfs, Stdio


def container(
    name: str = "c1",
    *args: str,
    rootfs: str = "/usr",
    mounts: tuple[Mount, ...] = (),
    stdio=Stdio.NULL,
    **more,
):
    return ContainerSpec(
        id=name,
        rootfs=Rootfs(path=Path(rootfs)),
        process=ProcessSpec(args=args or ("sleep",)),
        mounts=mounts,
        stdio=stdio,
        **more,
    )
