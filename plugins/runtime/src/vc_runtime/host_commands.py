"""The commands that need no machine: they import neither the engine nor its plugins."""

from __future__ import annotations

import datetime as dt
import json
import os
import pwd
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from vc_core.signals import signal_number
from vc_runtime.errors import RuntimeFailure, not_running
from vc_runtime.records import Record, Records

VERSION = "1.3.0"
_NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "uts")
_HOOKS = (
    *("prestart", "createRuntime", "createContainer"),
    *("startContainer", "poststart", "poststop"),
)


def state(found: Namespace) -> int:
    """Prints the state of a container, as in the runtime-spec."""
    _print(_state(Records(found.root).get(found.id)))
    return 0


def _state(record: Record) -> dict[str, object]:
    status = record.status
    told: dict[str, object] = {
        "ociVersion": VERSION,
        "id": record.id,
        "status": status,
        "bundle": record.bundle,
    }
    if status != "stopped":
        told["pid"] = record.pid
    return {**told, "annotations": record.annotations}


def kill(found: Namespace) -> int:
    """Sends a signal to the stand-in, which forwards it; with --all to all processes."""
    record = Records(found.root).get(found.id)
    number = signal_number(found.signal)
    if found.all and (record.shares_pids or number != signal.SIGKILL):
        from vc_runtime import guest_commands

        return guest_commands.kill_all(record, number)
    if found.all and not record.stand_in.is_alive():
        return 0  # the rest has ended with the first process
    if not record.pid or not record.stand_in.is_alive():
        raise not_running(found.id)
    try:
        handle = os.pidfd_open(record.pid)
    except ProcessLookupError:
        raise not_running(found.id) from None
    try:
        if not record.stand_in.is_alive():
            raise not_running(found.id)
        signal.pidfd_send_signal(handle, number)
    except ProcessLookupError:
        raise not_running(found.id) from None
    finally:
        os.close(handle)
    return 0


def features(found: Namespace) -> int:
    """Prints what this runtime supports, in the format of features.md of the runtime-spec."""
    del found
    _print(
        {
            "ociVersionMin": "1.0.0",
            "ociVersionMax": VERSION,
            "hooks": list(_HOOKS),
            "mountOptions": ["bind", "rbind", "ro", "rro", "rw", "nosuid", "nodev", "noexec"],
            "linux": {
                "namespaces": list(_NAMESPACES),
                "cgroup": {
                    "v1": True,
                    "v2": True,
                    "systemd": False,
                    "systemdUser": False,
                    "rdma": False,
                },
                "seccomp": {"enabled": True},
                "apparmor": {"enabled": False},
                "selinux": {"enabled": False},
                "mountExtensions": {"idmap": {"enabled": False}},
            },
        }
    )
    return 0


def list_all(found: Namespace) -> int:
    """Lists the containers of a root."""
    records = list(Records(found.root).all())
    if found.quiet:
        sys.stdout.write("".join(f"{record.id}\n" for record in records))
        return 0
    rows = [{**_state(record), **_origin(found.root, record)} for record in records]
    if found.format == "json":
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    heads = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")
    names = ("id", "pid", "status", "bundle", "created", "owner")
    lines = [heads, *(tuple(str(row.get(name, 0)) for name in names) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        padded = (word.ljust(width) for word, width in zip(line, widths, strict=True))
        sys.stdout.write("   ".join(padded).rstrip() + "\n")
    return 0


def _origin(root: Path, record: Record) -> dict[str, object]:
    created = dt.datetime.fromtimestamp(record.created_ns / 1e9, dt.UTC)
    uid = (root / record.id).stat().st_uid
    try:
        owner = pwd.getpwuid(uid).pw_name
    except KeyError:
        owner = str(uid)
    return {"rootfs": "", "created": created.isoformat(), "owner": owner}


def spec(found: Namespace) -> int:
    """Writes a config.json that runs a shell in the folder rootfs."""
    file = found.bundle / "config.json"
    if file.exists():
        raise RuntimeFailure(f"file {file} exists. Remove it first")
    plain = ["nosuid", "noexec", "nodev"]
    names = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID")
    capabilities = [f"CAP_{name}" for name in names]
    document = {
        "ociVersion": VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "vc-runtime",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts",
                "type": "devpts",
                "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
            },
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": plain},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*plain, "ro"]},
        ],
        "linux": {
            "namespaces": [{"type": name} for name in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
        },
    }
    file.write_text(json.dumps(document, indent=2) + "\n")
    return 0


def _print(document: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


VERBS: dict[str, Callable[[Namespace], int]] = {
    "state": state,
    "kill": kill,
    "features": features,
    "list": list_all,
    "spec": spec,
}
