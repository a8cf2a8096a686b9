"""Results of CNI's ADD: SPEC.md, "Section 5: Result Types"."""

from __future__ import annotations

from typing import Any

import msgspec

from vc_network.errors import NetworkFailure

_SHOWN_BYTES = 200


class Ip(msgspec.Struct):
    """An address of the pod, with its prefix length, and its gateway."""

    address: str
    gateway: str | None = None


class ResultDns(msgspec.Struct):
    """What the network says of DNS."""

    nameservers: tuple[str, ...] | None = None


class Result(msgspec.Struct):
    """What is read of a result; plugins get all of it."""

    ips: tuple[Ip, ...] | None = None
    dns: ResultDns | None = None


def checked(answer: bytes, kind: str) -> dict[str, Any]:
    """Returns a result as the plugins of the network get it.

    Args:
        answer: of a plugin.
        kind: of the plugin.

    Raises:
        NetworkFailure: it is none.
    """
    try:
        found: dict[str, Any] = msgspec.json.decode(answer, type=dict[str, Any])
        msgspec.convert(found, Result)
    except (ValueError, RecursionError) as error:  # msgspec's own are ValueErrors
        shown = answer[:_SHOWN_BYTES].decode(errors="replace")
        raise NetworkFailure(
            f"the CNI plugin {kind} answered no result: {shown!r}: {error}"
        ) from error
    return found


def known(result: dict[str, Any]) -> Result:
    """Returns what is read of a checked result."""
    return msgspec.convert(result, Result)
