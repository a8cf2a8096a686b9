"""From the contract's values to the protocol's messages and back."""

from __future__ import annotations

import json

from vc_agent_grpc._generated import agent_pb2 as pb
from vc_agent_grpc.oci_spec import CONTAINERS, SHARES, process_of, spec_of
from vc_core.spec import (
    ExitStatus,
    GuestContainer,
    Plugged,
    ProcessInfo,
    ProcessSpec,
    RootfsMode,
    Stdio,
)

# What a host changes below an overlay is undefined anyway, so everything may be cached there; elsewhere only what is
# mapped.
_CACHED = "cache=loose"
_SHARED = "cache=mmap"
_9P = ("trans=virtio", "version=9p2000.L", "msize=512000", "access=client")
_UPPER_SIZE = "size=75%"

STDIO = {Stdio.NULL: pb.STDIO_NULL, Stdio.PIPES: pb.STDIO_PIPES}


def create_request(container: GuestContainer) -> pb.CreateContainerRequest:
    """All that the agent needs to make a container."""
    spec = container.spec
    folder = f"{CONTAINERS}/{spec.id}"
    is_overlay = spec.rootfs.mode is RootfsMode.OVERLAY
    is_written = spec.rootfs.mode is RootfsMode.READ_WRITE
    base = f"{SHARES}/{container.rootfs.address}"
    storages = [_share(container.rootfs, _CACHED if is_overlay else _SHARED, not is_written)]
    if is_overlay:
        storages += _overlay(base, folder)
    storages += (
        _share(mount.plugged, _SHARED, False) for mount in container.mounts if mount.plugged != container.rootfs
    )
    return pb.CreateContainerRequest(
        container_id=spec.id,
        token=container.token,
        oci_spec=json.dumps(spec_of(spec, container.mounts)).encode(),
        rootfs=f"{folder}/rootfs" if is_overlay else base,
        storages=storages,
        stdio=STDIO[spec.stdio],
    )


def process_json(process: ProcessSpec) -> bytes:
    """The runtime-spec's `process`."""
    return json.dumps(process_of(process)).encode()


def exit_status(reply: pb.WaitReply) -> ExitStatus:
    """How a process ended."""
    return ExitStatus(reply.exit_code, reply.signal)


def process_info(row: pb.ProcessInfo) -> ProcessInfo:
    """One row of a process list."""
    return ProcessInfo(row.pid, row.parent_pid, row.uid, row.state, row.resident_bytes, row.cpu_ns, tuple(row.command))


def _share(plugged: Plugged, cache: str, read_only: bool) -> pb.Storage:
    point = f"{SHARES}/{plugged.address}"
    options = [*_9P, cache, "nodev", *(["ro"] if read_only else [])]
    return pb.Storage(driver="9p", source=plugged.address, fstype="9p", options=options, mount_point=point)


def _overlay(lower: str, folder: str) -> list[pb.Storage]:
    upper = f"{folder}/upper"
    options = [f"lowerdir={lower}", f"upperdir={upper}/changes", f"workdir={upper}/work"]
    return [
        pb.Storage(driver="tmpfs", fstype="tmpfs", options=[_UPPER_SIZE, "mode=755"], mount_point=upper),
        pb.Storage(driver="overlay", fstype="overlay", options=options, mount_point=f"{folder}/rootfs"),
    ]
