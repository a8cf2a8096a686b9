"""Escapes text of a guest, an image or a file name so that no terminal interprets it."""

from __future__ import annotations

import re

# Control characters (C0, DEL, C1), which move the cursor, set titles and send answers as if typed;
# bidirectional controls, which make a line read differently from what it is; line separators that
# only some programs honour; and surrogates, which stand for undecodable bytes (PEP 383) and which
# no encoder accepts.
_UNSAFE = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
_COLOUR_OR_UNSAFE = rf"(\x1b\[[0-9;:]*m)|{_UNSAFE}"


def shown(text: object, keep: str = "") -> str:
    """Format a value for a terminal; unsafe characters become Python escapes such as \\x1b.

    Args:
        text: the value.
        keep: unsafe characters that are kept.
    """
    return re.sub(
        _UNSAFE, lambda match: match[0] if match[0] in keep else _written(match[0]), str(text)
    )


def shown_colours(text: str) -> str:
    """Escape like `shown`, but keep tabs and colour sequences."""
    return re.sub(
        _COLOUR_OR_UNSAFE,
        lambda match: match[0] if match[1] or match[0] == "\t" else _written(match[0]),
        text,
    )


def shown_json(document: str) -> str:
    """Escape the unsafe characters in the strings of a JSON document; its meaning stays the same.

    JSON itself escapes C0 only. Newlines between values are kept.
    """
    return re.sub(
        _UNSAFE, lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", document
    )


def _written(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
