"""Converts the contract's values to the protocol's messages."""

from __future__ import annotations

import json

from msgspec import structs

from vc_agent_grpc._generated import agent_pb2 as pb
from vc_agent_grpc.oci_spec import (
    CONTAINERS,
    DRIVES,
    process_of,
    shared_at,
    spec_of,
    unlimited_resources,
)
from vc_core.spec import (
    ContainerSpec,
    Dns,
    GuestContainer,
    GuestDevice,
    GuestDriver,
    GuestNetwork,
    GuestRootfs,
    Plugged,
    PodSetup,
    ProcessSpec,
    Resources,
    RestartPolicy,
    RootfsMode,
    Stdio,
)

# Changes by the host below an overlay are undefined anyway, so everything may be cached there;
# elsewhere only mapped files.
_CACHED = "cache=loose"
_SHARED = "cache=mmap"
_9P = ("trans=virtio", "version=9p2000.L", "msize=512000", "access=client")
# How the guest mounts a share: directly, or so that the agent can close it (guest/src/share_fs/),
# which is slower.
_KEPT, _LET_GO = "9p", "fuse"
_OF_SHARES = (GuestDriver.NINE_P, GuestDriver.BIND)
_UPPER_SIZE = "size=75%"
# The journal of a read-only device is not replayed.
_UNJOURNALED = {"ext4": ["noload"]}

STDIO = {Stdio.NULL: pb.STDIO_NULL, Stdio.PIPES: pb.STDIO_PIPES, Stdio.LOG: pb.STDIO_LOG}

_POLICIES = {
    RestartPolicy.NO: pb.RESTART_POLICY_NO,
    RestartPolicy.ON_FAILURE: pb.RESTART_POLICY_ON_FAILURE,
    RestartPolicy.ALWAYS: pb.RESTART_POLICY_ALWAYS,
}


def create_request(
    container: GuestContainer, compiled_filter: bytes = b""
) -> pb.CreateContainerRequest:
    """Returns the request for a container; for the filter see `oci_spec.spec_of`."""
    spec, rootfs = container.spec, container.rootfs
    folder = f"{CONTAINERS}/{spec.id}"
    # Also for a read-only root: missing targets of mounts are created before it becomes read-only.
    is_overlay = spec.rootfs.mode is not RootfsMode.READ_WRITE
    base = _base(rootfs.plugged)
    root = f"{base}/{rootfs.subpath}" if rootfs.subpath else base
    kind = _LET_GO if container.pod.can_quiesce else _KEPT
    storages = [_rootfs_storage(rootfs, spec.rootfs.mode, kind)]
    if is_overlay:
        storages += _overlay(root, folder, rootfs.upper)
    if spec.has_default_mounts:
        storages.append(_names(folder))
    shares = dict.fromkeys(mount.plugged for mount in container.mounts if mount.plugged is not None)
    storages += (
        _share(plugged, kind, _SHARED, False) for plugged in shares if plugged != rootfs.plugged
    )
    return pb.CreateContainerRequest(
        container_id=spec.id,
        token=container.token,
        oci_spec=json.dumps(spec_of(container, compiled_filter)).encode(),
        rootfs=f"{folder}/rootfs" if is_overlay else root,
        storages=storages,
        stdio=STDIO[spec.stdio],
        starts=container.starts,
        restart=pb.Restart(
            policy=_POLICIES[spec.restart.policy],
            max_retries=spec.restart.max_retries,
            stop_signal=spec.stop_signal,
        ),
        health=_health(spec),
        pid_container_id=spec.confinement.pid_container_id,
        log=None
        if container.log is None
        else pb.Device(driver=container.log.driver, address=container.log.address),
        devices=[message for device in container.devices for message in _devices(device)],
    )


def _health(spec: ContainerSpec) -> pb.HealthCheck | None:
    check = spec.health
    if check is None:
        return None
    process = structs.replace(spec.process, args=check.args, terminal=False)
    return pb.HealthCheck(
        oci_process=process_json(process),
        interval_ms=round(check.interval_s * 1000),
        timeout_ms=round(check.timeout_s * 1000),
        retries=check.retries,
        start_period_ms=round(check.start_period_s * 1000),
    )


def set_up_request(setup: PodSetup) -> pb.SetUpPodRequest:
    """Returns the request that gives a guest the identity of its pod."""
    options = setup.options
    return pb.SetUpPodRequest(
        hostname=setup.hostname,
        time_ns=setup.time_ns,
        seed=setup.seed,
        resolv_conf=resolv_conf(options.dns),
        shared_pid=options.is_pid_shared,
        shm_bytes=options.shared_shm_bytes,
        machine_id=setup.machine_id,
        hosts=[f"{entry.address}\t{entry.name}" for entry in options.hosts],
        networks=[_network(one) for one in setup.networks],
    )


