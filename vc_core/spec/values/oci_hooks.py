"""Values of the contract about OCI hooks: programs that are run in a container's life cycle."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class OciHook(Struct, frozen=True, kw_only=True):
    """A program that is run at a point of a container's life cycle.

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
    """The hooks of the runtime-spec. All but `start_container` run on the host.

    Attributes:
        prestart: run when the container exists in the guest and its process waits; a failure stops
            the start. Those that the runtime-spec calls createRuntime are the last of them.
        create_container: run after these, each in a mount namespace of its own, whose mounts the
            host does not see; a failure stops the start.
        start_container: run in the container, before its process, by the agent; a failure ends the
            container. The path is one of the container.
        poststart: run when its process runs.
        poststop: run when the container is removed from the guest.
    """

    prestart: tuple[OciHook, ...] = ()
    create_container: tuple[OciHook, ...] = ()
    start_container: tuple[OciHook, ...] = ()
    poststart: tuple[OciHook, ...] = ()
    poststop: tuple[OciHook, ...] = ()

    @property
    def are_on_host(self) -> bool:
        """Whether any runs on the host."""
        return any((self.prestart, self.create_container, self.poststart, self.poststop))
