"""Errors that callers of an OCI runtime match by their text."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """The command has failed; the text is one line for the caller's log."""


class UnknownContainer(RuntimeFailure):
    """There is no container of this id; containerd and podman look for these words."""

    def __init__(self, container_id: str) -> None:
        super().__init__(f"container {container_id!r} does not exist")


class DamagedRecord(RuntimeFailure):
    """The record of a container cannot be read."""

    def __init__(self, container_id: str, reason: object) -> None:
        super().__init__(
            f"the record of container {container_id!r} is damaged: {reason}; delete it with --force"
        )


def not_running(container_id: str) -> RuntimeFailure:
    """Returns the error for a container that has ended; containerd looks for these words of runc.

    With other ones, it cannot stop a pod whose container has just ended.
    """
    return RuntimeFailure(f"container not running: {container_id!r}")
