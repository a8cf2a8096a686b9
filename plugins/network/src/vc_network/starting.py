"""Programs that go to the background: their start, and their end, also after a killed starter.

Each process from the fork to the program has a lock: `end` waits for one that is not the program
yet, as its starter may be killed in between. The program itself may close the lock's descriptor.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vc_core.driver_kit import HostProcess
from vc_network.errors import NetworkFailure
from vc_network.host_programs import start_daemon
from vc_network.namespace import program

log = logging.getLogger(__name__)

_LONGEST_S = 30.0
_BECOMES_S = 1.0  # after that, who has the lock does not become the program
_ASK_S = 0.01


async def start(lock: Path, words: Sequence[str], open_files: int) -> None:
    """Starts a program that goes to the background as soon as it works; returns then.

    Args:
        lock: file of the lock, in an existing folder of the program's own.
        words: path of the program, and its arguments.
        open_files: most descriptors that it has open.

    Raises:
        NetworkFailure: it failed, or another start of it has not ended.
    """
    with _opened(lock) as descriptor:
        if not _is_free(descriptor):
            raise NetworkFailure(f"another start of it has not ended ({lock})")
        await start_daemon(program("prlimit"), words, open_files, inherited=[descriptor])


async def end(
    lock: Path,
    noted: Callable[[], HostProcess | None],
    find: Callable[[], Iterable[HostProcess]],
) -> None:
    """Ends a program, also one that a killed starter was starting. Callable twice.

    A process that does not end within 30 s is logged, and left.

    Args:
        lock: file of the lock, which is removed.
        noted: returns the program by its pid file.
        find: returns processes that are the program by their command lines, at least one if there
            are any.
    """
    until = time.monotonic() + _LONGEST_S
    # Who looks for a program misses it while it goes to the background, but not once it is there.
    # Its pid file tells that it is there.
    needed, empty = 2, 0
    if (process := noted()) is not None:
        needed = 1 if await _killed(process, until) else 2
    if not lock.exists():  # no start is under way
        for process in find():
            await _killed(process, until)
        return
    with _opened(lock) as descriptor:
        others_from = time.monotonic() + _BECOMES_S
        while empty < needed:
            # Once it is free, nothing becomes the program any more.
            is_free = _is_free(descriptor)
            found = list(find())
            if not is_free and time.monotonic() > others_from:
                found += _holders(descriptor)
            ended = [await _killed(one, until) for one in found]
            empty = empty + 1 if is_free and not any(ended) else 0
            if time.monotonic() > until:
                pids = ", ".join(str(one.pid) for one in found) or "of another user"
                log.warning("processes of %s do not end; end them: %s", lock.parent, pids)
                break
            if not is_free:
                await asyncio.sleep(_ASK_S)  # nobody tells
        lock.unlink(missing_ok=True)


async def _killed(process: HostProcess, until: float) -> bool:
    """Returns whether a process has been ended; False for another user's, or one that goes on."""
    try:
        process.send(signal.SIGKILL)
    except PermissionError:
        return False
    return await process.ended_within(max(until - time.monotonic(), _ASK_S))


@contextmanager
def _opened(lock: Path) -> Iterator[int]:
    # Not for writing: the program parses what a guest sends.
    descriptor = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_free(descriptor: int) -> bool:
    """Takes the lock if nobody has it; returns whether this process has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holders(descriptor: int) -> list[HostProcess]:
    """Returns the other processes that have the lock, as far as this user may see that."""
    wanted, found = os.fstat(descriptor), []
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            for file in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    # A child of this process that has not called exec yet has a copy of
                    # `descriptor`, but without the lock.
                    if os.path.samestat(file.stat(), wanted) and (
                        "FLOCK" in (folder / "fdinfo" / file.name).read_text()
                    ):
                        found.append(HostProcess.of(int(folder.name)))
                        break
    return found