def _network(network: GuestNetwork) -> pb.GuestNetwork:
    return pb.GuestNetwork(
        mac=network.mac,
        mtu=network.mtu,
        addresses=network.addresses,
        gateways=network.gateways,
        routes=[
            pb.Route(destination=route.destination, gateway=route.gateway)
            for route in network.routes
        ],
        restored_mac=network.restored_mac,
    )


def resolv_conf(dns: Dns) -> str:
    """Returns resolv.conf(5); empty without servers."""
    if not dns.servers:
        return ""
    lines = [f"nameserver {server}" for server in dns.servers]
    lines += [f"search {' '.join(dns.searches)}"] if dns.searches else []
    lines += [f"options {' '.join(dns.options)}"] if dns.options else []
    return "\n".join(lines) + "\n"


def resources_json(resources: Resources) -> bytes:
    """Returns the runtime-spec's `linux.resources` of an update, unlimited ones included."""
    return json.dumps(unlimited_resources(resources)).encode()


def process_json(process: ProcessSpec) -> bytes:
    """Returns the runtime-spec's `process`."""
    return json.dumps(process_of(process)).encode()


def _base(plugged: Plugged) -> str:
    """Returns where the guest mounts a share or drive."""
    if plugged.driver in _OF_SHARES:
        return shared_at(plugged)
    return f"{DRIVES}/{plugged.id}"


def _rootfs_storage(rootfs: GuestRootfs, mode: RootfsMode, kind: str) -> pb.Storage:
    is_written = mode is RootfsMode.READ_WRITE
    if not rootfs.fstype and rootfs.subpath:  # in a share of many, where others may write
        return _share(rootfs.plugged, kind, _SHARED, False)
    if not rootfs.fstype:
        return _share(
            rootfs.plugged, kind, _CACHED if mode is RootfsMode.OVERLAY else _SHARED, not is_written
        )
    options = ["rw"] if is_written else ["ro", *_UNJOURNALED.get(rootfs.fstype, [])]
    plugged = rootfs.plugged
    return pb.Storage(
        driver=plugged.driver,
        source=plugged.address,
        fstype=rootfs.fstype,
        options=[*options, "nodev"],
        mount_point=_base(plugged),
    )


def _share(plugged: Plugged, kind: str, cache: str, read_only: bool) -> pb.Storage:
    if plugged.driver is GuestDriver.BIND:
        return pb.Storage(
            driver="bind",
            source=plugged.address,
            options=["ro"] if read_only else [],
            mount_point=_base(plugged),
        )
    options = [*_9P, cache, "nodev", *(["ro"] if read_only else [])]
    return pb.Storage(
        driver="9p",
        source=plugged.address,
        fstype=kind,
        options=options,
        mount_point=_base(plugged),
    )


def _devices(wanted: GuestDevice) -> list[pb.Device]:
    device = wanted.device
    return [
        pb.Device(
            driver=plugged.driver,
            address=plugged.address,
            destination=device.destination if plugged.driver is not GuestDriver.PCI else "",
            access="rm" if device.read_only else "rwm",
            mode=device.mode,
            uid=device.uid,
            gid=device.gid,
        )
        for plugged in wanted.plugged
    ]


def _names(folder: str) -> pb.Storage:
    """Returns a small tmpfs for /etc/hosts and /etc/hostname, which the container may write."""
    return pb.Storage(
        driver="tmpfs",
        fstype="tmpfs",
        options=["size=64k", "mode=755"],
        mount_point=f"{folder}/names",
    )


def _overlay(lower: str, folder: str, disk: Plugged | None) -> list[pb.Storage]:
    upper = f"{folder}/upper"
    under = pb.Storage(
        driver="tmpfs", fstype="tmpfs", options=[_UPPER_SIZE, "mode=755"], mount_point=upper
    )
    if disk is not None:
        under = pb.Storage(
            driver=disk.driver,
            source=disk.address,
            fstype="ext4",
            options=["nodev"],
            mount_point=upper,
        )
    options = [f"lowerdir={lower}", f"upperdir={upper}/changes", f"workdir={upper}/work"]
    return [
        under,
        pb.Storage(
            driver="overlay", fstype="overlay", options=options, mount_point=f"{folder}/rootfs"
        ),
    ]
