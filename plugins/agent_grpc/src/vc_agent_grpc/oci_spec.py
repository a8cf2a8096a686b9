"""Builds the runtime-spec's config.json for a container.

Format: https://github.com/opencontainers/runtime-spec, config.md and config-linux.md. The masked
and read-only paths are the defaults of container engines.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any

from msgspec import structs

from vc_agent_grpc.seccomp import default_filter
from vc_core.spec import (
    DEFAULT_CAPABILITIES,
    Capabilities,
    Confinement,
    ContainerSpec,
    DeviceNode,
    GuestContainer,
    GuestDriver,
    GuestMount,
    MountKind,
    OciHook,
    Plugged,
    PodOptions,
    ProcessSpec,
    Resources,
    RootfsMode,
)

Json = dict[str, Any]

VERSION = "1.0.2"
SHARES = "/run/vc/shares"
DRIVES = "/run/vc/drives"
CONTAINERS = "/run/vc/containers"
# Namespaces that the containers of a pod share; created by the agent (guest/src/container/pod.rs).
PIDNS = "/run/vc/pidns"
SHM = "/run/vc/shm"
RESOLV_CONF = "/run/vc/resolv.conf"
# The files of the pod, not those of the root file system or of the template.
_IDENTITY = {
    "/etc/machine-id": "/run/vc/identity/machine-id",
    "/proc/sys/kernel/random/boot_id": "/run/vc/identity/boot-id",
}
_COMPILED_FILTER = "run.oci.seccomp_bpf_data"  # crun(1)
_COPY_UP = "x-vc-copy-up"  # for the agent (guest/src/container/volumes.rs)
_NAMESPACES = ("pid", "mount", "ipc", "uts", "cgroup")

_MASKED = [
    *(
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
    ),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
]
_OF_GUEST = {"ipc": "/proc/self/ns/ipc", "network": "/proc/self/ns/net"}
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def spec_of(container: GuestContainer, compiled_filter: bytes = b"") -> Json:
    """Returns the whole document; the agent fills in root.path, the cgroup and nodes of devices.

    Args:
        container: the container.
        compiled_filter: the default seccomp filter for the default capabilities; crun compiles it
            when empty.
    """
    spec, pod = container.spec, container.pod
    confinement = spec.confinement
    document: Json = {
        "ociVersion": VERSION,
        "process": process_of(spec.process),
        "root": {"path": "", "readonly": spec.rootfs.mode is RootfsMode.READ_ONLY},
        "hostname": spec.hostname,
        "mounts": _mounts(container),
        "annotations": dict(spec.annotations),
        "linux": {
            "namespaces": _namespaces(confinement, pod),
            "maskedPaths": _MASKED
            if confinement.masked_paths is None
            else list(confinement.masked_paths),
            "readonlyPaths": _READ_ONLY
            if confinement.readonly_paths is None
            else list(confinement.readonly_paths),
            "sysctl": dict(confinement.sysctl),
            "devices": [_node(one) for one in spec.nodes],
            "resources": {
                **resources_of(spec.resources),
                "devices": [{"allow": False, "access": "rwm"}, *_allowed_devices()],
            },
        },
    }
    if not any(one["type"] == "uts" for one in document["linux"]["namespaces"]):
        document["hostname"] = ""  # the guest's own, which is the pod's
    if confinement.seccomp is None:
        _confine_calls(document, spec.process.capabilities, compiled_filter)
    elif confinement.seccomp:
        document["linux"]["seccomp"] = json.loads(confinement.seccomp)
    if spec.hooks.start_container:
        document["hooks"] = {"startContainer": [_hook(one) for one in spec.hooks.start_container]}
    if confinement.propagation:
        document["linux"]["rootfsPropagation"] = confinement.propagation
    return document


def _node(node: DeviceNode) -> Json:
    """Returns a node that the list of allowed devices does not have: it cannot be opened."""
    found: Json = {"path": node.path, "type": node.kind, "fileMode": node.mode}
    found |= {"uid": node.uid, "gid": node.gid}
    return found if node.kind == "p" else found | {"major": node.major, "minor": node.minor}


def _hook(hook: OciHook) -> Json:
    args, limit_s = list(hook.args) or [str(hook.path)], math.ceil(hook.timeout_s)
    return {"path": str(hook.path), "args": args, "env": list(hook.env), "timeout": limit_s}


def _confine_calls(
    document: Json, capabilities: Capabilities | None, compiled_filter: bytes
) -> None:
    """Sets the default seccomp filter.

    A compiled one is passed in crun's annotation for it: compiling takes 60 ms in the guest.
    """
    bounding = DEFAULT_CAPABILITIES if capabilities is None else capabilities.bounding
    document["linux"]["seccomp"] = default_filter(bounding)
    document["annotations"].pop(_COMPILED_FILTER, None)
    if compiled_filter and set(bounding) == set(DEFAULT_CAPABILITIES):
        document["annotations"][_COMPILED_FILTER] = base64.b64encode(compiled_filter).decode()


def shared_at(plugged: Plugged) -> str:
    """Returns where the guest mounts a share."""
    return f"{SHARES}/{plugged.address if plugged.driver is GuestDriver.NINE_P else plugged.id}"


def process_of(process: ProcessSpec) -> Json:
    """Returns the `process` object.

    The agent resolves user.username and user.groups with the container's own files.
    """
    env = list(process.env)
    if process.terminal and not any(word.startswith("TERM=") for word in env):
        env.append("TERM=xterm")
    user: Json = {"uid": 0, "gid": 0, "username": process.user, "groups": list(process.groups)}
    if process.umask is not None:
        user["umask"] = process.umask
    found: Json = {
        "terminal": process.terminal,
        "user": user,
        "args": list(process.args),
        "env": env,
        "cwd": process.cwd,
        "capabilities": _capabilities(process.capabilities),
        "noNewPrivileges": process.no_new_privileges,
        "rlimits": [
            {"type": limit.kind, "soft": limit.soft, "hard": limit.hard}
            for limit in process.rlimits
        ],
    }
    if process.oom_score_adj is not None:
        found["oomScoreAdj"] = process.oom_score_adj
    if process.terminal:
        found["consoleSize"] = {"height": process.rows, "width": process.columns}
    return found


def resources_of(resources: Resources) -> Json:
    """Returns the runtime-spec's `linux.resources` with the limits that are set."""
    found: Json = {}
    cpu: Json = {}
    if resources.cpu_quota_us > 0:
        cpu |= {"quota": resources.cpu_quota_us, "period": resources.cpu_period_us}
    if resources.cpu_shares:
        cpu["shares"] = resources.cpu_shares
    if resources.cpuset:
        cpu["cpus"] = resources.cpuset
    if cpu:
        found["cpu"] = cpu
    if resources.memory_bytes:  # no swap beyond it: "memory and swap" is the same number
        found["memory"] = {"limit": resources.memory_bytes, "swap": resources.memory_bytes}
    if resources.pids:
        found["pids"] = {"limit": resources.pids}
    if resources.unified:
        found["unified"] = dict(resources.unified)
    return found


