"""Errors that callers of an OCI runtime match by their text."""

from __future__ import annotations


class RuntimeFailure(Exception):
    """The command has failed; the text is one line for the caller's log."""


def missing(container_id: str) -> RuntimeFailure:
    """Returns the error for an unknown container; containerd and podman look for these words."""
    return RuntimeFailure(f"container {container_id!r} does not exist")


def not_running(container_id: str) -> RuntimeFailure:
    """Returns the error for a signal to a process that has ended, in runc's words."""
    return RuntimeFailure(f"container {container_id!r} not running")
