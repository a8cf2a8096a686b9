"""Parsers that answer or are answered: QEMU's monitor, and the filter of names."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import dns.asyncquery
import dns.exception
import dns.message
import dns.query
from vc_network.names import Filter
from vc_network.opener import HIGHEST_TTL_S, MOST_ADDRESSES, Open, Opening, Orders, Request
from vc_qemu import monitor
from vc_qemu.hotplugged import Hotplugged
from vc_qemu.sizing import QemuSize

from vc_core.spec import NetworkRule, VcError

_GREETING = b'{"QMP": {"version": {}, "capabilities": []}}\n'
_READY = b'{"return": {}}\n'
_ANSWER_S = 0.02  # for an answer to another command, which never is one to this
_LONGEST_S = 10.0  # an input that takes longer hangs


def qmp_answers(data: bytes) -> None:
    """What QEMU says on its monitor: an answer for each command, separated by zero bytes. In them @
    is the command's id. After an odd first byte the first answer is the greeting.
    """
    answers = data[1:].split(b"\0")
    if not data[:1] or not data[0] & 1:
        answers = [_GREETING, _READY, *answers]
    asyncio.run(_talk(answers))


async def _talk(answers: list[bytes]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left, name = list(answers), b"null"
        with suppress(ConnectionError):
            while left:
                said = left.pop(0).replace(b"@", name)
                writer.write(said)
                await writer.drain()
                if b"\n" not in said or not left:
                    break
                if not (command := await reader.read(1 << 16)):
                    break
                name = json.dumps(json.loads(command).get("id")).encode()
        writer.close()

    with tempfile.TemporaryDirectory(prefix="vc-fuzz-", dir="/dev/shm") as folder:
        path = Path(folder) / "qmp"
        async with asyncio.timeout(_LONGEST_S):
            async with await asyncio.start_unix_server(serve, path):
                with suppress(VcError), mock.patch.object(monitor, "_ANSWER_S", _ANSWER_S):
                    async with monitor.connected(path) as connection:
                        await _ask(connection)


async def _ask(connection: monitor.Monitor) -> None:
    size = QemuSize(connection, shared_memory=False, limit_s=0)
    for work in (
        lambda: Hotplugged.look(connection, ()),
        size.vcpus,
        size.memory_modules,
        lambda: connection.unplug("a", 0),
    ):
        with suppress(VcError):
            await work()


def dns_question(data: bytes) -> None:
    """A message of a guest to the filter of names, which allows none."""
    orders = Orders((), (), (), (), (), "/bin/false", "/nowhere")

    async def tell(_: Request) -> str:
        raise AssertionError("nothing is opened")

    answer = asyncio.run(Filter(orders, tell).answer(data, 512))
    assert len(answer) <= 512
    assert not answer or answer[:2] == data[:2]


_PRIVATE = ("10.0.0.0/8", "127.0.0.0/8", "::/96", "fc00::/7")
_OPENING = Opening(NetworkRule.of("a.test"), {"4": "opened0v4", "6": "opened0v6"})
_ID_BYTES = 2


def dns_answer(data: bytes) -> None:
    """What a DNS server answers to the filter of names, which has asked for a.test; without the
    message's id. The first byte chooses the type of the address.
    """
    kind = "AAAA" if data[:1] and data[0] & 1 else "A"
    orders = Orders((), ("192.0.2.53",), (_OPENING,), (), _PRIVATE, "/bin/false", "/nowhere")

    async def answer(query: dns.message.Message, *_: Any, **__: Any) -> tuple[Any, bool]:
        wire = query.to_wire()[:_ID_BYTES] + data[1:]
        response = dns.message.from_wire(wire)
        if not query.is_response(response):
            raise dns.query.BadResponse
        return response, False

    async def tell(request: Request) -> str:
        assert isinstance(request, Open)
        assert 1 <= request.ttl <= HIGHEST_TTL_S
        assert 1 <= len(set(request.addresses)) == len(request.addresses) <= MOST_ADDRESSES
        for address in request.addresses:
            assert (":" in address) == (kind == "AAAA")
            assert not address.startswith(("10.", "127."))
        return ""

    question = dns.message.make_query("a.test.", kind).to_wire()
    with mock.patch.object(dns.asyncquery, "udp_with_fallback", answer):
        said = asyncio.run(Filter(orders, tell).answer(question, 512))
    assert said[:_ID_BYTES] == question[:_ID_BYTES]
    assert len(said) <= 512
