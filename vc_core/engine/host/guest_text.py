"""Text that a guest chose, for a line that people read."""

from __future__ import annotations

_MOST = 300


def shown(text: str) -> str:
    """Returns the text without control characters and cut to the length of a line."""
    cut = text if len(text) <= _MOST else f"{text[:_MOST]}..."
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in cut
    )
