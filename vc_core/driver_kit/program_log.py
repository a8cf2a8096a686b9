"""Finds the last message in the log of a program that has ended."""

from __future__ import annotations

from collections.abc import Iterable


def last_error(lines: Iterable[str], program: str) -> str:
    """Returns the last error that a program wrote, without its name; empty when it wrote none.

    Programs write `program: message`, and further lines explain a message. Warnings do not explain
    an end and are left out.

    Args:
        lines: lines of its log.
        program: prefix of its name.
    """
    message = ""
    for line in lines:
        name, colon, rest = line.partition(": ")
        is_message = colon and name.startswith(program) and " " not in name
        if is_message and not rest.startswith("warning:"):
            message = rest.strip()
    return message
