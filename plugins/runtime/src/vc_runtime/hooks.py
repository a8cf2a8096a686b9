"""Runs the hooks of a container that are programs of this host, when the runtime-spec says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import structs

from vc_core.engine.host import oci_hooks
from vc_core.spec import OciHooks
from vc_runtime.errors import DamagedRecord
from vc_runtime.host_commands import VERSION
from vc_runtime.records import Record, Records

log = logging.getLogger(__name__)


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


async def create(records: Records, record: Record, hooks: OciHooks, limit_s: float) -> None:
    """Runs the hooks of `create`.

    Args:
        records: of all containers.
        record: that of the container.
        hooks: all of its hooks.
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
