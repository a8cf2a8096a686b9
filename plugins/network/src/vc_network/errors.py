"""What goes wrong here."""

from __future__ import annotations


class NetworkFailure(Exception):
    """Its text is one line for people."""
