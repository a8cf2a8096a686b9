"""What a guest, an image or a file's name brings to a terminal: text, and nothing that a terminal obeys."""

from __future__ import annotations

import re

# Controls (C0, DEL, C1), which move the cursor, set titles and answer as if typed; what turns the
# direction of writing around, so that a line reads otherwise than it is; ends of lines that only
# some programs see; and surrogates, which stand for bytes that are no text (PEP 383) and which
# cannot be written.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_COLOUR_OR_UNSAFE = re.compile(rf"(\x1b\[[0-9;:]*m)|{_UNSAFE.pattern}")


def shown(text: object, keep: str = "") -> str:
    """A value as text for a terminal: each character that is unsafe there is written as Python writes it, as in \\x1b.

    Args:
        text: what is shown.
        keep: unsafe characters that stay.
    """
    return _UNSAFE.sub(
        lambda found: found[0] if found[0] in keep else _written(found[0]), str(text)
    )


def shown_colours(text: str) -> str:
    """The same, but tabs and sequences that choose colours stay."""
    return _COLOUR_OR_UNSAFE.sub(
        lambda found: found[0] if found[1] or found[0] == "\t" else _written(found[0]), text
    )


def shown_json(document: str) -> str:
    """JSON that means the same without a character that is unsafe on a terminal: those in its strings are escaped.

    JSON itself escapes C0 only. Line ends between its values stay.
    """
    return _UNSAFE.sub(
        lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", document
    )


def _written(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode()
