"""Names of pods, containers and processes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from vc_core.spec.errors import InvalidRequest

_HOSTNAME = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
_ALLOWED = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"


def checked(kind: str, name: str) -> str:
    """Returns the name if it is valid.

    Raises:
        InvalidRequest: it is unfit as the name of a folder.
    """
    if not re.fullmatch(_ALLOWED, name):
        raise InvalidRequest(
            f"{name!r} is no {kind} id; use 1 to 64 letters, digits, '_', '.', '-', "
            "the first a letter or digit"
        )
    return name


def checked_hostname(name: str) -> str:
    """Returns the host name if it is valid; empty means none.

    Raises:
        InvalidRequest: it is not a valid host name.
    """
    if name and not re.fullmatch(_HOSTNAME, name):
        raise InvalidRequest(
            f"{name[:80]!r} is not a host name; use 1 to 64 letters, digits, '-', '.', '_', "
            "the first a letter or digit"
        )
    return name


def fresh() -> str:
    """Returns a new unique id: 12 hex digits."""
    return os.urandom(6).hex()  # as secrets.token_hex, which takes longer to import


def annotated(before: Mapping[str, str], changes: Mapping[str, str | None]) -> dict[str, str]:
    """Returns annotations after a change; None removes one.

    Raises:
        InvalidRequest: a name is empty.
    """
    if "" in changes:
        raise InvalidRequest("an annotation needs a name: NAME=VALUE")
    return {name: value for name, value in {**before, **changes}.items() if value is not None}
