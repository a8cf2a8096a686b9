"""--ulimit: limits of one process, by the names that ulimit and docker have for them."""

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
    """NAME=SOFT or NAME=SOFT:HARD; -1 or "unlimited" is no limit.

    Raises:
        InvalidRequest: an unknown name, or a number that cannot be.
    """
    name, equals, values = text.partition("=")
    if name not in _NAMES:
        raise InvalidRequest(
            f"--ulimit {text!r}: there is no limit {name!r}; these are there: {', '.join(_NAMES)}"
        )
    soft, colon, hard = values.partition(":")
    limits = [_number(word) for word in (soft, hard if colon else soft)]
    if not equals or None in limits:
        raise InvalidRequest(
            f"--ulimit {text!r} is not NAME=SOFT or NAME=SOFT:HARD, as in nofile=1024:65536"
        )
    low, high = (limit or 0 for limit in limits)
    if low > high:
        raise InvalidRequest(
            f"--ulimit {text!r}: the first number must not be larger than the second"
        )
    return Rlimit(f"RLIMIT_{name.upper()}", low, high)


def _number(word: str) -> int | None:
    if word in ("-1", "unlimited"):
        return _UNLIMITED
    return int(word) if word.isascii() and word.isdecimal() and len(word) <= 19 else None
