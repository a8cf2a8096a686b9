"""Sockets that are created before QEMU starts.

Separate from the monitor's client, whose import takes time, so that QEMU starts first.
"""

from __future__ import annotations

import socket
from pathlib import Path

from vc_qemu.errors import QemuError


def connected_socket(path: Path) -> socket.socket:
    """Connects to another process of the host.

    Raises:
        QemuError: no process listens.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.connect(str(path))
    except OSError as error:
        made.close()
        raise QemuError(
            f"nothing listens on {path}: {error.strerror}; start what the device is of"
        ) from error
    return made


def listening_socket(path: Path) -> socket.socket:
    """Returns a bound, listening socket.

    A client that connects before QEMU is ready waits in the backlog, without polling.

    Raises:
        QemuError: the path is too long for a unix socket.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)
        made.bind(str(path))
        path.chmod(0o600)
        made.listen(8)
    except OSError as error:
        made.close()
        raise QemuError(
            f"the socket {path} cannot be created: {error}; choose a shorter run_root"
        ) from error
    return made
