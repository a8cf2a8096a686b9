"""The filter of names: the DNS server of a pod whose policy has names. Runs in the pod's namespace.

usage: python -I -m vc_network.names DESCRIPTOR PID_FILE

DESCRIPTOR is a socket to the caller. Writes its pid and start time to PID_FILE, waits for its
orders (`Orders`, as JSON), answers "ready" once it listens, and serves until it is killed. Ends
when the caller ends before that.

It answers questions for the addresses of allowed names. An answer opens these addresses in the
rules for as long as the answer is valid. Everything else is refused and recorded, without a word to
any other server.

These are two processes. The one that reads what the guest and other servers send is confined
(confined.py); the one that it was forked from changes the rules and writes the record (opener.py).
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
from collections.abc import Awaitable, Callable
from pathlib import Path

import dns.asyncbackend
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

from vc_network import confined
from vc_network.denied_names import DeniedNames
from vc_network.opener import (
    HIGHEST_TTL_S,
    LENGTH_BYTES,
    MOST_ADDRESSES,
    Open,
    Opener,
    Opening,
    Orders,
    Record,
    Request,
)

_MESSAGE_BYTES = 1 << 18
_LIMITS = {  # of both processes, which neither can raise
    resource.RLIMIT_FSIZE: 1 << 20,  # of what is written to any file
    resource.RLIMIT_NOFILE: 256,
    resource.RLIMIT_DATA: 256 << 20,
    resource.RLIMIT_CORE: 0,
}
_UDP_BYTES = 512  # RFC 1035, 4.2.1; a longer answer is asked for by TCP
_LOWEST_TTL_S = 10
_NEGATIVE_TTL_S = 10
_ANSWER_S = 4.0  # a resolver asks again after 5 s
_IDLE_S = 10.0
_PAUSE_S = 1.0  # between two records of what was refused
_SAMPLES = {
    "A": "192.0.2.1",
    "AAAA": "2001:db8::1",
    "CNAME": "b.",
    "DNAME": "b.",
    "NS": "b.",
    "SOA": "b. c. 1 1 1 1 1",
    "TXT": "a",
    "RRSIG": "A 8 1 1 20300101000000 20200101000000 1 a. AAAA",
}
_MOST_CACHED = 1024
_MOST_AT_ONCE = 64
_MOST_CONNECTIONS = 16
_QUESTIONS_PER_S = 100
# A label may contain a dot ("a\\.b"), which text that ends with an allowed name would hide.
_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
_TYPES = {dns.rdatatype.A: 4, dns.rdatatype.AAAA: 6}
log = logging.getLogger(__name__)


class Found(msgspec.Struct, frozen=True):
    """The addresses of a name, valid until `until_s` of the monotonic clock."""

    addresses: tuple[str, ...]
    rcode: int
    until_s: float


class Unanswered(Exception):
    """No server has answered, or the answer cannot be used."""


class Filter:
    """Answers questions."""

    def __init__(self, orders: Orders, tell: Callable[[Request], Awaitable[str]]) -> None:
        """Args:
        orders: what it does.
        tell: has a request done; returns why it failed, empty when it did not.
        """
        self._orders = orders
        self._tell = tell
        self._private = [ipaddress.ip_network(one) for one in orders.private]
        self._found: OrderedDict[tuple[str, int], Found] = OrderedDict()
        self._allowance = float(_QUESTIONS_PER_S)
        self._allowance_s = time.monotonic()
        self.denied = DeniedNames()

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

    async def tell_denied(self) -> None:
        """Waits until something was refused, and has it written."""
        await self._tell(Record(await self.denied.changed()))

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
        public = public[:MOST_ADDRESSES]
        ttl = min(max(chain.minimum_ttl, _LOWEST_TTL_S), HIGHEST_TTL_S)
        found = Found(
            public, int(response.rcode()), time.monotonic() + (ttl if public else _NEGATIVE_TTL_S)
        )
        if public and (reason := await self._tell(Open(tuple(sets), public, ttl))):
            raise Unanswered(reason)  # a set is full
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


class _Channel:
    """The connection to the process that may change the rules."""

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel = channel
        self._guard = asyncio.Lock()

    async def tell(self, request: Request) -> str:
        """Has a request done; returns why it failed, empty when it did not."""
        # A question whose time is over must not leave its answer to the next one.
        return await asyncio.shield(self._exchange(msgspec.json.encode(request)))

    async def _exchange(self, message: bytes) -> str:
        loop = asyncio.get_running_loop()
        async with self._guard:
            await loop.sock_sendall(self._channel, len(message).to_bytes(LENGTH_BYTES) + message)
            length = int.from_bytes(await self._received(LENGTH_BYTES))
            return (await self._received(length)).decode(errors="replace")

    async def _received(self, length: int) -> bytes:
        received = b""
        while len(received) < length:
            loop = asyncio.get_running_loop()
            part = await loop.sock_recv(self._channel, length - len(received))
            if not part:
                raise ConnectionError("the process that changes the rules has ended")
            received += part
        return received


def _load_all() -> None:
    """Imports what is imported on demand: later there are no files."""
    query = dns.message.make_query("a.", "A", use_edns=True)
    answer = dns.message.make_response(dns.message.from_wire(query.to_wire()))
    for kind, text in _SAMPLES.items():
        answer.answer.append(dns.rrset.from_text("a.", 1, "IN", kind, text))
    dns.message.from_wire(answer.to_wire())
    dns.asyncbackend.get_backend("asyncio")


async def _serve(caller: socket.socket, orders: Orders, channel: socket.socket, root: str) -> None:
    _load_all()
    program = confined.compiled()
    names = Filter(orders, _Channel(channel).tell)
    loop = asyncio.get_running_loop()
    connections = _Connections(names)
    servers = []
    for address in orders.listen:
        await loop.create_datagram_endpoint(lambda: _Datagrams(names), local_addr=(address, 53))
        servers.append(await asyncio.start_server(connections.serve, address, 53, limit=1 << 17))
    confined.confine(program, root)
    with caller:
        caller.send(b"ready")
    while True:
        await names.tell_denied()
        await asyncio.sleep(_PAUSE_S)


def main(descriptor: int, pid_file: Path) -> None:
    """Runs the filter."""
    os.umask(0o077)
    os.chdir("/")  # it outlives its caller: it must not keep a folder busy
    for kind, limit in _LIMITS.items():
        resource.setrlimit(kind, (limit, limit))
    caller = socket.socket(fileno=descriptor)
    start_ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    pid_file.write_text(f"{os.getpid()} {start_ticks}")
    message = caller.recv(_MESSAGE_BYTES)
    if message:
        _part(caller, msgspec.json.decode(message, type=Orders), pid_file.parent)


def _part(caller: socket.socket, orders: Orders, folder: Path) -> None:
    """Goes on as two processes, each of which ends with the other."""
    root = folder / "empty"
    root.mkdir(mode=0o500, exist_ok=True)
    opener, asker = socket.socketpair()
    parent = os.getpid()
    if os.fork() == 0:
        confined.end_with_parent(parent)
        opener.close()
        with contextlib.suppress(BrokenPipeError):  # the caller has ended
            asyncio.run(_serve(caller, orders, asker, str(root)))
    else:
        caller.close()
        asker.close()
        Opener(orders).serve(opener)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
