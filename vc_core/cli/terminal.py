"""Our terminal, for a command that has one of its own in a guest: every key goes there, but for those that detach."""

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
    """Raises InvalidRequest where there is none to hand on."""
    if not os.isatty(_INPUT):
        raise InvalidRequest("-t needs a terminal as its input, and this is none; leave -t out")


def size() -> tuple[int, int]:
    """Rows and columns of our terminal; what is usual where there is none."""
    try:
        columns, rows = os.get_terminal_size(_INPUT)
    except OSError:
        return 24, 80
    return (rows, columns) if rows and columns else (24, 80)


def parse_keys(text: str) -> bytes:
    """What a sequence of keys like "ctrl-p,ctrl-q" sends; nothing for an empty one.

    Raises:
        InvalidRequest: naming the key that is none.
    """
    found = bytearray()
    for name in filter(None, text.split(",")):
        key = name.removeprefix("ctrl-")
        is_control = key != name
        if (
            len(key) != 1
            or not key.isascii()
            or (is_control and not (key.isalpha() or key in "@[\\]^_"))
        ):
            raise InvalidRequest(
                f"{name!r} is no key; a letter is one, or ctrl- and a letter, with commas in between"
            )
        found.append(ord(key.upper()) & _CTRL if is_control else ord(key))
    return bytes(found)


class DetachKeys:
    """Looks for a sequence of keys in what is typed; holds its beginning back until it is clear what it is."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = b""

    def look(self, data: bytes) -> tuple[bytes, bool]:
        """What goes to the command, and whether the whole sequence was typed: nothing behind it counts."""
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
    """Connects our terminal to a process that has one, until it has ended; None when the user has detached.

    Raises:
        OutputClosed: our terminal is gone.
    """
    streams = await process.streams()
    detached = asyncio.Event()
    with _raw_terminal() as resized:
        showing = asyncio.create_task(_show(process))
        waiting = asyncio.create_task(
            process.wait()
        )  # from now on: its answer comes with the end of the output
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
    """Our terminal hands every key on, for the length of a block; gives what is set when its size has changed.

    A terminal keeps how it was set when its program ends or is stopped, so whatever happens sets it back.
    """
    loop = asyncio.get_running_loop()
    resized = asyncio.Event()
    resized.set()
    before = termios.tcgetattr(_INPUT)

    def set_back() -> None:
        with contextlib.suppress(termios.error):  # it is gone
            termios.tcsetattr(_INPUT, termios.TCSADRAIN, before)

    def stop() -> None:
        set_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        tty.setraw(_INPUT, termios.TCSADRAIN)  # from here on when it goes on
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
        set_back()


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
        except (
            OSError
        ) as error:  # a terminal that is gone has an end, too: SIGHUP tells the command
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
    """Returns when there is something to read.

    Asked once each time: a second answer to the same keys would block.
    """
    loop = asyncio.get_running_loop()
    came = asyncio.Event()

    def note() -> None:
        loop.remove_reader(_INPUT)
        came.set()

    loop.add_reader(_INPUT, note)
    try:
        await came.wait()
    finally:
        loop.remove_reader(_INPUT)


async def _follow_size(process: Process, resized: asyncio.Event) -> None:
    while await resized.wait():
        resized.clear()
        with contextlib.suppress(StateError):  # it has ended: nobody is left to be told
            await process.resize(*size())
