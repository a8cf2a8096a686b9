"""Refuses what no rule allows: root file systems, mounts, devices, sizes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from vc_core.spec import GuestContainer, InvalidRequest, MountKind, VmSize, VmSpec, around

_EVERYTHING = ("*",)


@dataclass(frozen=True)
class PolicyOptions:
    """What is allowed. No pattern allows nothing.

    Patterns are those of a shell; "*" also matches slashes.

    Attributes:
        rootfs: patterns for paths of root file systems, after resolving links.
        mounts: patterns for sources of mounts, after resolving links.
        devices: patterns for paths of devices, after resolving links.
        memory_mib: maximum memory of a machine, in MiB; 0 for any.
        vcpus: maximum number of vCPUs of a machine; 0 for any.
    """

    rootfs: tuple[str, ...] = _EVERYTHING
    mounts: tuple[str, ...] = _EVERYTHING
    devices: tuple[str, ...] = _EVERYTHING
    memory_mib: int = 0
    vcpus: int = 0


class Policy:
    """The plugin `policy`."""

    options_type = PolicyOptions

    def __init__(self, options: PolicyOptions) -> None:
        self._options = options

    @around
    @asynccontextmanager
    async def vm_create(self, spec: VmSpec) -> AsyncIterator[None]:
        self._check_size(VmSize(vcpus=spec.vcpus, memory_mib=spec.memory_mib))
        yield

    @around
    @asynccontextmanager
    async def vm_resize(self, size: VmSize) -> AsyncIterator[None]:
        self._check_size(size)
        yield

    @around
    @asynccontextmanager
    async def agent_create_container(self, container: GuestContainer) -> AsyncIterator[None]:
        spec, allowed = container.spec, self._options
        _check("root file system", [spec.rootfs.path], allowed.rootfs)
        _check(
            "mount",
            [mount.source for mount in spec.mounts if mount.kind is MountKind.BIND],
            allowed.mounts,
        )
        _check("device", [device.path for device in spec.devices], allowed.devices)
        yield

    def _check_size(self, size: VmSize) -> None:
        for what, asked, most in (
            ("MiB of memory", size.memory_mib, self._options.memory_mib),
            ("vCPUs", size.vcpus, self._options.vcpus),
        ):
            if most and asked > most:
                raise InvalidRequest(f"the policy allows {most} {what}, not {asked}")


def _check(what: str, paths: Iterable[Path], patterns: tuple[str, ...]) -> None:
    for path in paths:
        real = str(path.resolve())
        if not any(fnmatchcase(real, pattern) for pattern in patterns):
            told = ", ".join(patterns) or "none"
            raise InvalidRequest(f"the policy does not allow the {what} {real}; it allows: {told}")
