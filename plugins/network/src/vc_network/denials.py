"""Reads what the rules and the filter of names have refused to a pod."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vc_core.spec import DenialReason, NetworkDenial
from vc_network import denied_names
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
    found = [*_refused(json.loads(answer)["nftables"], now_ns), *names]
    return tuple(sorted(found, key=lambda one: one.last_ns, reverse=True))


def _refused(objects: list[dict[str, Any]], now_ns: int) -> Iterator[NetworkDenial]:
    for one in objects:
        counter, members = one.get("counter"), one.get("set")
        if counter and counter["packets"]:
            yield NetworkDenial(reason=_COUNTERS[counter["name"]], count=counter["packets"])
        elif members and members["name"].startswith("refused"):
            for member in members.get("elem", ()):
                yield _destination(member["elem"], now_ns)


def _destination(element: dict[str, Any], now_ns: int) -> NetworkDenial:
    address, protocol, *port = element["val"]["concat"]
    age_s = REFUSED_S - element["expires"]
    return NetworkDenial(
        reason=DenialReason.ADDRESS,
        target=address,
        protocol=str(protocol),
        port=port[0] if port else 0,
        count=element["counter"]["packets"],
        last_ns=now_ns - age_s * 10**9,
    )
