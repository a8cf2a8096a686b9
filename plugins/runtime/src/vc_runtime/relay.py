"""Carries streams and signals between this process and one in a guest, by what every agent has."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import termios
import threading
from typing import TYPE_CHECKING

from vc_core.standard_streams import read_some, write_all

if TYPE_CHECKING:
    from collections.abc import Callable

    from vc_core import Process

ALL_SIGNALS = signal.valid_signals()
_CHUNK_BYTES = 64 << 10
_MACHINE_ENDED = 128 + signal.SIGKILL
_SENT = 0  # si_code of a signal that a process has sent is at most this (sigaction(2))
_RESIZED = 0  # in the queue of signals


async def carry(
    pod: str, container: str, token: str, children: set[int], connected: Callable[[], None]
) -> int:
    """Connects streams and signals, and returns the exit code; 137 when the machine ends first.

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
    process = (
        await (await runtime.get(pod)).container(container).process(may_wait=True, token=token)
    )
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
        # Not to stdout, which may carry data; a terminal has only this stream.
        text = f"vc-runtime: the machine has ended: {error}\n".encode()
        with contextlib.suppress(OSError):
            write_all(2, text)
        return _MACHINE_ENDED
    finally:
        for task in (*tasks, waiting):
            task.cancel()


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
        from vc_core.spec import Busy, VcError

        loop = asyncio.get_running_loop()
        threading.Thread(target=self._receive, args=(loop,), daemon=True).start()
        await self._resize()
        while True:
            number = await self._queue.get()
            if number in (_RESIZED, signal.SIGWINCH):
                await self._resize()
            while number != _RESIZED:
                try:
                    await self._process.kill(number)
                except Busy:  # the pod's lock is held for long; the signal must not be lost
                    continue
                except VcError:  # it has just ended, or its machine; the output says so
                    pass
                break

    def _receive(self, loop: asyncio.AbstractEventLoop) -> None:
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
        from vc_core.spec import VcError

        try:
            rows, columns = termios.tcgetwinsize(0)
        except termios.error:
            return
        if rows and columns:
            with contextlib.suppress(VcError):  # as with signals
                await self._process.resize(rows, columns)
