"""Attaches our terminal to a process in a guest, until the detach keys are typed."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vc_core.cli.exit_codes import OutputClosed
from vc_core.cli.stdio import Interrupts, forward
from vc_core.engine.api.process import Process
from vc_core.spec.errors import InvalidRequest, StateError
from vc_core.spec.values import ExitStatus, ProcessStreams

_INPUT, _OUTPUT = 0, 1
_CHUNK_BYTES = 4096
_CTRL = 0x1F  # of a letter's code, what the key Ctrl leaves


def require_terminal() -> None:
    """Check that stdin is a terminal.

    Raises:
        InvalidRequest: it is not.
    """
    if not os.isatty(_INPUT):
        raise InvalidRequest("-t needs a terminal, and stdin is not one; remove -t")


def size() -> tuple[int, int]:
    """Rows and columns of our terminal, or 24 and 80 without one."""
    try:
        columns, rows = os.get_terminal_size(_INPUT)
    except OSError:
        return 24, 80
    return (rows, columns) if rows and columns else (24, 80)


def parse_keys(text: str) -> bytes:
    """Parse a key sequence such as "ctrl-p,ctrl-q" into the bytes that a terminal sends for it.

    Raises:
        InvalidRequest: a key is invalid.
    """
    sequence = bytearray()
    for name in filter(None, text.split(",")):
        key = name.removeprefix("ctrl-")
        is_control = key != name
        if (
            len(key) != 1
            or not key.isascii()
            or (is_control and not (key.isalpha() or key in "@[\\]^_"))
        ):
            raise InvalidRequest(
                f"{name!r} is not a key; use letters and ctrl-LETTER, separated by commas"
            )
        sequence.append(ord(key.upper()) & _CTRL if is_control else ord(key))
    return bytes(sequence)


class DetachKeys:
    """Finds a key sequence in the input; a possible beginning of it is held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def look(self, data: bytes) -> tuple[bytes, bool]:
        """Return the input for the process, and whether the sequence is complete.

        Input after the sequence is discarded.
        """
        if not self._keys:
            return data, False
        data = self._held + data
        at = data.find(self._keys)
        if at >= 0:
            return data[:at], True
        longest = min(len(self._keys) - 1, len(data))
        kept = next(
            (count for count in range(longest, 0, -1) if data.endswith(self._keys[:count])), 0
        )
        self._held = data[len(data) - kept :]
        return data[: len(data) - kept], False


async def attach(process: Process, interrupts: Interrupts, keys: bytes) -> ExitStatus | None:
    """Attach our terminal to a process; return its exit status, or None if the user detached.

    Raises:
        OutputClosed: our terminal was closed.
    """
    streams = await process.streams()
    detached = asyncio.Event()
    with _raw_terminal() as resized:
        showing = asyncio.create_task(_show(process))
        # Started now, so that the exit status arrives with the end of the output.
        waiting = asyncio.create_task(process.wait())
        detaching = asyncio.create_task(detached.wait())
        feeding = _feed(streams, DetachKeys(keys), detached)
        helpers = [
            asyncio.create_task(work)
            for work in (feeding, _follow_size(process, resized), forward(interrupts, process))
        ]
        tasks = [showing, waiting, detaching, *helpers]
        try:
            await asyncio.wait([showing, detaching], return_when=asyncio.FIRST_COMPLETED)
            if not showing.done():
                return None
            await showing
            return await waiting
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await process.close()


@contextmanager
def _raw_terminal() -> Iterator[asyncio.Event]:
    """Put our terminal into raw mode for a block; yield an event that is set when its size changes.

    A terminal keeps its mode when a program ends or is stopped, so both restore it.
    """
    loop = asyncio.get_running_loop()
    resized = asyncio.Event()
    resized.set()
    before = termios.tcgetattr(_INPUT)

    def restore() -> None:
        with contextlib.suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(_INPUT, termios.TCSADRAIN, before)

    def stop() -> None:
        restore()
        os.kill(os.getpid(), signal.SIGSTOP)
        tty.setraw(_INPUT, termios.TCSADRAIN)  # execution continues here after SIGCONT
        resized.set()

    handlers: dict[signal.Signals, Callable[[], None]] = {
        signal.SIGWINCH: resized.set,
        signal.SIGTSTP: stop,
    }
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    tty.setraw(_INPUT, termios.TCSADRAIN)
    try:
        yield resized
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)
        restore()


async def _show(process: Process) -> None:
    async for _, data in process.output():
        try:
            await asyncio.to_thread(_write_all, data)
        except OSError as error:
            if error.errno not in (errno.EIO, errno.EPIPE):
                raise
            raise OutputClosed from error


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(_OUTPUT, view) :]


async def _feed(streams: ProcessStreams, keys: DetachKeys, detached: asyncio.Event) -> None:
    while True:
        await _typed()
        try:
            data = os.read(_INPUT, _CHUNK_BYTES)
        except OSError as error:  # EIO: the terminal was closed; SIGHUP is forwarded to the command
            if error.errno != errno.EIO:
                raise
            return
        if not data:
            return
        passed, is_detached = keys.look(data)
        if passed:
            await streams.write(passed)
        if is_detached:
            detached.set()
            return


async def _typed() -> None:
    """Wait until stdin is readable.

    The reader is removed at its first call, as a second one for the same input would block.
    """
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()

    def note() -> None:
        loop.remove_reader(_INPUT)
        readable.set()

    loop.add_reader(_INPUT, note)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(_INPUT)


async def _follow_size(process: Process, resized: asyncio.Event) -> None:
    while await resized.wait():
        resized.clear()
        with contextlib.suppress(StateError):  # the process has ended
            await process.resize(*size())
