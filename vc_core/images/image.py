"""An image, and what its configuration says of containers: the image-spec's config.md, as docker and podman obey it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from vc_core.signals import signal_number
from vc_core.spec.errors import InvalidRequest, VcError
from vc_core.spec.values import DEFAULT_PATH, ContainerSpec, Mount, ProcessSpec, Rootfs, RootfsMode

T = TypeVar("T")

NAME_NOTE = "io.virtcontainers.image"
"""The annotation of a container that names its image."""


class ImageError(VcError):
    """An image cannot be fetched, read or made; nothing is left of it."""


class Progress(Protocol):
    """Is told how far a step is."""

    def __call__(self, step: str, done: int = 0, total: int = 0) -> None:
        """Args:
        step: what is being done, for people.
        done: bytes.
        total: bytes; 0 when nobody knows.
        """


def _of_type(document: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    import msgspec

    try:
        return msgspec.convert(document.get(key), type=kind | None)
    except msgspec.ValidationError as error:
        raise ValueError(f"{key}: {error}") from error


@dataclass(frozen=True)
class ImageConfig:
    """What an image says of the containers that are made from it.

    Attributes:
        entrypoint: words before the command.
        cmd: the command, where the user gives none.
        env: "NAME=value" words.
        user: as ProcessSpec has it; empty for root.
        workdir: empty for "/".
        volumes: folders that can be written also where the root cannot.
        stop_signal: a number or a name; empty for SIGTERM.
        labels: kept as annotations of the container.
    """

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    user: str = ""
    workdir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> ImageConfig:
        """Out of the `config` object of an image's configuration, whose keys may be absent or null.

        Raises:
            ValueError: a value is of the wrong type; names its key.
        """
        return cls(
            tuple(_of_type(document, "Entrypoint", list[str]) or ()),
            tuple(_of_type(document, "Cmd", list[str]) or ()),
            tuple(_of_type(document, "Env", list[str]) or ()),
            _of_type(document, "User", str) or "",
            _of_type(document, "WorkingDir", str) or "",
            tuple(sorted(_of_type(document, "Volumes", dict[str, object]) or ())),
            _of_type(document, "StopSignal", str) or "",
            dict(_of_type(document, "Labels", dict[str, str]) or {}),
        )

    def document(self) -> dict[str, Any]:
        """The same as `read` takes it, without what is empty."""
        found = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Env": list(self.env),
            "User": self.user,
            "WorkingDir": self.workdir,
            "Volumes": {path: {} for path in self.volumes},
            "StopSignal": self.stop_signal,
            "Labels": dict(self.labels),
        }
        return {key: value for key, value in found.items() if value}


@dataclass(frozen=True)
class Image:
    """An image that is here.

    Attributes:
        id: the digest of its configuration, in hex.
        config: what it says of containers.
        architecture: as Go names it.
        made_ns: when it was made here, since the epoch.
        source: where it came from.
        rootfs: the erofs file.
        bytes: its size.
        names: all that it has.
    """

    id: str
    config: ImageConfig
    architecture: str
    made_ns: int
    source: str
    rootfs: Path
    bytes: int
    names: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """One to show: its first, or the beginning of its id."""
        return self.names[0] if self.names else self.id[:12]

    def process(
        self, args: Sequence[str] = (), entrypoint: Sequence[str] | None = None
    ) -> ProcessSpec:
        """The first process of a container.

        Args:
            args: behind the entrypoint, in place of the image's own command.
            entrypoint: in place of the image's, whose command is then not used either.

        Raises:
            InvalidRequest: neither says what to run.
        """
        words = tuple(args) or (self.config.cmd if entrypoint is None else ())
        words = (*(self.config.entrypoint if entrypoint is None else entrypoint), *words)
        if not words:
            raise InvalidRequest(
                f"the image {self.name} has no command of its own; write one behind its name"
            )
        env = self.config.env
        if not any(word.startswith("PATH=") for word in env):
            env = (DEFAULT_PATH, *env)
        return ProcessSpec(words, env, self.config.workdir, self.config.user)

    def container(self, spec: ContainerSpec) -> ContainerSpec:
        """The same container with this image's root file system, and all that the image asks for besides its process.

        The mode of `spec.rootfs` stays.
        """
        mounts = list(spec.mounts)
        if spec.rootfs.mode is RootfsMode.READ_ONLY:
            taken = {mount.destination for mount in mounts}
            mounts += [
                Mount.tmpfs(path, mode=0o755) for path in self.config.volumes if path not in taken
            ]
        notes = {**self.config.labels, **dict(spec.annotations), NAME_NOTE: self.name}
        return dataclasses.replace(
            spec,
            rootfs=dataclasses.replace(spec.rootfs, path=self.rootfs),
            mounts=tuple(mounts),
            annotations=tuple(notes.items()),
            stop_signal=signal_number(self.config.stop_signal or "TERM"),
        )

    def root(self, mode: RootfsMode = RootfsMode.OVERLAY) -> Rootfs:
        """Its root file system; it cannot be written, but an overlay can."""
        return Rootfs(self.rootfs, mode)
