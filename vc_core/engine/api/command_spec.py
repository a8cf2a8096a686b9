"""Builds the specification of a container from the arguments of `Pod.run` and `Pod.launch`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

from msgspec import structs

from vc_core.images import Image
from vc_core.spec.values import (
    DEFAULT_PATH,
    ContainerSpec,
    HostDevice,
    Mount,
    ProcessSpec,
    Resources,
    Rootfs,
    Stdio,
)


class CommandOptions(TypedDict):
    """The arguments that both have in common; `Pod.launch` documents them."""

    env: Sequence[str]
    cwd: str
    user: str
    mounts: Sequence[Mount]
    devices: Sequence[HostDevice]
    resources: Resources


def command_spec(
    container_id: str,
    args: Sequence[str],
    image: Image | None,
    rootfs: str | Path,
    stdio: Stdio,
    options: CommandOptions,
    show_secrets: bool = False,
) -> ContainerSpec:
    """Returns the specification of a container; the image provides the defaults of empty values.

    Without an image the root is a folder of the host, or the host's own root.
    """
    first = (
        ProcessSpec(args=tuple(args), env=(DEFAULT_PATH,)) if image is None else image.process(args)
    )
    process = structs.replace(
        first,
        env=(*first.env, *options["env"]),
        cwd=options["cwd"] or first.cwd,
        user=options["user"] or first.user,
    )
    spec = ContainerSpec(
        id=container_id,
        rootfs=Rootfs(path=Path(rootfs or "/"), show_secrets=show_secrets),
        process=process,
        mounts=tuple(options["mounts"]),
        stdio=stdio,
        devices=tuple(options["devices"]),
        resources=options["resources"],
    )
    return spec if image is None else image.container(spec)
