"""Copies bytes between our standard streams and a process in a guest, with backpressure."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from vc_core.cli.exit_codes import OutputClosed
from vc_core.engine.api.process import Process
from vc_core.signals import signal_name
from vc_core.spec.errors import InvalidRequest, StateError, VcError
from vc_core.spec.values import ExitStatus, ProcessStreams, StreamName
from vc_core.standard_streams import read_some, write_all

log = logging.getLogger(__name__)

_CHUNK_BYTES = 64 << 10
_OUTPUTS = {StreamName.STDOUT: 1, StreamName.STDERR: 2}


async def proxy(process: Process, interrupts: Interrupts) -> ExitStatus:
    """Connect our streams to a process until it ends.

    Raises:
        OutputClosed: the reader of our output has closed it.
        KeyboardInterrupt: a second interrupt arrived.
    """
    streams = await process.streams()
    _feed_in_background(streams)
    forwarding = asyncio.create_task(forward(interrupts, process))
    # Started now, so that the exit status arrives with the end of the output.
    waiting = asyncio.create_task(process.wait())
    try:
        async for name, data in process.output():
            await asyncio.to_thread(write_all, _OUTPUTS[name], data)
        return await waiting
    except BrokenPipeError as error:
        raise OutputClosed from error
    except OSError as error:
        raise VcError(f"{error.filename} cannot be written: {error.strerror}") from error
    finally:
        forwarding.cancel()
        waiting.cancel()
        await asyncio.gather(forwarding, waiting, return_exceptions=True)
        await process.close()


# Signals that ask for an end: the first one is forwarded to the command, the second one ends vc.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# Signals that are not forwarded: about our children, terminal and output, and faults of our own
# program.
_OURS = frozenset(
    {
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD, signal.SIGPIPE, signal.SIGWINCH),
        *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT),
        *(
            signal.SIGSEGV,
            signal.SIGBUS,
            signal.SIGFPE,
            signal.SIGILL,
            signal.SIGTRAP,
            signal.SIGSYS,
        ),
    }
)


class Interrupts:
    """Queues signals for the command; the second signal that asks for an end cancels our task."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[int] = asyncio.Queue()
        self._count = 0
        self._main: asyncio.Task[object] | None = None
        self.is_forwarding = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catch signals during a block.

        Until the command runs, a signal that asks for an end cancels the block; others are queued.
        """
        loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        numbers = [int(number) for number in signal.valid_signals() - _OURS]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
            numbers.remove(signal.SIGHUP)
        # The loop examines all signals for each handler that it adds or removes. Its first one
        # makes every signal wake it up.
        first, *others = numbers
        loop.add_signal_handler(first, self._on, first)
        for number in others:
            signal.signal(
                number, lambda number, _frame: loop.call_soon_threadsafe(self._on, number)
            )
            signal.siginterrupt(number, False)
        try:
            yield
        except asyncio.CancelledError as error:
            if self._count:
                raise KeyboardInterrupt from error
            raise
        finally:
            for number in others:
                is_interrupt = number == signal.SIGINT
                signal.signal(
                    number, signal.default_int_handler if is_interrupt else signal.SIG_DFL
                )
            loop.remove_signal_handler(first)

    async def next(self) -> int:
        """Wait for the next signal to forward."""
        return await self._queue.get()

    def _on(self, number: int) -> None:
        self._count += number in _ENDING
        if (
            self._main is not None
            and number in _ENDING
            and (not self.is_forwarding or self._count > 1)
        ):
            self._main.cancel()
        else:
            self._queue.put_nowait(number)


async def forward(interrupts: Interrupts, process: Process) -> None:
    """Forward signals to the command until it ends."""
    interrupts.is_forwarding = True
    try:
        while True:
            number = await interrupts.next()
            try:
                await process.kill(number)
            except StateError:
                return  # the process has ended
            except VcError as error:
                log.warning(
                    "%s could not be forwarded to the command: %s", signal_name(number), error
                )
    finally:
        interrupts.is_forwarding = False


def _feed_in_background(streams: ProcessStreams) -> None:
    """Copy stdin to the process in a daemon thread, as the event loop cannot poll files."""
    loop = asyncio.get_running_loop()
    if not _may_read():
        return

    def call(work: Coroutine[Any, Any, None]) -> bool:
        """Run a coroutine in the loop; return False if the loop or the process's stdin is gone."""
        try:
            asyncio.run_coroutine_threadsafe(work, loop).result()
        except (RuntimeError, concurrent.futures.CancelledError):
            work.close()
            return False
        except VcError as error:  # reported by the task that reads the output, too
            log.info("stdin is no longer passed to the command: %s", error)
            return False
        return True

    def feed() -> None:
        try:
            while data := read_some(_CHUNK_BYTES):
                if not call(streams.write(data)):
                    return
        except OSError as error:
            log.warning("stdin cannot be read: %s; the command gets end of file", error.strerror)
        call(streams.close_stdin())

    threading.Thread(target=feed, name="vc-stdin", daemon=True).start()


async def input_chunks() -> AsyncGenerator[bytes, None]:
    """Yield stdin in chunks, read by a daemon thread so that it does not block our exit.

    Raises:
        InvalidRequest: stdin cannot be read.
    """
    if not _may_read():
        raise InvalidRequest(
            "stdin is closed or is the terminal of another job; redirect it from a file or pipe"
        )
    loop = asyncio.get_running_loop()
    chunks: asyncio.Queue[bytes | OSError] = asyncio.Queue(maxsize=4)

    def read() -> None:
        data: bytes | OSError = b"begin"
        while data and isinstance(data, bytes):
            try:
                data = read_some(_CHUNK_BYTES)
            except OSError as error:
                data = error
            putting = chunks.put(data)
            try:
                asyncio.run_coroutine_threadsafe(putting, loop).result()
            except (RuntimeError, concurrent.futures.CancelledError):
                putting.close()
                return  # the loop has ended

    threading.Thread(target=read, name="vc-stdin", daemon=True).start()
    while data := await chunks.get():
        if isinstance(data, OSError):
            raise InvalidRequest(f"stdin cannot be read: {data.strerror}")
        yield data


async def write_out(data: bytes) -> None:
    """Write to stdout in a daemon thread, so that a pending write does not block our exit.

    Raises:
        OSError: stdout cannot be written.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: OSError | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def write() -> None:
        failure: OSError | None = None
        try:
            write_all(1, data)
        except OSError as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=write, name="vc-stdout", daemon=True).start()
    await done


def _may_read() -> bool:
    """Whether stdin is open and reading it would not stop us as a background job."""
    if sys.stdin is None or sys.stdin.closed:
        return False
    return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
