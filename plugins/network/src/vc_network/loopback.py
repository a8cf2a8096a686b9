"""Connections of the host's programs to a namespace's own addresses, which the guest is to get.

A program that enters the namespace of a container finds at 127.0.0.1, and at the addresses of its
interfaces, what the container serves: so do those that forward ports for kubectl and for podman
without root. The guest has addresses of its own. So nft redirects these connections to one
listener, from which they are forwarded.
"""

from __future__ import annotations

import secrets
import socket

from vc_network.errors import NetworkFailure
from vc_network.netns import run

_RULES = """\
table ip {table} {{
    chain output {{
        type nat hook output priority -100;
        fib daddr type local tcp dport != {port} redirect to :{port}
    }}
}}
"""
_REMOVED = "table ip {table}\ndelete table ip {table}\n"
_WAITING = 128


def new_table() -> str:
    """Returns a name for a table: a namespace may have several machines."""
    return f"vc_loopback_{secrets.token_hex(4)}"


def take(table: str) -> int:
    """Redirects in this thread's namespace, by a new table; returns the listening socket.

    Raises:
        NetworkFailure: nft is missing, or refuses the rules.
    """
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=_WAITING) as listener:
            port = listener.getsockname()[1]
            run("nft", "-f", "-", text=_RULES.format(table=table, port=port))
            return listener.detach()
    except OSError as error:
        raise NetworkFailure(f"nothing can listen in the network namespace: {error}") from error


def give_back(table: str) -> None:
    """Removes a table from this thread's namespace, if it is there.

    Raises:
        NetworkFailure: nft fails.
    """
    run("nft", "-f", "-", text=_REMOVED.format(table=table))
