"""The filter of names: the DNS server of a pod whose policy has names. Runs in the pod's namespace.

usage: python -I -m vc_network.names DESCRIPTOR PID_FILE

DESCRIPTOR is a socket to the caller. Writes its pid and start time to PID_FILE, waits for its
orders (`Orders`, as JSON), answers "ready" once it listens, and serves until it is killed. Ends
when the caller ends before that.

It answers questions for the addresses of allowed names. An answer opens these addresses in the
rules for as long as the answer is valid. Everything else is refused and recorded, without a word to
any other server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import resource
import socket
import sys
import time
from collections import OrderedDict
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec

from vc_core.spec import NetworkRule
from vc_network.denied_names import DeniedNames
from vc_network.ruleset import TABLE

_MESSAGE_BYTES = 1 << 18
_FILE_BYTES = 1 << 20  # of what this process writes to any file
_OPEN_FILES = 256
_UDP_BYTES = 512  # RFC 1035, 4.2.1; a longer answer is asked for by TCP
_LOWEST_TTL_S, _HIGHEST_TTL_S = 10, 3600
_NEGATIVE_TTL_S = 10
_ANSWER_S = 4.0  # a resolver asks again after 5 s
_IDLE_S = 10.0
_MOST_ADDRESSES = 16
_MOST_CACHED = 1024
_MOST_AT_ONCE = 64
_MOST_CONNECTIONS = 16
_QUESTIONS_PER_S = 100
# A label may contain a dot ("a\\.b"), which text that ends with an allowed name would hide.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_TYPES = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}
log = logging.getLogger(__name__)


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


class Found(msgspec.Struct, frozen=True):
    """The addresses of a name, valid until `until_s` of the monotonic clock."""

    addresses: tuple[str, ...]
    rcode: int
    until_s: float


class Unanswered(Exception):
    """No server has answered, or the answer cannot be used."""


class Filter:
    """Answers questions."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._private = [ipaddress.ip_network(one) for one in orders.private]
        self._found: OrderedDict[tuple[str, int], Found] = OrderedDict()
        self._changing = asyncio.Lock()
        self._allowance = float(_QUESTIONS_PER_S)
        self._allowance_s = time.monotonic()
        self.denied = DeniedNames(Path(orders.record))

    async def answer(self, wire: bytes, limit: int) -> bytes:
        """Returns the answer to a message of the guest; empty for what is no question.

        Args:
            wire: the message.
            limit: of the answer's length in bytes; a longer one says that it is truncated.
        """
        try:
            question = dns.message.from_wire(wire)
        except (dns.exception.DNSException, ValueError):
            return b""
        if question.flags & dns.flags.QR:
            return b""
        answer = dns.message.make_response(question, recursion_available=True)
        if question.opcode() != dns.opcode.QUERY:
            answer.set_rcode(dns.rcode.NOTIMP)
        elif len(question.question) != 1:
            answer.set_rcode(dns.rcode.FORMERR)
        else:
            await self._fill(answer, question.question[0])
        try:
            return answer.to_wire(max_size=limit)
        except dns.exception.TooBig:
            answer.answer.clear()
            answer.flags |= dns.flags.TC
            return answer.to_wire()

    async def _fill(self, answer: dns.message.Message, asked: dns.rrset.RRset) -> None:
        name = asked.name.to_text(omit_final_dot=True).lower()
        openings = self._openings(name)
        if asked.rdclass != dns.rdataclass.IN or not openings:
            self.denied.add("name", name)
            answer.set_rcode(dns.rcode.REFUSED)
            return
        version = _TYPES.get(asked.rdtype)
        if version is None:
            return  # no data: an address in another record would not be opened
        sets = [one.sets[str(version)] for one in openings if str(version) in one.sets]
        try:
            async with asyncio.timeout(_ANSWER_S):
                found = await self._look_up(name, asked, sets)
        except (Unanswered, TimeoutError) as error:
            log.info("%s: %s", name, error)
            answer.set_rcode(dns.rcode.SERVFAIL)
            return
        answer.set_rcode(dns.rcode.Rcode(found.rcode))
        if found.addresses:
            ttl = max(0, int(found.until_s - time.monotonic()))
            answer.answer.append(
                dns.rrset.from_text(asked.name, ttl, "IN", asked.rdtype, *found.addresses)
            )

    def _openings(self, name: str) -> list[Opening]:
        if not _NAME.fullmatch(name) or any(rule.covers(name) for rule in self._orders.denied):
            return []
        return [one for one in self._orders.openings if one.rule.covers(name)]

    async def _look_up(self, name: str, asked: dns.rrset.RRset, sets: list[str]) -> Found:
        key = (name, int(asked.rdtype))
        known = self._found.get(key)
        if known is not None and known.until_s - time.monotonic() > 1:
            return known
        self._take_allowance()
        response = await self._ask(asked)
        try:
            chain = response.resolve_chaining()
        except dns.exception.DNSException as error:
            raise Unanswered(f"its answer makes no sense: {error}") from error
        addresses = [] if chain.answer is None else [rdata.to_text() for rdata in chain.answer]
        public = tuple(sorted(one for one in addresses if not self._is_private(one)))
        if len(public) < len(addresses):
            self.denied.add("rebinding", name)
        public = public[:_MOST_ADDRESSES]
        ttl = min(max(chain.minimum_ttl, _LOWEST_TTL_S), _HIGHEST_TTL_S)
        found = Found(
            public, int(response.rcode()), time.monotonic() + (ttl if public else _NEGATIVE_TTL_S)
        )
        if public:
            await self._open(sets, public, ttl)
        self._found.pop(key, None)
        self._found[key] = found
        if len(self._found) > _MOST_CACHED:
            self._found.popitem(last=False)
        return found

    def _is_private(self, text: str) -> bool:
        address = ipaddress.ip_address(text)
        return any(address in network for network in self._private)

    async def _ask(self, asked: dns.rrset.RRset) -> dns.message.QueryMessage:
        reason = "the host has no DNS server"
        for server in self._orders.servers:
            query = dns.message.make_query(asked.name, asked.rdtype)
            try:
                response, _ = await dns.asyncquery.udp_with_fallback(
                    query, server, timeout=_ANSWER_S / len(self._orders.servers)
                )
            except (dns.exception.DNSException, OSError) as error:
                reason = f"{server}: {error}"
                continue
            if isinstance(response, dns.message.QueryMessage) and response.rcode() in (
                dns.rcode.NOERROR,
                dns.rcode.NXDOMAIN,
            ):
                return response
            reason = f"{server}: {dns.rcode.to_text(response.rcode())}"
        raise Unanswered(reason)

    async def _open(self, sets: list[str], addresses: tuple[str, ...], ttl: int) -> None:
        """Opens addresses for `ttl` seconds, in one transaction also where they are open.

        Raises:
            Unanswered: a set is full.
        """
        lines = []
        for name in sets:
            for address in addresses:
                one = f"element inet {TABLE} {name} {{ {address}"
                lines += [f"add {one} timeout {ttl}s }}", f"delete {one} }}"]
                lines.append(lines[-2])
        async with self._changing:
            child = await asyncio.create_subprocess_exec(
                *(self._orders.nft, "-f", "-"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
            _, said = await child.communicate("\n".join(lines).encode())
        if child.returncode != 0:
            raise Unanswered(said.decode(errors="replace")[:200])

    def _take_allowance(self) -> None:
        now = time.monotonic()
        gained = (now - self._allowance_s) * _QUESTIONS_PER_S
        self._allowance = min(self._allowance + gained, _QUESTIONS_PER_S)
        self._allowance_s = now
        if self._allowance < 1:
            raise Unanswered("the guest asks too much")
        self._allowance -= 1


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, names: Filter) -> None:
        self._names = names
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(self._tasks) < _MOST_AT_ONCE:
            task = asyncio.create_task(self._serve(data, addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = await self._names.answer(data, _UDP_BYTES)
        if answer and self._transport is not None:
            self._transport.sendto(answer, addr)


class _Connections:
    def __init__(self, names: Filter) -> None:
        self._names = names
        self._count = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the questions of a connection, each with its length in two bytes before it."""
        if self._count >= _MOST_CONNECTIONS:
            writer.close()
            return
        self._count += 1
        try:
            while True:
                async with asyncio.timeout(_IDLE_S):
                    length = int.from_bytes(await reader.readexactly(2))
                    answer = await self._names.answer(await reader.readexactly(length), 65535)
                    if not answer:
                        return
                    writer.write(len(answer).to_bytes(2) + answer)
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            return
        finally:
            self._count -= 1
            writer.close()


async def _serve(caller: socket.socket, orders: Orders) -> None:
    names = Filter(orders)
    loop = asyncio.get_running_loop()
    connections = _Connections(names)
    servers = []
    for address in orders.listen:
        await loop.create_datagram_endpoint(lambda: _Datagrams(names), local_addr=(address, 53))
        servers.append(await asyncio.start_server(connections.serve, address, 53, limit=1 << 17))
    with caller:
        caller.send(b"ready")
    await names.denied.keep_written()


def main(descriptor: int, pid_file: Path) -> None:
    """Runs the filter."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE_BYTES, _FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    caller = socket.socket(fileno=descriptor)
    start_ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    pid_file.write_text(f"{os.getpid()} {start_ticks}")
    message = caller.recv(_MESSAGE_BYTES)
    if message:
        with contextlib.suppress(BrokenPipeError):  # the caller has ended
            asyncio.run(_serve(caller, msgspec.json.decode(message, type=Orders)))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
