"""Names and numbers of the guest's signals, which are those of Linux on x86-64."""

from __future__ import annotations

import re
import signal

LAST_SIGNAL = 64
_FIRST_REALTIME = 34  # the C library uses 32 and 33
_REALTIME = r"RTMIN(?:\+([0-9]{1,2}))?|RTMAX(?:-([0-9]{1,2}))?"


def signal_number(text: str) -> int:
    """Parse a signal number ("9") or name ("KILL", "sigkill", "RTMIN+3", "SIGRTMAX-1").

    Raises:
        InvalidRequest: the signal does not exist.
    """
    name = text.strip().upper().removeprefix("SIG")
    number = 0
    if name.isascii() and name.isdecimal():
        number = int(name) if len(name) <= 3 else 0
    elif match := re.fullmatch(_REALTIME, name):
        after, before = (int(group or 0) for group in match.groups())
        number = _FIRST_REALTIME + after if name.startswith("RTMIN") else LAST_SIGNAL - before
        number = number if _FIRST_REALTIME <= number <= LAST_SIGNAL else 0
    elif f"SIG{name}" in signal.Signals.__members__:
        number = signal.Signals[f"SIG{name}"].value
    if not 1 <= number <= LAST_SIGNAL:
        from vc_core.spec.errors import InvalidRequest  # takes time to import

        raise InvalidRequest(f"there is no signal {text!r}; see signal(7)")
    return number


def signal_name(number: int) -> str:
    """Format a signal number as a name such as "SIGKILL" or "SIGRTMIN+3"."""
    if _FIRST_REALTIME < number < LAST_SIGNAL:
        return f"SIGRTMIN+{number - _FIRST_REALTIME}"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
