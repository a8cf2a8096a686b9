"""The part of the filter of names that changes the rules and writes the record.

The part that reads what guests send (names.py) is confined and can do neither. It asks this one,
which believes nothing: only its own sets, only addresses that names may have, each of them once,
and a bounded record.

Each message is JSON (`Request`) with its length in four bytes before it; each is answered by the
reason why it failed, which is empty when it did not.
"""

from __future__ import annotations

import ipaddress
import socket
import subprocess
from pathlib import Path
from typing import Annotated

import msgspec

from vc_core.spec import NetworkRule
from vc_network.denied_names import MOST_NAMES, DeniedName
from vc_network.ruleset import TABLE

HIGHEST_TTL_S = 3600
MOST_ADDRESSES = 16
LENGTH_BYTES = 4
_MESSAGE_BYTES = 1 << 20
_REASON_CHARACTERS = 200


class Opening(msgspec.Struct, frozen=True):
    """A rule about names, and the sets that their addresses go to, by version."""

    rule: NetworkRule
    sets: dict[str, str]


class Orders(msgspec.Struct, frozen=True):
    """What the filter does.

    Attributes:
        listen: own addresses.
        servers: addresses of the DNS servers that are asked, in this order.
        openings: the allowed names.
        denied: names that are refused although they are allowed.
        private: networks whose addresses names may not have.
        nft: path of nft.
        record: the file for what was refused.
    """

    listen: tuple[str, ...]
    servers: tuple[str, ...]
    openings: tuple[Opening, ...]
    denied: tuple[NetworkRule, ...]
    private: tuple[str, ...]
    nft: str
    record: str


class Open(msgspec.Struct, frozen=True, tag=True):
    """Opens addresses in sets for `ttl` seconds, in one transaction also where they are open."""

    sets: tuple[str, ...]
    addresses: Annotated[tuple[str, ...], msgspec.Meta(max_length=MOST_ADDRESSES)]
    ttl: Annotated[int, msgspec.Meta(ge=1, le=HIGHEST_TTL_S)]


class Record(msgspec.Struct, frozen=True, tag=True):
    """Writes what was refused."""

    names: Annotated[tuple[DeniedName, ...], msgspec.Meta(max_length=2 * (MOST_NAMES + 1))]


Request = Open | Record


class Opener:
    """Does what is asked, if the orders permit it."""

    def __init__(self, orders: Orders) -> None:
        self._nft = orders.nft
        self._record = Path(orders.record)
        self._private = [ipaddress.ip_network(one) for one in orders.private]
        self._sets = {
            name: int(version) for one in orders.openings for version, name in one.sets.items()
        }

    def handle(self, message: bytes) -> str:
        """Returns why a request failed; empty when it did not.

        Raises:
            ValueError: the request is none, or one that is not permitted.
        """
        request = msgspec.json.decode(message, type=Request)
        if isinstance(request, Record):
            new = self._record.with_suffix(".new")
            new.write_bytes(msgspec.json.encode(request.names))
            new.replace(self._record)
            return ""
        return self._open(request)

    def serve(self, channel: socket.socket) -> None:
        """Answers requests until the other side ends."""
        while length := int.from_bytes(_received(channel, LENGTH_BYTES)):
            if length > _MESSAGE_BYTES:
                raise ValueError(f"a request has {length} bytes")
            reason = self.handle(_received(channel, length)).encode()
            channel.sendall(len(reason).to_bytes(LENGTH_BYTES) + reason)

    def _open(self, request: Open) -> str:
        addresses = {ipaddress.ip_address(one) for one in request.addresses}
        if len(addresses) < len(request.addresses) or len(set(request.sets)) < len(request.sets):
            raise ValueError("an address or a set is repeated")
        if not self._sets.keys() >= set(request.sets):
            raise ValueError("a set is none of this pod's")
        for address in addresses:
            if any(address in network for network in self._private):
                raise ValueError(f"{address} may not be opened")
            if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
                raise ValueError("an address has a zone, which may hold any text")  # RFC 4007
        lines = []
        for name in request.sets:
            for address in addresses:
                if self._sets[name] != address.version:
                    raise ValueError(f"{address} does not belong to the set {name}")
                one = f"element inet {TABLE} {name} {{ {address}"
                add = f"add {one} timeout {request.ttl}s }}"
                lines += [add, f"delete {one} }}", add]
        done = subprocess.run(
            [self._nft, "-f", "-"],
            input="\n".join(lines),
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        return done.stderr[:_REASON_CHARACTERS] or "nft failed" if done.returncode else ""


def _received(channel: socket.socket, length: int) -> bytes:
    """Returns as many bytes; fewer when the other side has ended."""
    received = b""
    while len(received) < length and (part := channel.recv(length - len(received))):
        received += part
    return received
