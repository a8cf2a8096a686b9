"""Stands in on the host for a process of a guest whose agent brings no program for that.

Usage: `python -m vc_runtime.generic_stand_in POD CONTAINER TOKEN process|machine [NAME=VALUE...]`,
with the variables that choose a configuration and a store. It uses only what every agent has:
streams, signals, the terminal's size, and the exit status. Descriptors 0 to 2 are connected to the
process; 3 gets "ok", or else the reason why not.

It exits with the code of the process, or with 137 when the machine or the connection ends first.
With `machine`, the machine ends after it. Nobody tells the agent when this program is killed, so a
child of it, its guard, waits for its end, and kills the process then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vc_core import Process
    from vc_core.spec import StandIn

_REPORT = 3
_HAS_ENDED = b"e"
_IS_LEFT = b"l"
_LOST = 128 + signal.SIGKILL


async def own_or_generic(
    process: Process, role: StandIn, choosing: Mapping[str, str], starter: int | None = None
) -> Sequence[str]:
    """Returns the command line of the agent's program, or of this one if it has none.

    Args:
        process: that for which it stands in.
        role: what else it does. That of a container for which the machine was made also takes the
            connections to the pod's own addresses. This program only ends the machine.
        choosing: the variables that choose a configuration and a store.
        starter: a listening socket, by which the agent's program is asked to start the container;
            None for a process that runs already.

    Raises:
        VcError: as `Process.stand_in`.
    """
    from vc_core.spec import UnsupportedOperation

    try:
        return await process.stand_in(role, takes_loopback=role.ends_machine, starter=starter)
    except UnsupportedOperation as error:
        if error.operation != "agent_stand_in":
            raise
    place = (process.pod_id, process.container_id, process.token)
    ends = "machine" if role.ends_machine else "process"
    variables = (f"{name}={value}" for name, value in choosing.items())
    return [sys.executable, "-P", "-m", __name__, *place, ends, *variables]


def main(words: Sequence[str]) -> int:
    """Stands in; returns the exit code."""
    # First: so every thread inherits the mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        # One that is ignored, as SIGPIPE by Python, is dropped in spite of the mask.
        signal.signal(number, signal.SIG_DFL)
    pod, container, token, ends, *variables = words
    for variable in variables:
        name, _, value = variable.partition("=")
        os.environ[name] = value
    place = (pod, container, token)
    ends_machine = ends == "machine"
    children = _children()
    guard = _leave_guard(place, ends_machine)
    import asyncio

    from vc_runtime import relay

    report = _Report()
    exit_code: int | None = None
    failed = False
    try:
        exit_code = asyncio.run(relay.carry(pod, container, token, children, report.connected))
    except Exception as error:
        report.failed(error)
        failed = True
    has_ended = exit_code is not None
    try:
        os.write(guard, _HAS_ENDED if has_ended else _IS_LEFT)
    except BrokenPipeError:  # the guard was killed
        _end_what_is_left(place, ends_machine, has_ended)
    if failed:
        return 1
    return _LOST if exit_code is None else exit_code


class _Report:
    """Tells the caller whether the streams are connected; later errors go to stderr."""

    def __init__(self) -> None:
        self._is_connected = False

    def connected(self) -> None:
        os.write(_REPORT, b"ok")
        self._is_connected = True
        self._end()

    def failed(self, error: Exception) -> None:
        from vc_runtime.command import explained

        with contextlib.suppress(OSError):  # nobody may read it any more
            if self._is_connected:
                os.write(2, f"vc-runtime: the stand-in has failed: {explained(error)}\n".encode())
            else:
                os.write(_REPORT, f"the stand-in is not connected: {explained(error)}".encode())
        self._end()

    def _end(self) -> None:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, _REPORT)  # not closed: nothing else gets this number
        os.close(null)


def _children() -> set[int]:
    """Returns the children of the program that this one has replaced."""
    # Not there without CONFIG_PROC_CHILDREN: then one entry stays in the table of processes.
    with contextlib.suppress(FileNotFoundError):
        return set(map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()))
    return set()


def _leave_guard(place: tuple[str, str, str], ends_machine: bool) -> int:
    """Leaves a child that waits for the end of this process; returns its pipe.

    The byte in the pipe says whether the process in the guest has ended.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        return writing
    code = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2, _REPORT):  # the caller waits for their ends
            os.dup2(null, number)
        os.close(writing)
        with open(reading, "rb") as pipe:  # noqa: PTH123 (a descriptor)
            has_ended = pipe.read() == _HAS_ENDED
        _end_what_is_left(place, ends_machine, has_ended)
        code = 0
    finally:
        os._exit(code)  # also after an error, of which nobody is there to be told


def _end_what_is_left(place: tuple[str, str, str], ends_machine: bool, has_ended: bool) -> None:
    if ends_machine or not has_ended:
        import asyncio

        from vc_runtime import stand_in_guard

        asyncio.run(stand_in_guard.end(*place, ends_machine=ends_machine, has_ended=has_ended))


if __name__ == "__main__":
    ended = main(sys.argv[1:])
    # A thread may be reading stdin: it is not waited for.
    os._exit(ended)
