"""The error of this package."""

from __future__ import annotations


class NetworkFailure(Exception):
    """A network operation failed. The text is one line for people."""