def unlimited_resources(resources: Resources) -> Json:
    """Like `resources_of`, with explicit values for no limit, to remove a former limit."""
    found = resources_of(resources)
    cpu = {"quota": -1, "period": resources.cpu_period_us, "shares": 1024} | found.get("cpu", {})
    nothing = {"limit": -1, "swap": -1}
    return {
        "cpu": cpu,
        "memory": found.get("memory", nothing),
        "pids": found.get("pids", {"limit": -1}),
    }


def _capabilities(wanted: Capabilities | None) -> Json:
    if wanted is None:
        return {name: list(DEFAULT_CAPABILITIES) for name in ("bounding", "effective", "permitted")}
    return {name: list(names) for name, names in structs.asdict(wanted).items()}


def _namespaces(confinement: Confinement, pod: PodOptions) -> list[Json]:
    kinds = _NAMESPACES if confinement.namespaces is None else confinement.namespaces
    shared = {"pid": PIDNS} if pod.is_pid_shared else {}
    for kind in _set_by_sysctls(confinement).difference(kinds):
        # crun sets them only where a namespace is named: the one that it is in.
        kinds, shared = (*kinds, kind), {**shared, kind: _OF_GUEST[kind]}
    return [{"type": kind, **({"path": shared[kind]} if kind in shared else {})} for kind in kinds]


def _set_by_sysctls(confinement: Confinement) -> set[str]:
    """Returns the kinds of namespaces that sysctls may be of."""
    names = [name for name, _ in confinement.sysctl]
    kinds = {"ipc"} if names else set()
    if any(name.startswith("net.") for name in names):
        kinds.add("network")
    return kinds


