"""KEY=VALUE words of a command line: labels and annotations."""

from __future__ import annotations

from collections.abc import Sequence

from vc_core.spec.errors import InvalidRequest


def pairs(texts: Sequence[str]) -> dict[str, str]:
    """Read KEY=VALUE words; the last value of a key wins.

    Raises:
        InvalidRequest: a word has no key or no "=".
    """
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidRequest(f"{text!r} is not KEY=VALUE")
        values[key] = value
    return values


def annotation_changes(texts: Sequence[str]) -> dict[str, str | None]:
    """Read KEY=VALUE, which sets an annotation, and KEY-, which removes one (its value is None).

    Raises:
        InvalidRequest: a word is neither.
    """
    removed = {text[:-1]: None for text in texts if text.endswith("-") and "=" not in text}
    return {**removed, **pairs([text for text in texts if text[:-1] not in removed])}
