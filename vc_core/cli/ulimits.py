"""Parses --ulimit, with the names of Docker and of the shell's ulimit."""

from __future__ import annotations

from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Rlimit

_NAMES = (
    *(
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
    ),
    *("rttime", "sigpending", "stack"),
)
_UNLIMITED = (1 << 64) - 1


def ulimit(text: str) -> Rlimit:
    """Parse NAME=SOFT or NAME=SOFT:HARD; -1 and "unlimited" mean no limit.

    Raises:
        InvalidRequest: the name is unknown, a value is not a number, or SOFT exceeds HARD.
    """
    name, equals, values = text.partition("=")
    if name not in _NAMES:
        raise InvalidRequest(
            f"--ulimit {text!r}: unknown limit {name!r}; use one of {', '.join(_NAMES)}"
        )
    soft, colon, hard = values.partition(":")
    limits = [_number(word) for word in (soft, hard if colon else soft)]
    if not equals or None in limits:
        raise InvalidRequest(
            f"--ulimit {text!r} is not NAME=SOFT or NAME=SOFT:HARD, e.g. nofile=1024:65536"
        )
    low, high = (limit or 0 for limit in limits)
    if low > high:
        raise InvalidRequest(f"--ulimit {text!r}: the soft limit must not exceed the hard limit")
    return Rlimit(kind=f"RLIMIT_{name.upper()}", soft=low, hard=high)


def _number(word: str) -> int | None:
    if word in ("-1", "unlimited"):
        return _UNLIMITED
    return int(word) if word.isascii() and word.isdecimal() and len(word) <= 19 else None
