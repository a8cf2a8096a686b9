"""Waits for the end of an unplug, which the guest may refuse."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from vc_core.driver_kit.timeouts import timeout_after
from vc_core.spec import HypervisorError


async def wait_for_release(
    device: str,
    answer: Awaitable[bool],
    limit_s: float,
    is_plugged: Callable[[], Awaitable[bool]],
) -> None:
    """Returns when the guest has released a device.

    Args:
        device: its id, for messages.
        answer: the guest's answer: true when it has released the device, false when it refuses.
        limit_s: seconds that the guest has.
        is_plugged: called when there was no answer: the event may have been missed.

    Raises:
        HypervisorError: the guest refuses, or has not answered in time; the device is
            still plugged.
    """
    try:
        async with timeout_after(limit_s):
            is_released = await answer
    except TimeoutError as error:
        if await is_plugged():
            raise HypervisorError(
                f"the guest has not released {device} within {limit_s:g} s; it is still plugged"
            ) from error
        return
    if not is_released:
        raise HypervisorError(f"the guest refuses to release {device}; it is still plugged")
