"""Runs the runtime-spec's hooks: programs of the host, run at points of a container's life cycle.

https://github.com/opencontainers/runtime-spec, config.md, "POSIX-platform Hooks", and
runtime.md, "State".
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable

from vc_core.driver_kit.host_process import end_child
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec.errors import HookError
from vc_core.spec.values import ContainerSpec, OciHook

log = logging.getLogger(__name__)

_OCI_VERSION = "1.0.2"
_TOLD_BYTES = 400


async def run_required(
    hooks: Iterable[OciHook], spec: ContainerSpec, status: str, pid: int, limit_s: float
) -> None:
    """Runs hooks in their order.

    Args:
        hooks: hooks of one kind.
        spec: the container.
        status: "created", "running" or "stopped".
        pid: id of the machine's process, 0 when there is none.
        limit_s: time limit in seconds for hooks without a limit of their own.

    Raises:
        HookError: a hook failed or was killed at its time limit; later ones were not run.
    """
    state = {
        "ociVersion": _OCI_VERSION,
        "id": spec.hooks.container_id or spec.id,
        "status": status,
        "pid": pid and (spec.hooks.pid or pid),
        "bundle": spec.bundle,
    }
    text = json.dumps({**state, "annotations": dict(spec.annotations)}).encode()
    for hook in hooks:
        await _run(hook, text, hook.timeout_s or limit_s)


async def run(
    hooks: Iterable[OciHook], spec: ContainerSpec, status: str, pid: int, limit_s: float
) -> None:
    """Like `run_required`, but a failure is logged as a warning, and later hooks still run."""
    for hook in hooks:
        try:
            await run_required([hook], spec, status, pid, limit_s)
        except HookError as error:
            log.warning("container %s: %s", spec.id, error)


async def _run(hook: OciHook, state: bytes, limit_s: float) -> None:
    if not hook.path.is_absolute():
        raise HookError(f"the hook {hook.path} cannot be run: its path must be absolute")
    words = hook.args or (str(hook.path),)
    env = dict(word.split("=", 1) for word in hook.env)
    try:
        process = await asyncio.create_subprocess_exec(
            *words,
            executable=str(hook.path),
            env=env,
            cwd="/",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise HookError(f"the hook {hook.path} cannot be run: {error.strerror}") from error
    try:
        async with timeout_after(limit_s):
            told, _ = await process.communicate(state)
    except TimeoutError as error:
        raise HookError(
            f"the hook {hook.path} did not end within {limit_s:g} s and was killed"
        ) from error
    finally:
        if process.returncode is None:
            await end_child(process, is_leader=True)
    if process.returncode != 0:
        words_of_it = told[-_TOLD_BYTES:].decode(errors="replace").strip().replace("\n", "; ")
        raise HookError(
            f"the hook {hook.path} ended with {process.returncode}: "
            f"{words_of_it or 'it said nothing'}"
        )
