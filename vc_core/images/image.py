"""An image and its configuration: config.md of the image-spec, as Docker and Podman apply it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import Struct, field, structs

from vc_core.signals import signal_number
from vc_core.spec.errors import InvalidRequest, VcError
from vc_core.spec.values import DEFAULT_PATH, ContainerSpec, Mount, ProcessSpec, Rootfs, RootfsMode

T = TypeVar("T")

NAME_NOTE = "io.virtcontainers.image"
"""The annotation of a container that names its image."""


class ImageError(VcError):
    """An image cannot be fetched, read or created; nothing of it is left."""


class Progress(Protocol):
    """Callback for the progress of a step."""

    def __call__(self, step: str, done: int = 0, total: int = 0) -> None:
        """Report progress.

        Args:
            step: description of the step.
            done: bytes processed.
            total: bytes to process; 0 if unknown.
        """


def _of_type(document: Mapping[str, Any], key: str, kind: type[T]) -> T | None:
    try:
        return msgspec.convert(document.get(key), type=kind | None)
    except msgspec.ValidationError as error:
        raise ValueError(f"{key}: {error}") from error


class ImageConfig(Struct, frozen=True):
    """Configuration of the containers that are created from an image.

    Attributes:
        entrypoint: words before the command.
        cmd: default command.
        env: "NAME=value" words.
        user: as in ProcessSpec; empty for root.
        workdir: working directory; empty for "/".
        volumes: directories that are writable even if the root is read-only.
        stop_signal: number or name; empty for SIGTERM.
        labels: become annotations of the container.
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
        """Read the `config` object of an image configuration, whose keys may be absent or null.

        Raises:
            ValueError: a value has the wrong type; the message names its key.
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
        """Convert to the format of `read`, without empty values."""
        values = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.cmd),
            "Env": list(self.env),
            "User": self.user,
            "WorkingDir": self.workdir,
            "Volumes": {path: {} for path in self.volumes},
            "StopSignal": self.stop_signal,
            "Labels": dict(self.labels),
        }
        return {key: value for key, value in values.items() if value}


class Image(Struct, frozen=True):
    """An image on this host.

    Attributes:
        id: digest of its configuration, in hex.
        config: configuration of its containers.
        architecture: in Go's names, such as "amd64".
        made_ns: when it was created on this host, in nanoseconds since the epoch.
        source: where it came from.
        rootfs: the erofs file.
        bytes: size of the file.
        names: all its names.
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
        """Its first name, or the beginning of its id."""
        return self.names[0] if self.names else self.id[:12]

    def process(
        self, args: Sequence[str] = (), entrypoint: Sequence[str] | None = None
    ) -> ProcessSpec:
        """Make the specification of a container's first process.

        Args:
            args: arguments of the entrypoint; empty for the image's command.
            entrypoint: replaces the image's entrypoint and command.

        Raises:
            InvalidRequest: there is no command.
        """
        words = tuple(args) or (self.config.cmd if entrypoint is None else ())
        words = (*(self.config.entrypoint if entrypoint is None else entrypoint), *words)
        if not words:
            raise InvalidRequest(f"the image {self.name} has no command; give one after its name")
        env = self.config.env
        if not any(word.startswith("PATH=") for word in env):
            env = (DEFAULT_PATH, *env)
        return ProcessSpec(args=words, env=env, cwd=self.config.workdir, user=self.config.user)

    def container(self, spec: ContainerSpec) -> ContainerSpec:
        """Add this image's root file system, volumes, labels and stop signal to a container.

        The mode of `spec.rootfs` is kept.
        """
        mounts = list(spec.mounts)
        if spec.rootfs.mode is RootfsMode.READ_ONLY:
            taken = {mount.destination for mount in mounts}
            mounts += [
                Mount.tmpfs(path, mode=0o755) for path in self.config.volumes if path not in taken
            ]
        notes = {**self.config.labels, **dict(spec.annotations), NAME_NOTE: self.name}
        return structs.replace(
            spec,
            rootfs=structs.replace(spec.rootfs, path=self.rootfs),
            mounts=tuple(mounts),
            annotations=tuple(notes.items()),
            stop_signal=signal_number(self.config.stop_signal or "TERM"),
        )

    def root(self, mode: RootfsMode = RootfsMode.OVERLAY) -> Rootfs:
        """Its root file system, which is read-only; an overlay of it can be writable."""
        return Rootfs(path=self.rootfs, mode=mode)
