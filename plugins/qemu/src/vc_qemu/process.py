"""Starts QEMU processes."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

from vc_core.driver_kit import HostProcess, program_environment
from vc_qemu.errors import QemuError

_ABOVE = 64
# The shell executes the program in its place. QEMU outlives this process, so it uses no current
# folder: none is kept busy, it reads nothing from there (it looks for firmware in the current
# folder first: qemu.git, softmmu/datadir.c), and its files are closed to other users.
_DETACHED = ("/bin/sh", "-c", 'umask 077; cd / && exec "$@"', "sh")


def spawn(command: Sequence[str], log: Path, descriptors: Mapping[int, int]) -> HostProcess:
    """Starts a program in a session of its own and in the folder "/", with its output in a log.

    Args:
        command: argv with the program's path first.
        log: file to append to.
        descriptors: number in the child to number in this process.

    Raises:
        QemuError: executing the program failed.
    """
    if not os.access(command[0], os.X_OK):
        raise QemuError(f"{command[0]} cannot be run: it is missing or not executable")
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    # Copies above all numbers of the child, so that none overwrites a descriptor that is
    # copied later.
    high = {
        theirs: fcntl.fcntl(ours, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
        for theirs, ours in descriptors.items()
    }
    actions += ((os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in high.items())
    defaults = [signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
    try:
        pid = os.posix_spawn(
            _DETACHED[0],
            [*_DETACHED, *command],
            program_environment(),
            file_actions=actions,
            setsid=True,
            setsigdef=defaults,
            setsigmask=[],
        )
    except OSError as error:
        raise QemuError(f"{command[0]} cannot be run: {error.strerror}") from error
    finally:
        for copy in high.values():
            os.close(copy)
    return HostProcess.of(pid)