def _mount(one: GuestMount) -> Json:
    mount = one.mount
    access = ["ro"] if mount.read_only else []
    if mount.kind in (MountKind.BIND, MountKind.GUEST):
        source = str(mount.source)
        if one.plugged is not None:
            source = "/".join(filter(None, (shared_at(one.plugged), one.subpath)))
        how = "rbind" if mount.recursive else "bind"
        options = [how, *(access or ["rw"]), *mount.options, *([_COPY_UP] if mount.copy_up else [])]
        return {
            "destination": mount.destination,
            "type": "bind",
            "source": source,
            "options": options,
        }
    kind = mount.kind.value
    return {
        "destination": mount.destination,
        "type": kind,
        "source": kind,
        "options": [*mount.options, *access],
    }


def _mounts(container: GuestContainer) -> list[Json]:
    """Returns the default mounts that are not replaced, then the container's own mounts."""
    spec, pod = container.spec, container.pod
    own = [_mount(one) for one in container.mounts]
    default = (
        [*_system_mounts(spec), *_host_root_mounts(spec), *_identity(), *_names(spec)]
        if spec.has_default_mounts
        else []
    )
    if pod.dns.servers:
        options = ["bind", "ro", "nosuid", "nodev", "noexec"]
        default.append(
            {
                "destination": "/etc/resolv.conf",
                "type": "bind",
                "source": RESOLV_CONF,
                "options": options,
            }
        )
    if pod.shared_shm_bytes:  # in place of one of its own, which may be below a /dev of its own
        options = ["bind", "rw"]
        shared = {"destination": "/dev/shm", "type": "bind", "source": SHM, "options": options}
        default, own = (
            [
                shared if (one["destination"], one["type"]) == ("/dev/shm", "tmpfs") else one
                for one in mounts
            ]
            for mounts in (default, own)
        )
        if shared not in [*default, *own]:
            own.append(shared)
    taken = {mount["destination"].rstrip("/") for mount in own}
    return [*(mount for mount in default if mount["destination"] not in taken), *own]


def _system_mounts(spec: ContainerSpec) -> list[Json]:
    plain = ["nosuid", "noexec", "nodev"]
    shm = [*plain, "mode=1777", f"size={spec.shm_bytes}"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": plain},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": shm},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": plain},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*plain, "ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": [*plain, "relatime", "ro"],
        },
    ]


def _identity() -> list[Json]:
    """Returns the mounts of the pod's identity; those in /etc only replace existing files."""
    options = ["bind", "ro", "nosuid", "nodev", "noexec"]
    return [
        {
            "destination": target,
            "type": "bind",
            "source": source,
            "options": [*options, *(["x-vc-optional"] if target.startswith("/etc") else [])],
        }
        for target, source in _IDENTITY.items()
    ]


def _names(spec: ContainerSpec) -> list[Json]:
    """Returns the mounts of files with the container's names, which the agent creates.

    In a writable folder of the host they only replace existing files, so that no new ones are
    created there.
    """
    optional = ["x-vc-optional"] if spec.rootfs.mode is RootfsMode.READ_WRITE else []
    return [
        {
            "destination": f"/etc/{name}",
            "type": "bind",
            "source": f"{CONTAINERS}/{spec.id}/names/{name}",
            "options": ["bind", "rw", "nosuid", "nodev", "noexec", *optional],
        }
        for name in ("hosts", "hostname")
    ]


def _host_root_mounts(spec: ContainerSpec) -> list[Json]:
    """Hides sockets and pid files of the host's services, which do not run in the guest."""
    if str(spec.rootfs.path) != "/":
        return []
    options = ["nosuid", "nodev"]
    return [
        {
            "destination": "/run",
            "type": "tmpfs",
            "source": "run",
            "options": [*options, "mode=755"],
        },
        {
            "destination": "/tmp",
            "type": "tmpfs",
            "source": "tmp",
            "options": [*options, "mode=1777"],
        },
    ]


def _allowed_devices() -> list[Json]:
    """Allows null, zero, full, random, urandom, tty, ptmx, pts/*, and creating any node."""
    numbers = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)]
    fixed = [
        {"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"}
        for major, minor in numbers
    ]
    return [
        {"allow": True, "access": "m"},
        {"allow": True, "type": "c", "major": 136, "access": "rwm"},
        *fixed,
    ]
