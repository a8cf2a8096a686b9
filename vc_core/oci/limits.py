"""The runtime-spec's `linux.resources`.

A limit that the guest can enforce is passed on. One on what a guest does not have (swap, huge
pages) holds in any case. Every other one is refused by name.
"""

from __future__ import annotations

import logging

from vc_core.oci.reading import Reader
from vc_core.spec.values import Resources

log = logging.getLogger(__name__)

_RESOURCES = ("cpu", "memory", "pids", "devices", "hugepageLimits", "unified")
_CPU = ("quota", "period", "shares", "cpus", "mems")
_MEMORY = (
    *(
        "limit",
        "swap",
        "reservation",
        "swappiness",
        "kernel",
        "kernelTCP",
        "disableOOMKiller",
        "useHierarchy",
    ),
    "checkBeforeUpdate",
)
_PERIOD_US = 100_000
_WILDCARD = -1  # as device numbers of some engines
_LOW = "memory.low"


def read(found: Reader) -> Resources:
    """Limits; negative ones are none."""
    found.refuse_others(_RESOURCES)
    cpu, memory, pids = (found.object(name) for name in ("cpu", "memory", "pids"))
    cpu.refuse_others(_CPU)
    pids.refuse_others(("limit",))
    if cpu.text("mems") not in ("", "0"):
        cpu.refuse("mems", "a guest has one node of memory, 0")
    limit = _memory(memory)
    for page in found.objects("hugepageLimits"):
        if page.number("limit") > 0:
            log.warning("%s: the guest has no huge pages, so the limit is kept", page.path)
    for rule in found.objects("devices"):
        _check_rule(rule)
    unified = dict(found.pairs("unified"))
    if (reservation := memory.number("reservation")) > 0:
        unified.setdefault(_LOW, str(reservation))
    return Resources(
        cpu_quota_us=max(0, cpu.number("quota")),
        cpu_period_us=cpu.number("period") or _PERIOD_US,
        cpu_shares=cpu.number("shares"),
        cpuset=cpu.text("cpus"),
        memory_bytes=limit,
        pids=max(0, pids.number("limit")),
        unified=tuple(unified.items()),
    )


def _memory(memory: Reader) -> int:
    """The limit in bytes; 0 for none."""
    memory.refuse_others(_MEMORY)
    memory.refuse("disableOOMKiller")
    limit, swap = max(0, memory.number("limit")), memory.number("swap")
    if swap > 0 and limit == 0:
        memory.refuse("swap", "memory and swap together can be limited only with memory.limit")
    elif 0 < swap < limit:
        memory.refuse(
            "swap", "it limits memory and swap together, and so must be as much as memory.limit"
        )
    if not 0 <= memory.number("swappiness") <= 100 and memory.number("swappiness") != -1:
        memory.refuse("swappiness", "must be from 0 to 100")
    for name in ("kernel", "kernelTCP"):
        if memory.number(name) > 0:
            log.warning("%s: memory of the kernel counts against memory.limit", memory.at(name))
    return limit


def _check_rule(rule: Reader) -> None:
    """Containers get the usual devices and those that are listed; a rule for more than single devices is refused."""
    access = set(rule.text("access") or "rwm")
    is_single = rule.raw("major") not in (None, _WILDCARD)
    if rule.flag("allow") and not is_single and access != {"m"}:
        rule.problems.append(f"{rule.path}: devices are passed one by one, not whole kinds of them")
