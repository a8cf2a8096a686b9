"""Plugins that are wrong on purpose: for each rule of the contract one that breaks it, and nothing
else of note.
"""

from __future__ import annotations

from collections.abc import Callable

Wrong = dict[str, type]


def table(kept: Wrong) -> Callable[[str], Callable[[type], type]]:
    """A decorator that files a class under the rule that it breaks, by the name of the
    rule's test.
    """

    def breaks(name: str) -> Callable[[type], type]:
        def file(wrong: type) -> type:
            assert name not in kept, f"{name} is broken twice"
            kept[name] = wrong
            return wrong

        return file

    return breaks
