"""The last message in the log of a program that has ended."""

from __future__ import annotations

from collections.abc import Iterable


def last_error(lines: Iterable[str], program: str) -> str:
    """The last error that a program wrote, without the program's name; empty when it wrote none.

    Programs write `program: message`, and further lines explain a message. Warnings are not the
    reason of an end and are left out.

    Args:
        lines: of its log.
        program: how its name begins.
    """
    message = ""
    for line in lines:
        name, colon, rest = line.partition(": ")
        is_message = colon and name.startswith(program) and " " not in name
        if is_message and not rest.startswith("warning:"):
            message = rest.strip()
    return message
