"""The socket by which `start` asks a stand-in to start its container.

The folder of the record is the user's own, and the stand-in serves that user and root only. Paths
of sockets are limited, and those of `--root` are long: both sides name it by a descriptor of the
folder.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from vc_runtime.errors import RuntimeFailure
from vc_runtime.records import Records

log = logging.getLogger(__name__)

_NAME = "start.sock"
_OK = b"ok"
_LONGEST = 4 << 10


@contextmanager
def listening(records: Records, container_id: str) -> Iterator[socket.socket]:
    """Provides the listening socket, which is closed when the process is replaced."""
    with records.opened(container_id) as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(_path(folder))
        listener.listen()
        yield listener


async def ask(records: Records, container_id: str, limit_s: float) -> bool:
    """Returns whether the stand-in has started its container. False if it has not.

    Args:
        records: of all containers.
        container_id: the caller's id of the container.
        limit_s: for the answer, in seconds. The stand-in gives up when nobody waits for it.

    Raises:
        RuntimeFailure: it has not answered, so the container may run.
    """
    with records.opened(container_id) as folder:
        try:
            reader, writer = await asyncio.open_unix_connection(_path(folder))
        except (FileNotFoundError, ConnectionRefusedError):
            return False  # it does not serve that
        with contextlib.closing(writer):
            try:
                async with asyncio.timeout(limit_s):
                    answer = await reader.read(_LONGEST)
            except (OSError, TimeoutError) as error:
                raise _unanswered(container_id) from error
    if not answer:
        raise _unanswered(container_id)
    if answer != _OK:
        log.debug("the stand-in of %s does not start it: %r", container_id, answer)
    return answer == _OK


def _unanswered(container_id: str) -> RuntimeFailure:
    return RuntimeFailure(
        f"the stand-in of {container_id!r} has not answered, so the container may run; delete it"
    )


def _path(folder: int) -> str:
    return f"/proc/self/fd/{folder}/{_NAME}"
