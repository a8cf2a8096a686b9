"""The kinds of hooks: operations (one answer), optional and routed ones, and events (any number).

Every hook is `async def` with plain positional parameters and no defaults. Wiring refuses
anything else.
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

# Attributes that the markers set on a specification; wiring reads them.
OPTIONAL = "__vc_optional__"
ROUTED = "__vc_routed__"
UNBOUNDED = "__vc_unbounded__"


def operation(function: F) -> F:
    """Marks an operation: exactly one plugin answers, within the configured deadline."""
    return _specification(firstresult=True)(function)


def unbounded_operation(function: F) -> F:
    """Marks an operation without a deadline, such as a wait or a build."""
    setattr(function, UNBOUNDED, True)
    return operation(function)


def optional_operation(function: F) -> F:
    """Marks an operation that a plugin need not implement.

    A call of a missing one raises UnsupportedOperation.
    """
    setattr(function, OPTIONAL, True)
    return operation(function)


def routed_operation(function: F) -> F:
    """Marks an operation that several plugins implement side by side.

    Each call goes to the plugin that claims its subject.
    """
    setattr(function, ROUTED, True)
    return operation(function)


def event(function: F) -> F:
    """Marks an event: every listening plugin is called, and the failure of one affects no other."""
    return _specification(function)
