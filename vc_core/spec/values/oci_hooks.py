"""What crosses the border about programs of the host that a container's life runs."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class OciHook(Struct, frozen=True, kw_only=True):
    """A program of the host that is run when a container's life moves on, with its state on stdin.

    Attributes:
        path: of the program, absolute.
        args: the whole argv; empty for the path alone.
        env: its whole environment.
        timeout_s: after which it is killed; 0 is the configured deadline.
    """

    path: Path
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: float = 0


class OciHooks(Struct, frozen=True, kw_only=True):
    """The runtime-spec's hooks that run on the host.

    Attributes:
        prestart: the container exists in the guest and its process waits; one that fails stops the
            start.
        poststart: its process runs.
        poststop: it is gone from the guest.
    """

    prestart: tuple[OciHook, ...] = ()
    poststart: tuple[OciHook, ...] = ()
    poststop: tuple[OciHook, ...] = ()
