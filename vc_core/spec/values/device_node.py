"""Nodes in a container without a device of the host."""

from __future__ import annotations

from msgspec import Struct


class DeviceNode(Struct, frozen=True, kw_only=True):
    """A pipe, or the node of a device that the host does not have.

    The container may not open a device by it: its numbers could be those of a device of the guest.

    Attributes:
        path: absolute path in the container.
        kind: "p" for a pipe, "c" or "b" for a character or block device.
        major: major number; 0 for a pipe.
        minor: minor number; 0 for a pipe.
        mode: permission bits.
        uid: owner.
        gid: group.
    """

    path: str
    kind: str
    major: int = 0
    minor: int = 0
    mode: int = 0o660
    uid: int = 0
    gid: int = 0
