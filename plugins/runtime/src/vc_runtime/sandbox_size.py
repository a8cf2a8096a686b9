"""Reads how much the containers of a pod may use together, which engines write to its sandbox.

containerd has an annotation for each number (its pkg/cri/annotations), CRI-O one with the message
LinuxContainerResources of CRI as JSON. The kubelet knows all containers of a pod before the first
one. Numbers of requests (`sandbox-cpu-shares`) and the pod's overhead mean nothing to a machine.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Annotated

import msgspec

from vc_core.spec import Reserved

log = logging.getLogger(__name__)

_CONTAINERD = "io.kubernetes.cri.sandbox-"
_CRI_O = ("pod-linux-resources.crio.io", "io.kubernetes.cri-o.PodLinuxResources")
_PERIODS_US = range(1_000, 1_000_001)  # the kernel's range: Documentation/scheduler/sched-bwc.rst
_USUAL_PERIOD_US = 100_000
_LARGEST = (1 << 63) - 1  # of CRI's numbers


_Number = Annotated[int, msgspec.Meta(ge=-_LARGEST, le=_LARGEST)]


class _Asked(msgspec.Struct):
    """The fields of LinuxContainerResources that have a meaning here."""

    cpu_period: _Number = 0
    cpu_quota: _Number = 0
    memory_limit_in_bytes: _Number = 0


def read(annotations: Mapping[str, str]) -> Reserved:
    """Returns what a sandbox reserves for its containers; nothing where no limit is given.

    A value that is none is left out with a warning: runc does not look at them, either.
    """
    asked, of = _asked(annotations)
    quota_us, period_us = max(0, asked.cpu_quota), asked.cpu_period or _USUAL_PERIOD_US
    memory_bytes = asked.memory_limit_in_bytes
    if quota_us and period_us not in _PERIODS_US:
        log.warning("annotation %s: a period of %d µs has no effect", of, period_us)
        quota_us = 0
    if memory_bytes < 0:
        log.warning("annotation %s: %d bytes of memory have no effect", of, memory_bytes)
        memory_bytes = 0
    return Reserved(vcpus=-(-quota_us // period_us), memory_bytes=memory_bytes)


def _asked(annotations: Mapping[str, str]) -> tuple[_Asked, str]:
    """Returns the numbers, and of which annotation they are."""
    for name in _CRI_O:
        if name in annotations:
            return _of_json(name, annotations[name]), name
    period, quota, memory = (
        _number(f"{_CONTAINERD}{name}", annotations)
        for name in ("cpu-period", "cpu-quota", "memory")
    )
    return _Asked(period, quota, memory), f"{_CONTAINERD}…"


def _of_json(name: str, text: str) -> _Asked:
    try:
        return msgspec.json.decode(text, type=_Asked)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        log.warning("annotation %s has no effect: %.200s", name, error)
        return _Asked()


def _number(name: str, annotations: Mapping[str, str]) -> int:
    text = annotations.get(name, "0")
    digits = text.removeprefix("-")
    if not digits.isdecimal() or not digits.isascii() or len(digits) > len(str(_LARGEST)):
        log.warning("annotation %s has no effect: %.40r is not a number", name, text)
        return 0
    number = int(text)
    if abs(number) > _LARGEST:
        log.warning("annotation %s has no effect: %d is too large", name, number)
        return 0
    return number
