"""What a hook is: an operation (exactly one answer), an optional one, a routed one, or an event
(any number).

Every hook is `async def` with plain positional parameters and no defaults. Wiring refuses anything
else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pluggy

PROJECT = "vc_core"

F = TypeVar("F", bound=Callable[..., Any])

_specification = pluggy.HookspecMarker(PROJECT)

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a plugin's method as the implementation of the hook of the same name."""

# Attributes that the markers leave on a specification; wiring reads them.
OPTIONAL = "__vc_optional__"
ROUTED = "__vc_routed__"
UNBOUNDED = "__vc_unbounded__"


def operation(function: F) -> F:
    """Exactly one plugin answers, under the configured deadline."""
    return _specification(firstresult=True)(function)


def unbounded_operation(function: F) -> F:
    """An operation that lasts as long as it lasts: a wait, a build.

    No deadline is put around it.
    """
    setattr(function, UNBOUNDED, True)
    return operation(function)


def optional_operation(function: F) -> F:
    """An operation that a plugin may leave out: the call then raises UnsupportedOperation."""
    setattr(function, OPTIONAL, True)
    return operation(function)


def routed_operation(function: F) -> F:
    """An operation that several plugins implement side by side; each call goes to the one that
    claims its subject.
    """
    setattr(function, ROUTED, True)
    return operation(function)


def event(function: F) -> F:
    """Something that has happened: every plugin that listens is told, and one that fails stops
    nobody.
    """
    return _specification(function)
