"""In which machine a container belongs: `/proc/PID/ns/KIND` of a stand-in means that of its pod."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Mapping

from vc_runtime.errors import RuntimeFailure
from vc_runtime.records import Record, Records

_NS_GET_NSTYPE = 0xB703  # linux/nsfs.h
_TYPES = {  # linux/sched.h
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}
_PATH = re.compile(r"/proc/(\d+)/ns/\w+")


def pod_and_pid_owner(
    joined: Mapping[str, str], sandbox: str, records: Records
) -> tuple[str, Record | None]:
    """Returns the pod that a container joins, and the container whose pid namespace it joins.

    The pod is empty for a container with a pod of its own.

    Args:
        joined: paths of namespaces, by their kinds.
        sandbox: the container of whose pod it is, as annotations say; empty for none.
        records: those of all containers.

    Raises:
        RuntimeFailure: the namespaces are not those of one machine.
    """
    owners = {kind: _owner(path, records) for kind, path in joined.items()}
    pid_owner = owners.get("pid")
    if "pid" in joined and pid_owner is None:
        raise RuntimeFailure(
            f"the pid namespace {joined['pid']} cannot be joined: it is that of no running "
            "container of this runtime"
        )
    pod = records.get(sandbox).pod if sandbox else _pod_of(owners)
    if pid_owner is not None and pid_owner.pod != pod:
        raise RuntimeFailure(
            f"the pid namespace of container {pid_owner.id!r} cannot be joined: it is in the "
            "machine of another pod"
        )
    return pod, pid_owner


def check_types(joined: Mapping[str, str]) -> None:
    """Refuses paths that name no namespace of their kind, as the runtime-spec wants it.

    That includes namespaces which a machine does not join, as its own are in their place. One at
    which this user may not look is not refused.

    Raises:
        RuntimeFailure: naming the path.
    """
    for kind, path in joined.items():
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except PermissionError:
            continue
        except OSError as error:
            raise RuntimeFailure(f"the {kind} namespace {path}: {error.strerror}") from error
        try:
            found = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
        except OSError:  # no namespace at all
            found = 0
        finally:
            os.close(descriptor)
        if found != _TYPES.get(kind):
            raise RuntimeFailure(f"{path} is no {kind} namespace")


def _owner(path: str, records: Records) -> Record | None:
    """Returns the running container whose stand-in a path names."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    pid = int(found[1])
    return next((one for one in records.all() if one.pid == pid and one.stand_in.is_alive()), None)


def _pod_of(owners: Mapping[str, Record | None]) -> str:
    """Returns the pod of a container that no annotation makes a member."""
    network = owners.get("network")
    for kind, owner in owners.items():
        if owner is not None and (network is None or network.pod != owner.pod):
            raise RuntimeFailure(
                f"the {kind} namespace of container {owner.id!r} is in its machine, whose network "
                "must be joined, too (podman: --network container:NAME)"
            )
    return network.pod if network else ""
