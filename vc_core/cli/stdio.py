"""Between our standard streams and a process in a guest: bytes unchanged, no faster than either side reads."""

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
    """Connects our streams to the process until it has ended.

    Raises:
        OutputClosed: nobody reads our output any more.
        KeyboardInterrupt: a second interruption came.
    """
    streams = await process.streams()
    _feed_in_background(streams)
    forwarding = asyncio.create_task(forward(interrupts, process))
    waiting = asyncio.create_task(
        process.wait()
    )  # from now on: its answer comes with the end of the output
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


# What asks us to end: the first one is for the command, the second one for us.
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
# Those that are not for the command: of our own children, terminal and output, and of faults in our
# own program.
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
    """Signals that came to us, for the command. The second one that asks for an end is for us."""

    def __init__(self) -> None:
        self._came: asyncio.Queue[int] = asyncio.Queue()
        self._count = 0
        self._main: asyncio.Task[object] | None = None
        self.is_forwarding = False

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Catches them for the length of a block.

        Until the command runs, one that asks for an end cancels the block; others wait for the
        command.
        """
        loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        numbers = [int(number) for number in signal.valid_signals() - _OURS]
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup
            numbers.remove(signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, self._on, number)
        try:
            yield
        except asyncio.CancelledError as error:
            if self._count:
                raise KeyboardInterrupt from error
            raise
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def next(self) -> int:
        """The next one to forward."""
        return await self._came.get()

    def _on(self, number: int) -> None:
        self._count += number in _ENDING
        if (
            self._main is not None
            and number in _ENDING
            and (not self.is_forwarding or self._count > 1)
        ):
            self._main.cancel()
        else:
            self._came.put_nowait(number)


async def forward(interrupts: Interrupts, process: Process) -> None:
    """Tells the command of signals that came to us."""
    interrupts.is_forwarding = True
    try:
        while True:
            number = await interrupts.next()
            try:
                await process.kill(number)
            except StateError:
                return  # it has ended: nobody is left to be told
            except VcError as error:
                log.warning("the command could not be told of %s: %s", signal_name(number), error)
    finally:
        interrupts.is_forwarding = False


def _feed_in_background(streams: ProcessStreams) -> None:
    """A thread reads our input: a file cannot be waited for by the loop.

    It ends with our process.
    """
    loop = asyncio.get_running_loop()
    if not _may_read():
        return

    def call(work: Coroutine[Any, Any, None]) -> bool:
        """Whether it was done: the loop may have ended before our input did."""
        try:
            asyncio.run_coroutine_threadsafe(work, loop).result()
        except (RuntimeError, concurrent.futures.CancelledError):
            work.close()
            return False
        except VcError as error:  # whoever waits for the output is told, too
            log.info("the command gets no more input: %s", error)
            return False
        return True

    def feed() -> None:
        try:
            while data := read_some(_CHUNK_BYTES):
                if not call(streams.write(data)):
                    return
        except OSError as error:
            log.warning("stdin cannot be read: %s; the command gets no input", error.strerror)
        call(streams.close_stdin())

    threading.Thread(target=feed, name="vc-stdin", daemon=True).start()


async def input_chunks() -> AsyncGenerator[bytes, None]:
    """Our input, as it comes. A daemon thread reads it, so that nobody waits for it when we end before it does.

    Raises:
        InvalidRequest: it cannot be read.
    """
    if not _may_read():
        raise InvalidRequest(
            "standard input is closed, or is the terminal of another job; nothing can be read from it"
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
                return  # the loop has ended before our input did

    threading.Thread(target=read, name="vc-stdin", daemon=True).start()
    while data := await chunks.get():
        if isinstance(data, OSError):
            raise InvalidRequest(f"standard input cannot be read: {data.strerror}")
        yield data


async def write_out(data: bytes) -> None:
    """Writes to our output. A daemon thread does, so that nobody waits for a reader who does not read when we end.

    Raises:
        OSError: it cannot be written.
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
        with contextlib.suppress(RuntimeError):  # the loop has ended before
            loop.call_soon_threadsafe(settle, failure)

    threading.Thread(target=write, name="vc-stdout", daemon=True).start()
    await done


def _may_read() -> bool:
    """A terminal stops a job in the background that reads it; such a job's command gets no input instead."""
    if sys.stdin is None or sys.stdin.closed:
        return False
    return not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp()
