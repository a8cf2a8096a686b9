"""Runs the hooks of a container that are programs of this host, when the runtime-spec says.

Callers put interfaces into the network namespace of a container by such a hook, which looks for it
at the pid that it is told (docker's libnetwork-setkey). So the process that becomes the stand-in is
in that namespace from before the hooks run. All else that it does then is done by a thread that
has stayed in the host's.
"""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import msgspec
from msgspec import structs

from vc_core.engine.host import oci_hooks
from vc_core.spec import OciHooks
from vc_runtime.errors import DamagedRecord
from vc_runtime.host_commands import VERSION
from vc_runtime.records import Record, Records

log = logging.getLogger(__name__)

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_AT_CREATE = ("prestart", "createRuntime", "createContainer")


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored of hooks that are to run, so that no later change of the bundle changes it.

    Attributes:
        hooks: those on the host.
        bundle: absolute path of the bundle.
        annotations: those of config.json.
        limit_s: time limit in seconds for hooks without one.
    """

    hooks: OciHooks
    bundle: str
    annotations: dict[str, str]
    limit_s: float


def in_network_of(folder: Path, work: Callable[[], Sequence[str]]) -> Sequence[str]:
    """Calls `work`, while this process is in the network namespace that hooks of a bundle look for.

    Args:
        folder: the bundle.
        work: called in the namespaces of the caller.
    """
    path = _namespace(folder)
    if path is None:
        return work()
    is_inside = Event()

    def work_outside() -> Sequence[str]:
        is_inside.wait()
        return work()

    # The thread exists before this one leaves the namespace: who is root of a user namespace
    # cannot go back to that of the host.
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(work_outside)
        try:
            _enter(path)
        except OSError as error:
            log.warning(
                "hooks cannot give the container a network: its namespace: %s", error.strerror
            )
        finally:
            is_inside.set()
        return result.result()


def _namespace(folder: Path) -> str | None:
    """Returns the path of the network namespace, empty for a new one, None when no hook needs it.

    A config.json that is wrong has none: who reads it next says what is wrong.
    """
    try:
        document = msgspec.json.decode((folder / "config.json").read_bytes())
        hooks = document.get("hooks") or {}
        if not any(hooks.get(kind) for kind in _AT_CREATE):
            return None
        for one in document["linux"]["namespaces"]:
            if one["type"] == "network":
                return str(one.get("path") or "")
    except (OSError, msgspec.DecodeError, AttributeError, KeyError, TypeError):
        return None
    return None


def _enter(path: str) -> None:
    if not path:
        if _LIBC.unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return
    namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if _LIBC.setns(namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(namespace)


async def create(
    records: Records, record: Record, hooks: OciHooks, network: str, limit_s: float
) -> str:
    """Runs the hooks of `create`; returns the network of the container's pod.

    Args:
        records: of all containers.
        record: that of the container.
        hooks: all of its hooks.
        network: "none" when its network namespace is a new one.
        limit_s: time limit in seconds for hooks without one.

    Raises:
        HookError: one of them failed.
    """
    kept = _Kept(
        hooks=structs.replace(hooks, start_container=()),
        bundle=record.bundle,
        annotations=record.annotations,
        limit_s=limit_s,
    )
    records.put_hooks(record.id, msgspec.json.encode(kept, enc_hook=str))
    told = _state(kept, record.id, "creating", record.pid)
    await oci_hooks.run_required(hooks.prestart, told, limit_s)
    await oci_hooks.run_required(hooks.create_container, told, limit_s, is_apart=True)
    if network != "none" or not _has_interface(record.pid):
        return network
    return f"ns:/proc/{record.pid}/ns/net"


def _has_interface(pid: int) -> bool:
    """Returns whether a process is in a network namespace of its own with an interface."""
    process = Path(f"/proc/{pid}")
    here = Path("/proc/thread-self/ns/net")
    if (process / "ns/net").readlink() == here.readlink():
        return False
    lines = (process / "net/dev").read_text().splitlines()[2:]
    return any(line.partition(":")[0].strip() != "lo" for line in lines)


async def started(records: Records, record: Record) -> None:
    """Runs the hooks of a container that has just started; a failure is a warning."""
    kept = _kept(records, record.id)
    if kept is not None:
        told = _state(kept, record.id, "running", record.pid)
        await oci_hooks.run(kept.hooks.poststart, told, kept.limit_s)


async def deleted(records: Records, container_id: str) -> None:
    """Runs the hooks of a container of which only the record is left; a failure is a warning."""
    kept = _kept(records, container_id)
    if kept is not None:
        told = _state(kept, container_id, "stopped", 0)
        await oci_hooks.run(kept.hooks.poststop, told, kept.limit_s)


def _kept(records: Records, container_id: str) -> _Kept | None:
    text = records.hooks(container_id)
    try:
        return msgspec.json.decode(text, type=_Kept, dec_hook=_decoded) if text else None
    except msgspec.MsgspecError as error:
        log.warning("%s; its hooks are not run", DamagedRecord(container_id, error))
        return None


def _decoded(kind: type, value: Any) -> Any:
    return kind(value)


def _state(kept: _Kept, container_id: str, status: str, pid: int) -> dict[str, object]:
    annotations: Mapping[str, str] = kept.annotations
    return {
        "ociVersion": VERSION,
        "id": container_id,
        "status": status,
        "pid": pid,
        "bundle": kept.bundle,
        "annotations": dict(annotations),
    }
