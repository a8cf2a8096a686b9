"""Ends what a generic stand-in stands in for, when that was killed or its machine must end."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import syslog
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vc_core import Runtime
    from vc_core.spec import VcError

_HELD_S = 600.0  # for a pod that is paused, or whose lock is held
_FAILING_S = 60.0  # for all else, such as a guest that does not answer
_AGAIN_S = 0.5  # between attempts: nothing tells that a pod of another process is resumed
_ORDERLY_S = 10.0  # for the guest to write back files; the pod's lock is held meanwhile


def means_ended(error: VcError) -> bool:
    """Returns whether an error says that the process, its container or its machine has ended."""
    from vc_core.spec import NotFound, StateError

    if isinstance(error, StateError):
        return error.actual != "paused"
    return isinstance(error, NotFound)


async def end(pod: str, container: str, token: str, *, ends_machine: bool, has_ended: bool) -> None:
    """Ends the machine, or kills the process. Failures are repeated, and then logged.

    Args:
        pod: id of the pod.
        container: id of the container in it.
        token: that of the process.
        ends_machine: whether the machine ends, too.
        has_ended: whether the process has ended. The guest then gets some seconds to end in order.
    """
    from vc_core import Runtime

    try:
        async with Runtime.open() as runtime:
            if not ends_machine:
                await _repeated(lambda: _kill(runtime, pod, container, token))
            elif not (has_ended and await _is_stopped_in_order(runtime, pod)):
                await _repeated(lambda: _stop(runtime, pod, force=True))
    except Exception as error:  # nobody is there to be told
        from vc_runtime.command import explained

        what = f"the machine of pod {pod}" if ends_machine else f"process {token} in pod {pod}"
        told = f"vc-runtime: {what} could not be ended: {explained(error)}"
        syslog.syslog(syslog.LOG_ERR, told)


async def _repeated(attempt: Callable[[], Awaitable[None]]) -> None:
    """Repeats an attempt until it succeeds or there is nothing left to end.

    Raises:
        VcError: of the last attempt in time.
    """
    from vc_core.spec import Busy, StateError, VcError

    began = time.monotonic()
    while True:
        try:
            return await attempt()
        except VcError as error:
            if means_ended(error):
                return None
            limit_s = _HELD_S if isinstance(error, Busy | StateError) else _FAILING_S
            if time.monotonic() - began > limit_s:
                raise
        await asyncio.sleep(_AGAIN_S)


async def _is_stopped_in_order(runtime: Runtime, pod: str) -> bool:
    from vc_core.spec import VcError

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_ORDERLY_S):
            try:
                await _stop(runtime, pod, force=False)
            except VcError as error:
                return means_ended(error)
            return True
    return False


async def _stop(runtime: Runtime, pod: str, *, force: bool) -> None:
    await (await runtime.get(pod)).stop(grace_s=0, force=force)


async def _kill(runtime: Runtime, pod: str, container: str, token: str) -> None:
    found = (await runtime.get(pod)).container(container)
    await (await found.process(may_wait=True, token=token)).kill(signal.SIGKILL)
