"""The runtime-spec's config.json for a container.

Format: https://github.com/opencontainers/runtime-spec, config.md and config-linux.md. The default capabilities, masked
and read-only paths are those that container engines agree on.
"""

from __future__ import annotations

from typing import Any

from vc_core.spec import ContainerSpec, GuestMount, ProcessSpec, RootfsMode

Json = dict[str, Any]

VERSION = "1.0.2"
SHARES = "/run/vc/shares"
CONTAINERS = "/run/vc/containers"

_CAPABILITIES = [
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
        *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT", "AUDIT_WRITE"),
    )
]
_MASKED = [
    *("/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"),
    *("/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"),
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def spec_of(container: ContainerSpec, mounts: tuple[GuestMount, ...]) -> Json:
    """The whole document; the agent fills in root.path and the cgroup.

    Args:
        container: what was asked for.
        mounts: where the guest finds the sources.
    """
    return {
        "ociVersion": VERSION,
        "process": process_of(container.process),
        "root": {"path": "", "readonly": container.rootfs.mode is RootfsMode.READ_ONLY},
        "hostname": container.hostname,
        "mounts": [*_system_mounts(), *_host_root_mounts(container), *(_mount(one) for one in mounts)],
        "annotations": dict(container.annotations),
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "mount", "ipc", "uts", "cgroup")],
            "maskedPaths": _MASKED,
            "readonlyPaths": _READ_ONLY,
            "resources": {"devices": [{"allow": False, "access": "rwm"}, *_allowed_devices()]},
        },
    }


def process_of(process: ProcessSpec) -> Json:
    """The `process` object; the agent resolves user.username by the container's own passwd."""
    env = list(process.env)
    if process.terminal and not any(word.startswith("TERM=") for word in env):
        env.append("TERM=xterm")
    found: Json = {
        "terminal": process.terminal,
        "user": {"uid": 0, "gid": 0, "username": process.user},
        "args": list(process.args),
        "env": env,
        "cwd": process.cwd,
        "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), _CAPABILITIES),
        "noNewPrivileges": process.no_new_privileges,
    }
    if process.terminal:
        found["consoleSize"] = {"height": process.rows, "width": process.columns}
    return found


def guest_path(mount: GuestMount) -> str:
    """Where the guest finds a mount's source."""
    base = f"{SHARES}/{mount.plugged.address}"
    return f"{base}/{mount.subpath}" if mount.subpath else base


def _mount(mount: GuestMount) -> Json:
    access = "ro" if mount.read_only else "rw"
    return {"destination": mount.destination, "type": "bind", "source": guest_path(mount), "options": ["rbind", access]}


def _system_mounts() -> list[Json]:
    plain = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": plain},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=65536k"]},
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*plain, "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": plain},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*plain, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": [*plain, "relatime", "ro"]},
    ]


def _host_root_mounts(container: ContainerSpec) -> list[Json]:
    """The host's own root has sockets and pid files of services that do not run in the guest: not shown."""
    if str(container.rootfs.path) != "/":
        return []
    options = ["nosuid", "nodev"]
    return [
        {"destination": "/run", "type": "tmpfs", "source": "run", "options": [*options, "mode=755"]},
        {"destination": "/tmp", "type": "tmpfs", "source": "tmp", "options": [*options, "mode=1777"]},
    ]


def _allowed_devices() -> list[Json]:
    """null, zero, full, random, urandom, tty, ptmx, pts/*; nodes of any kind may be made."""
    numbers = [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)]
    fixed = [{"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"} for major, minor in numbers]
    return [{"allow": True, "access": "m"}, {"allow": True, "type": "c", "major": 136, "access": "rwm"}, *fixed]
