"""Reads an OCI bundle: a directory with a config.json and usually a root file system."""

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
_HOOKS = (
    *("prestart", "createRuntime", "createContainer"),
    *("startContainer", "poststart", "poststop"),
)


@dataclass(frozen=True)
class Bundle:
    """The contents of a bundle.

    Attributes:
        container: specification of the container.
        kind: its role in the pod.
        sandbox_id: the pod that a container joins; empty if the bundle does not name it.
        assets: kernel, image and hypervisor of the pod that a sandbox creates.
        joined: paths of the namespaces of this host that it asks to join, by their kinds; none of
            them is joined.
    """

    container: ContainerSpec
    kind: ContainerType
    sandbox_id: str
    assets: Assets
    joined: Mapping[str, str]


def load(
    folder: Path, container_id: str, stdio: Stdio = Stdio.NULL, asset_paths: Iterable[str] = ()
) -> Bundle:
    """Read a bundle.

    Args:
        folder: directory with config.json.
        container_id: name of the container.
        stdio: where the streams of its process go.
        asset_paths: patterns of files that annotations may name as kernel, image and hypervisor.

    Raises:
        InvalidRequest: config.json does not exist or is not JSON.
        ConfigError: settings are invalid or not supported; lists all of them.
    """
    file = folder.absolute() / "config.json"
    try:
        document = json.loads(file.read_text())
    except OSError as error:
        raise InvalidRequest(
            f"{file} cannot be read: {error.strerror}; give the directory of a bundle"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{file} is not JSON: {error}") from error
    problems: list[str] = []
    config = Reader(document, "", problems)
    bundle = _bundle(config, file.parent, container_id, stdio, tuple(asset_paths))
    if problems:
        raise ConfigError(f"{file}: {problem}" for problem in problems)
    return bundle


def _bundle(
    config: Reader, folder: Path, container_id: str, stdio: Stdio, asset_paths: tuple[str, ...]
) -> Bundle:
    config.refuse_others(_KNOWN)
    if config.text("ociVersion").partition(".")[0] != "1":
        config.problems.append(
            f"ociVersion: {config.text('ociVersion')!r} is not supported; use 1.x"
        )
    root, linux_config = config.object("root"), config.object("linux")
    root.refuse_others(("path", "readonly"))
    mode = RootfsMode.READ_ONLY if root.flag("readonly") else RootfsMode.READ_WRITE
    notes = config.pairs("annotations")
    devices, nodes = linux.devices(linux_config)
    spec = ContainerSpec(
        id=container_id,
        rootfs=Rootfs(path=folder / root.text("path", "rootfs"), mode=mode),
        process=process.read(config.object("process")),
        mounts=config.each("mounts", lambda mount: mounts.read(mount, folder)),
        stdio=stdio,
        hostname=config.text("hostname"),
        annotations=notes,
        devices=devices,
        nodes=nodes,
        resources=linux.resources(linux_config),
        has_default_mounts=False,
        confinement=linux.confinement(linux_config),
        hooks=_hooks(config.object("hooks")),
        bundle=str(folder),
        stop_signal=_stop_signal(dict(notes), config),
    )
    kind = container_type(dict(notes), config.problems)
    return Bundle(
        container=spec,
        kind=kind,
        sandbox_id=sandbox_id(dict(notes)),
        assets=own_assets(dict(notes), asset_paths, config.problems),
        joined=linux.joined(linux_config),
    )


def _stop_signal(notes: Mapping[str, str], config: Reader) -> int:
    """Read the stop signal of the image, which container engines pass as an annotation."""
    try:
        return signal_number(notes.get(_STOP_SIGNAL) or "TERM")
    except InvalidRequest as error:
        config.problems.append(f"annotations.{_STOP_SIGNAL}: {error}")
        return signal_number("TERM")


def _hooks(hooks: Reader) -> OciHooks:
    hooks.refuse_others(_HOOKS)
    before = (*hooks.each("prestart", _hook), *hooks.each("createRuntime", _hook))
    return OciHooks(
        prestart=before,
        create_container=hooks.each("createContainer", _hook),
        start_container=hooks.each("startContainer", _hook),
        poststart=hooks.each("poststart", _hook),
        poststop=hooks.each("poststop", _hook),
    )


def _hook(hook: Reader) -> OciHook:
    path, env = Path(hook.text("path")), hook.texts("env")
    if not path.is_absolute():
        hook.problems.append(f"{hook.at('path')}: must be an absolute path")
    if any("=" not in word for word in env):
        hook.problems.append(f"{hook.at('env')}: must be NAME=VALUE words")
    if "\0" in "".join((str(path), *hook.texts("args"), *env)):
        hook.problems.append(f"{hook.at('args')}: path, args and env must not contain NUL")
    return OciHook(path=path, args=hook.texts("args"), env=env, timeout_s=hook.number("timeout"))
