"""A bundle: a folder with a config.json, which says what the container is, and usually its root file system."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vc_core.engine.state.boot_assets import Assets
from vc_core.oci import linux, mounts, process
from vc_core.oci.annotations import ContainerType, container_type, own_assets, sandbox_id
from vc_core.oci.reading import Reader
from vc_core.signals import signal_number
from vc_core.spec.errors import ConfigError, InvalidRequest
from vc_core.spec.values import ContainerSpec, OciHook, OciHooks, Rootfs, RootfsMode, Stdio

_KNOWN = ("ociVersion", "process", "root", "hostname", "mounts", "hooks", "annotations", "linux")
_STOP_SIGNAL = "org.opencontainers.image.stopSignal"
_IN_CONTAINER = ("createContainer", "startContainer")
_ON_HOST = ("prestart", "createRuntime", "poststart", "poststop")


@dataclass(frozen=True)
class Bundle:
    """What a bundle says.

    Attributes:
        container: to make.
        kind: what it is to its pod.
        sandbox_id: the pod that a container joins; empty when nobody says.
        assets: of the pod that a sandbox makes.
    """

    container: ContainerSpec
    kind: ContainerType
    sandbox_id: str
    assets: Assets


def load(
    folder: Path, container_id: str, stdio: Stdio = Stdio.NULL, asset_paths: Iterable[str] = ()
) -> Bundle:
    """Reads a bundle.

    Args:
        folder: that holds config.json.
        container_id: what the container will be called.
        stdio: what its process's streams are connected to.
        asset_paths: patterns of files that annotations may name as kernel, image and hypervisor.

    Raises:
        InvalidRequest: there is no config.json, or it is no JSON.
        ConfigError: with every line of it that is wrong or cannot be honoured.
    """
    file = folder.absolute() / "config.json"
    try:
        document = json.loads(file.read_text())
    except OSError as error:
        raise InvalidRequest(
            f"{file} cannot be read: {error.strerror}; give the folder of a bundle"
        ) from error
    except ValueError as error:
        raise InvalidRequest(f"{file} is no JSON: {error}") from error
    problems: list[str] = []
    config = Reader(document, "", problems)
    found = _bundle(config, file.parent, container_id, stdio, tuple(asset_paths))
    if problems:
        raise ConfigError(f"{file}: {problem}" for problem in problems)
    return found


def _bundle(
    config: Reader, folder: Path, container_id: str, stdio: Stdio, asset_paths: tuple[str, ...]
) -> Bundle:
    config.refuse_others(_KNOWN)
    if config.text("ociVersion").partition(".")[0] != "1":
        config.problems.append(f"ociVersion: {config.text('ociVersion')!r} is not known; 1.x is")
    root, found = config.object("root"), config.object("linux")
    root.refuse_others(("path", "readonly"))
    mode = RootfsMode.READ_ONLY if root.flag("readonly") else RootfsMode.READ_WRITE
    notes = config.pairs("annotations")
    spec = ContainerSpec(
        id=container_id,
        rootfs=Rootfs(folder / root.text("path", "rootfs"), mode),
        process=process.read(config.object("process")),
        mounts=config.each("mounts", lambda mount: mounts.read(mount, folder)),
        stdio=stdio,
        hostname=config.text("hostname"),
        annotations=notes,
        devices=found.each("devices", linux.device),
        resources=linux.resources(found),
        has_default_mounts=False,
        confinement=linux.confinement(found),
        hooks=_hooks(config.object("hooks")),
        bundle=str(folder),
        stop_signal=_stop_signal(dict(notes), config),
    )
    kind = container_type(dict(notes), config.problems)
    return Bundle(
        spec, kind, sandbox_id(dict(notes)), own_assets(dict(notes), asset_paths, config.problems)
    )


def _stop_signal(notes: Mapping[str, str], config: Reader) -> int:
    """What the image's configuration says, which engines pass on as an annotation."""
    try:
        return signal_number(notes.get(_STOP_SIGNAL) or "TERM")
    except InvalidRequest as error:
        config.problems.append(f"annotations.{_STOP_SIGNAL}: {error}")
        return signal_number("TERM")


def _hooks(hooks: Reader) -> OciHooks:
    for name in _IN_CONTAINER:
        hooks.refuse(
            name,
            "hooks in the container's namespaces, which are in another machine, cannot be honoured",
        )
    hooks.refuse_others((*_ON_HOST, *_IN_CONTAINER))
    before = (*hooks.each("prestart", _hook), *hooks.each("createRuntime", _hook))
    return OciHooks(before, hooks.each("poststart", _hook), hooks.each("poststop", _hook))


def _hook(hook: Reader) -> OciHook:
    path, env = Path(hook.text("path")), hook.texts("env")
    if not path.is_absolute():
        hook.problems.append(f"{hook.at('path')}: must be absolute")
    if any("=" not in word for word in env):
        hook.problems.append(f"{hook.at('env')}: must be NAME=VALUE words")
    return OciHook(path, hook.texts("args"), env, hook.number("timeout"))
