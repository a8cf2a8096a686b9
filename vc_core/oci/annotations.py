"""Reads the annotations of CRI runtimes and of Kata Containers."""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Iterable, Mapping
from pathlib import Path

from vc_core.engine.state.boot_assets import Asset, Assets


class ContainerType(enum.StrEnum):
    """The role of a bundle in its pod."""

    SANDBOX = "sandbox"  # creates the pod
    CONTAINER = "container"  # joins a pod


# Keys of containerd's CRI plugin, CRI-O and dockershim.
_TYPE_KEYS = (
    "io.kubernetes.cri.container-type",
    "io.kubernetes.cri-o.ContainerType",
    "io.kubernetes.docker.type",
)
_TYPES = {
    "sandbox": ContainerType.SANDBOX,
    "podsandbox": ContainerType.SANDBOX,
    "container": ContainerType.CONTAINER,
}
_SANDBOX_KEYS = (
    "io.kubernetes.cri.sandbox-id",
    "io.kubernetes.cri-o.SandboxID",
    "io.kubernetes.sandbox.id",
)

_VIRTCONTAINERS = "com.github.containers.virtcontainers."
_KATA = "io.katacontainers.config.hypervisor."
# Keys of the path and the SHA-512 of each asset; the guest image is an initrd here.
_ASSETS = {
    "kernel": [
        (f"{_VIRTCONTAINERS}KernelPath", f"{_VIRTCONTAINERS}KernelHash"),
        (f"{_KATA}kernel", f"{_KATA}kernel_hash"),
    ],
    "image": [
        (f"{_VIRTCONTAINERS}ImagePath", f"{_VIRTCONTAINERS}ImageHash"),
        (f"{_KATA}initrd", f"{_KATA}initrd_hash"),
    ],
    "hypervisor": [
        (f"{_VIRTCONTAINERS}HypervisorPath", f"{_VIRTCONTAINERS}HypervisorHash"),
        (f"{_KATA}path", f"{_KATA}hypervisor_hash"),
    ],
}
_REFUSED = (f"{_VIRTCONTAINERS}FirmwarePath", f"{_KATA}firmware", f"{_KATA}image")
_HASH_TYPES = (f"{_VIRTCONTAINERS}AssetHashType", f"{_KATA}asset_hash_type")


def container_type(annotations: Mapping[str, str], problems: list[str]) -> ContainerType:
    """Read the role of a container in its pod; the default is a sandbox."""
    for key in _TYPE_KEYS:
        if key in annotations:
            if annotations[key] in _TYPES:
                return _TYPES[annotations[key]]
            problems.append(
                f"annotations.{key}: {annotations[key]!r} is not a container type; "
                "use sandbox or container"
            )
    return ContainerType.SANDBOX


def sandbox_id(annotations: Mapping[str, str]) -> str:
    """Read the pod that a container joins; empty if no annotation names it."""
    return next((annotations[key] for key in _SANDBOX_KEYS if key in annotations), "")


def own_assets(
    annotations: Mapping[str, str], allowed: Iterable[str], problems: list[str]
) -> Assets:
    """Read kernel, image and hypervisor of a sandbox, which must match patterns in `allowed`."""
    patterns = tuple(allowed)
    problems += (
        f"annotations.{key}: not supported; remove it" for key in _REFUSED if key in annotations
    )
    for key in _HASH_TYPES:
        if annotations.get(key, "sha512") != "sha512":
            problems.append(f"annotations.{key}: {annotations[key]!r} is not supported; use sha512")
    assets = {}
    for kind, keys in _ASSETS.items():
        for path_key, hash_key in keys:
            if path := annotations.get(path_key):
                if not any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns):
                    problems.append(
                        f"annotations.{path_key}: {path} is not allowed; add it to pod.asset_paths"
                    )
                assets[kind] = Asset(Path(path), annotations.get(hash_key, ""))
    return Assets(**assets)
