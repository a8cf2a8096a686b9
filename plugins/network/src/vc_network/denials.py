"""Reads what the rules and the filter of names have refused to a pod."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from vc_core.spec import DenialReason, NetworkDenial
from vc_network import denied_names
from vc_network.errors import NetworkFailure
from vc_network.host_programs import output
from vc_network.name_filter import RECORD
from vc_network.namespace import folder, program
from vc_network.ruleset import REFUSED_S, TABLE

_COUNTERS = {"spoofed": DenialReason.SPOOFED, "fragments": DenialReason.FRAGMENT}


async def read(run_dir: Path, enter: list[str]) -> tuple[NetworkDenial, ...]:
    """Returns what was refused, the latest first.

    Args:
        run_dir: of the pod.
        enter: words before a command that is to run in the pod's namespace.

    Raises:
        NetworkFailure: the rules cannot be read.
    """
    words = [*enter, program("nft"), "--json", "list", "table", "inet", TABLE]
    answer = await asyncio.to_thread(output, words, "nft in the pod's namespace")
    now_ns = time.time_ns()
    names = (
        NetworkDenial(
            reason=DenialReason(one.reason),
            target=one.name,
            protocol="dns",
            count=one.count,
            last_ns=one.last_ns,
        )
        for one in denied_names.read(folder(run_dir) / RECORD)
    )
    found = [*refused(answer.encode(), now_ns), *names]
    return tuple(sorted(found, key=lambda one: one.last_ns, reverse=True))


class _Counter(msgspec.Struct):
    name: str
    packets: int


class _Set(msgspec.Struct):
    name: str
    elem: tuple[msgspec.Raw, ...] = ()


class _Object(msgspec.Struct):
    counter: _Counter | None = None
    set: _Set | None = None


class _Answer(msgspec.Struct):
    nftables: tuple[_Object, ...]


class _Destination(msgspec.Struct):
    concat: Annotated[tuple[str | int, ...], msgspec.Meta(min_length=2, max_length=3)]


class _Packets(msgspec.Struct):
    packets: int


class _Element(msgspec.Struct):
    val: _Destination
    expires: int
    counter: _Packets


class _Member(msgspec.Struct):
    elem: _Element


def refused(answer: bytes, now_ns: int) -> tuple[NetworkDenial, ...]:
    """Returns what the rules have refused, of what `nft --json list table` prints
    (libnftables-json(5)).

    Raises:
        NetworkFailure: it is of another form.
    """
    try:
        objects = msgspec.json.decode(answer, type=_Answer).nftables
        return tuple(_refused(objects, now_ns))
    except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors
        raise NetworkFailure(f"nft prints its rules in a form that is unknown: {error}") from error


def _refused(objects: tuple[_Object, ...], now_ns: int) -> Iterator[NetworkDenial]:
    for one in objects:
        if one.counter and one.counter.packets > 0 and one.counter.name in _COUNTERS:
            yield NetworkDenial(reason=_COUNTERS[one.counter.name], count=one.counter.packets)
        elif one.set and one.set.name.startswith("refused"):
            for member in one.set.elem:
                yield _destination(msgspec.json.decode(member, type=_Member).elem, now_ns)


def _destination(element: _Element, now_ns: int) -> NetworkDenial:
    address, protocol, *port = element.val.concat
    if not isinstance(address, str) or not all(isinstance(one, int) for one in port):
        raise ValueError("a destination is no address, protocol and port")
    return NetworkDenial(
        reason=DenialReason.ADDRESS,
        target=address,
        protocol=str(protocol),
        port=int(port[0]) if port else 0,
        count=element.counter.packets,
        last_ns=now_ns - (REFUSED_S - element.expires) * 10**9,
    )
