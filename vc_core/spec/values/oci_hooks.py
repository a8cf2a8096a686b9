"""Values of the contract about OCI hooks: programs of the host run in a container's life cycle."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class OciHook(Struct, frozen=True, kw_only=True):
    """A program of the host that is run at a point of a container's life cycle.

    The program gets the state of the container as JSON on stdin.

    Attributes:
        path: absolute path of the program.
        args: the whole argv; empty for the path alone.
        env: the whole environment.
        timeout_s: time limit in seconds, after which the program is killed; 0 for the
            configured deadline.
    """

    path: Path
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: float = 0


class OciHooks(Struct, frozen=True, kw_only=True):
    """The hooks of the runtime-spec that run on the host.

    Attributes:
        prestart: run when the container exists in the guest and its process waits; a failure stops
            the start.
        poststart: run when its process runs.
        poststop: run when the container is removed from the guest.
        container_id: the id that hooks are told; empty for that of the container.
        pid: the process that hooks are told; 0 for that of the machine.
    """

    prestart: tuple[OciHook, ...] = ()
    poststart: tuple[OciHook, ...] = ()
    poststop: tuple[OciHook, ...] = ()
    container_id: str = ""
    pid: int = 0
