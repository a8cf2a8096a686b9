"""Connections of the host's programs to the loopback of a namespace, which the guest is to get.

A program that enters the namespace of a container finds on 127.0.0.1 what the container serves
there: so do those that forward ports for kubectl. The guest has a loopback of its own. So nft
redirects these connections to one listener, from which they are forwarded.
"""

from __future__ import annotations

import socket

from vc_network.errors import NetworkFailure
from vc_network.netns import run

_TABLE = "vc_loopback"
_ANY_HOST = "127.0.0.0/8"
_RULES = """\
table ip {table}
delete table ip {table}
table ip {table} {{
    chain output {{
        type nat hook output priority -100;
        ip daddr {hosts} tcp dport != {port} redirect to :{port}
    }}
}}
"""
_REMOVED = f"table ip {_TABLE}\ndelete table ip {_TABLE}\n"
_WAITING = 128


def take() -> int:
    """Redirects in this thread's namespace; returns the listening socket.

    Raises:
        NetworkFailure: nft is missing, or refuses the rules.
    """
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=_WAITING) as listener:
            port = listener.getsockname()[1]
            run("nft", "-f", "-", text=_RULES.format(table=_TABLE, hosts=_ANY_HOST, port=port))
            return listener.detach()
    except OSError as error:
        raise NetworkFailure(f"nothing can listen in the network namespace: {error}") from error


def give_back() -> None:
    """Removes the redirection from this thread's namespace.

    Raises:
        NetworkFailure: nft fails.
    """
    run("nft", "-f", "-", text=_REMOVED)
