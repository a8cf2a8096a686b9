"""Runs the runtime-spec's hooks: programs of the host, run at points of a container's life cycle.

https://github.com/opencontainers/runtime-spec, config.md, "POSIX-platform Hooks", and
runtime.md, "State".
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterable

from msgspec import structs

from vc_core.driver_kit.host_process import end_child
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec.errors import HookError, InvalidRequest
from vc_core.spec.values import Capability, ContainerSpec, OciHook, OciHooks

log = logging.getLogger(__name__)

_OCI_VERSION = "1.0.2"
_TOLD_BYTES = 400
# For a hook whose argv does not begin with its path, which no option of unshare(1) can say.
_RUN = "import os, sys; os.execv(sys.argv[1], sys.argv[2:])"


def require(capabilities: frozenset[Capability], spec: ContainerSpec) -> None:
    """Refuses what the chosen agent does not support.

    Raises:
        InvalidRequest: naming it.
    """
    if spec.hooks.start_container and Capability.START_HOOKS not in capabilities:
        raise InvalidRequest(
            f"the guest's agent, as it is chosen, runs no startContainer hooks, which container "
            f"{spec.id} has; remove them"
        )


def of_guest(hooks: OciHooks, limit_s: float) -> OciHooks:
    """Returns what the agent gets of hooks: those in the container, each with a time limit.

    Args:
        hooks: all hooks of a container.
        limit_s: time limit in seconds for those without one.
    """
    return OciHooks(
        start_container=tuple(
            structs.replace(hook, timeout_s=hook.timeout_s or limit_s)
            for hook in hooks.start_container
        )
    )


def state_of(spec: ContainerSpec, status: str, pid: int) -> dict[str, object]:
    """Returns the state that hooks are told.

    Args:
        spec: the container.
        status: "created", "running" or "stopped".
        pid: id of the machine's process, 0 when there is none.
    """
    return {
        "ociVersion": _OCI_VERSION,
        "id": spec.id,
        "status": status,
        "pid": pid,
        "bundle": spec.bundle,
        "annotations": dict(spec.annotations),
    }


async def run_required(
    hooks: Iterable[OciHook], state: dict[str, object], limit_s: float, is_apart: bool = False
) -> None:
    """Runs hooks in their order.

    Args:
        hooks: hooks of one kind.
        state: what they are told.
        limit_s: time limit in seconds for hooks without a limit of their own.
        is_apart: whether each gets a mount namespace of its own.

    Raises:
        HookError: a hook failed or was killed at its time limit; later ones were not run.
    """
    text = json.dumps(state).encode()
    for hook in hooks:
        await _run(hook, text, hook.timeout_s or limit_s, is_apart)


async def run(hooks: Iterable[OciHook], state: dict[str, object], limit_s: float) -> None:
    """Like `run_required`, but a failure is logged as a warning, and later hooks still run."""
    for hook in hooks:
        try:
            await run_required([hook], state, limit_s)
        except HookError as error:
            log.warning("container %s: %s", state["id"], error)


async def _run(hook: OciHook, state: bytes, limit_s: float, is_apart: bool) -> None:
    if not hook.path.is_absolute():
        raise HookError(f"the hook {hook.path} cannot be run: its path must be absolute")
    program, words = str(hook.path), list(hook.args or (str(hook.path),))
    if is_apart:
        program, words = _apart(hook, words)
    try:
        env = dict(word.split("=", 1) for word in hook.env)
        process = await asyncio.create_subprocess_exec(
            *words,
            executable=program,
            env=env,
            cwd="/",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise HookError(f"the hook {hook.path} cannot be run: {error.strerror}") from error
    except ValueError as error:  # a NUL, or a variable without a value
        raise HookError(f"the hook {hook.path} cannot be run: {error}") from error
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


def _apart(hook: OciHook, words: list[str]) -> tuple[str, list[str]]:
    """Returns the program and the words that run a hook in a mount namespace of its own.

    What the host mounts later shows there, and what the hook mounts does not show on the host. Who
    is not root needs a user namespace for that, in which the hook is root.
    """
    unshare = shutil.which("unshare")
    if unshare is None:
        raise HookError(f"the hook {hook.path} cannot be run: it needs unshare of util-linux")
    if not os.access(hook.path, os.X_OK):
        raise HookError(f"the hook {hook.path} cannot be run: it is no program that is there")
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    enter = [unshare, *user, "--mount", "--propagation", "slave", "--"]
    if words[0] == str(hook.path):
        return unshare, [*enter, *words]
    return unshare, [*enter, sys.executable, "-I", "-S", "-c", _RUN, str(hook.path), *words]
