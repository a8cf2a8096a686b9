"""Detects use in a child of fork(2).

A child has the connections and locks of its parent, but none of the threads that serve them.
"""

from __future__ import annotations

import os

from vc_core.spec.errors import InvalidRequest

_forks = 0


def _count() -> None:
    global _forks  # noqa: PLW0603 (one for each process)
    _forks += 1


os.register_at_fork(after_in_child=_count)


class Origin:
    """Remembers the process in which an object was created."""

    def __init__(self) -> None:
        self._forks = _forks

    def is_here(self) -> bool:
        """Returns whether this is the process in which the object was created."""
        return self._forks == _forks

    def require(self) -> None:
        """Raises InvalidRequest in a child of the process in which the object was created."""
        if not self.is_here():
            raise InvalidRequest(
                "this runtime was opened before fork(), in the parent process; "
                "open another one in this process"
            )
