"""Reads a caller's bundle, and adapts to a machine what it says about this host.

The keys of config.json are those of https://github.com/opencontainers/runtime-spec.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from vc_core import oci
from vc_core.oci.annotations import ContainerType
from vc_core.spec import ContainerSpec, Mount, MountKind, PodOptions, Reserved, Stdio
from vc_runtime import sandbox_size
from vc_runtime.errors import RuntimeFailure

_SHM = "/dev/shm"
_SIZES = {"k": 10, "m": 20, "g": 30}
_DEFAULT_SHM_BYTES = 64 << 20


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A bundle, as it is run in a machine.

    Attributes:
        container: the container, with its streams as pipes for the stand-in.
        options: those of a new pod for it.
        sandbox: the caller's id of the container whose pod it joins; empty for a pod of its own.
        groups: `linux.cgroupsPath`.
        network: the network of a new pod, as for `Runtime.create`.
        joined: paths of the namespaces that it joins, by their kinds.
    """

    container: ContainerSpec
    options: PodOptions
    sandbox: str
    groups: str
    network: str
    joined: dict[str, str]


def read(folder: Path, container_id: str, asset_paths: tuple[str, ...]) -> Bundle:
    """Reads a bundle.

    Raises:
        RuntimeFailure: it asks for something of this host that a machine cannot have.
        VcError: as `vc_core.oci.load`.
    """
    loaded = oci.load(folder, container_id, Stdio.PIPES, asset_paths)
    document: Mapping[str, Any] = msgspec.json.decode((folder / "config.json").read_bytes())
    linux = document.get("linux") or {}
    spec = loaded.container
    joined = dict(loaded.joined)
    network = _network(spec.confinement.namespaces or (), joined.get("network", ""))
    shm = next((one for one in spec.mounts if one.destination == _SHM), None)
    confinement = spec.confinement
    # Containers of a pod share its network, which is that of the machine, and its ipc namespace,
    # which is the guest's: a sandbox sets sysctls for all of them. Those of a network are set by
    # each container that has some, as by runc in a namespace that is joined.
    of_pod = ("network", "ipc") if loaded.kind is ContainerType.SANDBOX else ("network",)
    confinement = structs.replace(
        confinement,
        namespaces=tuple(one for one in confinement.namespaces or () if one not in of_pod),
    )
    is_member = loaded.kind is ContainerType.CONTAINER
    if is_member and not loaded.sandbox_id:
        raise RuntimeFailure("the bundle is a container of a pod, and names no sandbox id")
    return Bundle(
        container=structs.replace(
            spec,
            mounts=tuple(_of_guest(one) if one is shm else one for one in spec.mounts),
            confinement=confinement,
        ),
        options=PodOptions(
            shared_shm_bytes=0 if shm is None else _shm_bytes(shm),
            reserved=Reserved() if is_member else sandbox_size.read(dict(spec.annotations)),
        ),
        sandbox=loaded.sandbox_id if is_member else "",
        groups=linux.get("cgroupsPath") or "",
        network=network,
        joined=joined,
    )


def _network(kinds: tuple[str, ...], path: str) -> str:
    """Returns the network of a pod with these namespaces, of which the network's has a path."""
    if "network" not in kinds:
        raise RuntimeFailure(
            "the host's network cannot be that of a machine; use a network of its own "
            "(podman: --network none or a bridge)"
        )
    if not path:
        return "none"
    return f"ns:{path if path.startswith('/proc/') else Path(path).resolve()}"


def _of_guest(shm: Mount) -> Mount:
    """Returns a mount in whose place the guest mounts what the pod shares."""
    return structs.replace(shm, source=Path("tmpfs"), kind=MountKind.TMPFS)


def _shm_bytes(mount: Mount) -> int:
    """Returns the size of a /dev/shm, which the guest makes: shared memory is not shared by 9p."""
    if mount.kind is MountKind.BIND:
        found = os.statvfs(mount.source)
        return found.f_blocks * found.f_frsize
    size = next((word[5:] for word in mount.options if word.startswith("size=")), "")
    number, unit = (size[:-1], size[-1:].lower()) if size[-1:].isalpha() else (size, "")
    if not number.isdecimal() or unit not in ("", *_SIZES):
        return _DEFAULT_SHM_BYTES
    return int(number) << _SIZES.get(unit, 0)
