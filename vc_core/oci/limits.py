"""Reads `linux.resources` of the runtime-spec.

Limits that the guest can enforce are passed on. Limits on swap and huge pages always hold, because
a guest has neither. Other limits are refused.
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
_WILDCARD = -1  # some engines write it as a device number
_LOW = "memory.low"
_ALL = set("rwm")


def read(resources: Reader) -> Resources:
    """Read the limits; a negative one means no limit."""
    resources.refuse_others(_RESOURCES)
    cpu, memory, pids = (resources.object(name) for name in ("cpu", "memory", "pids"))
    cpu.refuse_others(_CPU)
    pids.refuse_others(("limit",))
    if cpu.text("mems") not in ("", "0"):
        cpu.refuse("mems", "must be 0, as a guest has one memory node")
    limit = _memory(memory)
    for page in resources.objects("hugepageLimits"):
        if page.number("limit") > 0:
            log.warning("%s: has no effect, as the guest has no huge pages", page.path)
    for rule in resources.objects("devices"):
        _check_rule(rule)
    unified = dict(resources.pairs("unified"))
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
    """Read the memory limit in bytes; 0 for none."""
    memory.refuse_others(_MEMORY)
    memory.refuse("disableOOMKiller")
    limit, swap = max(0, memory.number("limit")), memory.number("swap")
    if swap > 0 and limit == 0:
        memory.refuse("swap", "needs memory.limit, as it limits memory and swap together")
    elif 0 < swap < limit:
        memory.refuse(
            "swap", "must be at least memory.limit, as it limits memory and swap together"
        )
    if not 0 <= memory.number("swappiness") <= 100 and memory.number("swappiness") != -1:
        memory.refuse("swappiness", "must be from 0 to 100")
    for name in ("kernel", "kernelTCP"):
        if memory.number(name) > 0:
            log.warning(
                "%s: has no effect, as kernel memory counts against memory.limit", memory.at(name)
            )
    return limit


def allows_all_devices(resources: Reader) -> bool:
    """Return whether a rule allows all devices, as engines write it for privileged containers."""
    return any(map(_allows_all, resources.objects("devices")))


def _allows_all(rule: Reader) -> bool:
    is_of_all = not _is_single(rule) and rule.raw("minor") in (None, _WILDCARD)
    of_all = ("", "a")
    return (
        rule.flag("allow") and is_of_all and rule.text("type") in of_all and _access(rule) == _ALL
    )


def _access(rule: Reader) -> set[str]:
    return set(rule.text("access") or _ALL)


def _is_single(rule: Reader) -> bool:
    return rule.raw("major") not in (None, _WILDCARD)


def _check_rule(rule: Reader) -> None:
    """Refuse a rule that allows a whole class of devices, but not one that allows all."""
    if _allows_all(rule):
        log.warning("%s: has no effect, as only devices of the container are allowed", rule.path)
    elif rule.flag("allow") and not _is_single(rule) and _access(rule) != {"m"}:
        rule.problems.append(f"{rule.path}: must name a single device by major number")
