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
        name, Rootfs(Path(rootfs)), ProcessSpec(args or ("sleep",)), mounts, stdio, **more
    )
