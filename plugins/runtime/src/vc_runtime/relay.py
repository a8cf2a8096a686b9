"""Carries streams and signals between this process and one in a guest, by what every agent has."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import termios
import threading
from typing import TYPE_CHECKING

from vc_core.standard_streams import read_some, write_all
from vc_runtime.stand_in_guard import means_ended

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from vc_core import Pod, Process
    from vc_core.spec import ExitStatus

ALL_SIGNALS = signal.valid_signals()
_CHUNK_BYTES = 64 << 10
_EXPLAINED_S = 3.0  # to learn why the connection has ended; the pod's lock may be held for long
_SENT = 0  # si_code of a signal that a process has sent is at most this (sigaction(2))
_RESIZED = 0  # in the queue of signals


async def carry(
    pod: str, container: str, token: str, children: set[int], connected: Callable[[], None]
) -> int | None:
    """Connects streams and signals, and returns the exit code of the process.

    Returns None when the machine or the connection has ended first, and tells it on stderr.

    All signals are blocked.

    Args:
        pod: id of the pod.
        container: id of the container in it.
        token: that of the process.
        children: pids of children that are reaped.
        connected: called when the streams are connected.

    Raises:
        VcError: they are not connected.
    """
    from vc_core import Runtime
    from vc_core.spec import VcError

    runtime = Runtime.open()
    found = await runtime.get(pod)
    process = await found.container(container).process(may_wait=True, token=token)
    streams = await process.streams()
    # From now on: an operation that ends the container keeps others from being begun.
    waiting = asyncio.create_task(process.wait())
    connected()
    signals = _Signals(process, children)
    tasks = [asyncio.create_task(signals.forward()), asyncio.create_task(_feed(process))]
    written = {"stdout": 1, "stderr": 2}
    try:
        # Not by `Process.output`: that waits for the pod's lock to explain the end of a machine.
        async for name, data in streams.chunks():
            if name in written:
                try:
                    await asyncio.to_thread(write_all, written[name], data)
                except OSError:  # nobody reads it: the rest is dropped
                    del written[name]
        return (await waiting).code
    except VcError as error:
        what, code = await _explained(found, waiting)
        await _tell(f"{what} has ended: {error}")
        return code
    finally:
        for task in (*tasks, waiting):
            task.cancel()


async def _explained(pod: Pod, waiting: asyncio.Task[ExitStatus]) -> tuple[str, int | None]:
    """Returns what has ended, as text, and the exit code if the agent has told it."""
    from vc_core.spec import NotFound, VcError

    code = None
    what = "the connection to the process"
    with contextlib.suppress(VcError, TimeoutError):
        async with asyncio.timeout(_EXPLAINED_S):
            # Fails when the machine has ended, which the engine has waited for.
            with contextlib.suppress(VcError):
                code = (await waiting).code
            try:
                has_ended = (await pod.status(ask_guest=False)).state == "stopped"
            except NotFound:
                has_ended = True
            if has_ended:
                what = "the machine"
    return what, code


async def _tell(text: str) -> None:
    """Writes one line to stderr: stdout may carry data, and a terminal has only this stream."""
    from vc_runtime.command import one_line

    with contextlib.suppress(OSError):
        await asyncio.to_thread(write_all, 2, f"vc-runtime: {one_line(text)}\n".encode())


async def _feed(process: Process) -> None:
    """Sends all input, then its end. A thread reads it, as files cannot be polled."""
    from vc_core.spec import VcError

    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes] = asyncio.Queue(maxsize=1)

    def read() -> None:
        data = b"first"
        while data:
            try:
                data = read_some(_CHUNK_BYTES)
            except OSError:  # EIO: the terminal's other side is closed; or it cannot be read
                data = b""
            # Fails when the loop has ended, and this program with it.
            with contextlib.suppress(RuntimeError):
                asyncio.run_coroutine_threadsafe(chunks.put(data), loop).result()

    threading.Thread(target=read, daemon=True).start()
    # Input that the process does not take is dropped. An end of the machine is reported by what
    # reads the output.
    with contextlib.suppress(VcError):
        while data := await chunks.get():
            await process.write(data)
        await process.close_stdin()


class _Signals:
    """Signals for the process, changes of the terminal's size, and ended children."""

    def __init__(self, process: Process, children: set[int]) -> None:
        """Args:
        process: gets them.
        children: pids of those that are reaped; plugins of the engine wait for their own.
        """
        self._process = process
        self._children = children
        self._queue: asyncio.Queue[int] = asyncio.Queue()

    async def forward(self) -> None:
        """Forwards them in their order, until the task is cancelled."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._receive, args=(loop,), daemon=True).start()
        await self._resize()
        while True:
            number = await self._queue.get()
            if number in (_RESIZED, signal.SIGWINCH):
                await self._resize()
            if number != _RESIZED:
                await self._give(f"signal {number}", functools.partial(self._process.kill, number))

    async def _give(self, what: str, give: Callable[[], Awaitable[None]]) -> None:
        """Gives something to the process. What an end prevents is dropped; the output tells it."""
        from vc_core.spec import Busy, VcError

        while True:
            try:
                await give()
            except Busy:  # the pod's lock is held for long; it must not be lost
                continue
            except VcError as error:
                if not means_ended(error):
                    await _tell(f"{what} did not reach the process: {error}")
            return

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
        self._reap()  # those that ended before SIGCHLD was blocked
        with contextlib.suppress(RuntimeError):  # the loop has ended
            while True:
                info = signal.sigwaitinfo(ALL_SIGNALS)
                if info.si_signo == signal.SIGCHLD:
                    self._reap()
                is_sent = info.si_code <= _SENT and info.si_pid != os.getpid()
                # The kernel's own: of children, of the terminal's size, of a pipe that nobody
                # reads. A terminal that has hung up is meant for the process.
                if is_sent or info.si_signo == signal.SIGHUP:
                    loop.call_soon_threadsafe(self._queue.put_nowait, info.si_signo)
                elif info.si_signo == signal.SIGWINCH:
                    loop.call_soon_threadsafe(self._queue.put_nowait, _RESIZED)

    def _reap(self) -> None:
        for pid in tuple(self._children):
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    continue
            self._children.discard(pid)

    async def _resize(self) -> None:
        """Gives the terminal of the process the size of ours, if there is one."""
        try:
            rows, columns = termios.tcgetwinsize(0)
        except termios.error:
            return
        if rows and columns:
            give = functools.partial(self._process.resize, rows, columns)
            await self._give("the size of the terminal", give)
