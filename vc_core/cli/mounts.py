"""Parses -v, --mount and --tmpfs as Docker and Podman do."""

from __future__ import annotations

import re
from pathlib import Path

from vc_core.cli.units import bytes_of
from vc_core.engine.host.volumes import Volumes
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Mount, MountKind

_VOLUME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"  # anything else is a path
# Passed to the guest unchanged: options of mount(8).
_PASSED = {
    *("exec", "noexec", "suid", "nosuid", "dev", "nodev", "atime", "noatime", "relatime"),
    *("private", "rprivate", "slave", "rslave", "shared", "rshared"),
}
# Accepted without effect: SELinux labels, which the guest does not have, and hints for other
# systems.
_WITHOUT_EFFECT = {"z", "Z", "cached", "delegated", "consistent", "default", "copy"}
_OF_TMPFS = r"(size=\d+%?|mode=[0-7]{1,4}|(uid|gid|nr_inodes|nr_blocks)=\d+)"
_OPPOSITES = {"exec": "noexec", "suid": "nosuid", "dev": "nodev"}
_TARGETS = ("target", "destination", "dst")


def bind(text: str, volumes: Volumes) -> Mount:
    """Parse a bind mount of a host path or a named volume; a missing volume is created.

    Args:
        text: SRC:DST, SRC:DST:OPTIONS, or Docker's type=...,source=...,target=...
        volumes: of this host.

    Raises:
        InvalidRequest: it is invalid.
    """
    if text.startswith("type=") or ",target=" in text:
        return _by_keys(text, volumes)
    parts = text.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise InvalidRequest(f"-v {text!r} is not SRC:DST or SRC:DST:OPTIONS, e.g. ./data:/data:ro")
    return _bind(
        parts[0], parts[1], parts[2].split(",") if len(parts) == 3 else [], f"-v {text!r}", volumes
    )


def _bind(source: str, destination: str, options: list[str], what: str, volumes: Volumes) -> Mount:
    is_volume, copies, passed, is_recursive = bool(re.fullmatch(_VOLUME, source)), True, [], True
    for option in options:
        if option in _PASSED:
            passed.append(option)
        elif option == "nocopy":
            copies = False
        elif option in ("bind", "rbind"):
            is_recursive = option == "rbind"
        elif option not in ("ro", "rw", *_WITHOUT_EFFECT):
            raise InvalidRequest(f"{what}: unknown option {option!r}; use ro, rw, nocopy or noexec")
    if {"ro", "rw"} <= set(options):
        raise InvalidRequest(f"{what}: ro and rw contradict each other; give one of them")
    is_read_only = "ro" in options
    path = volumes.create(source, may_exist=True).path if is_volume else Path(source).absolute()
    copy_up = is_volume and copies and not is_read_only
    return Mount(
        source=path,
        destination=destination,
        read_only=is_read_only,
        kind=MountKind.BIND,
        options=tuple(passed),
        recursive=is_recursive,
        copy_up=copy_up,
    )


def _by_keys(text: str, volumes: Volumes) -> Mount:
    keys = {}
    for word in text.split(","):
        key, _, value = word.partition("=")
        keys[key] = value
    what = f"--mount {text!r}"
    kind = keys.pop("type", "volume")
    destination = next((keys.pop(key) for key in _TARGETS if key in keys), "")
    options = [
        option for option in ("readonly", "ro") if keys.pop(option, "false") in ("", "true", "1")
    ][:1]
    if kind == "tmpfs":
        size, mode = keys.pop("tmpfs-size", ""), keys.pop("tmpfs-mode", "")
        tmpfs_options = [
            *(["ro"] if options else []),
            *([f"size={size}"] if size else []),
            *([f"mode={mode}"] if mode else []),
        ]
        mount = tmpfs(":".join(filter(None, (destination, ",".join(tmpfs_options)))))
    else:
        source = keys.pop("source", None) or keys.pop("src", "")
        if keys.pop("volume-nocopy", "false") in ("", "true", "1"):
            options.append("nocopy")
        if propagation := keys.pop("bind-propagation", ""):
            options.append(propagation)
        if (
            kind not in ("bind", "volume")
            or not source
            or bool(re.fullmatch(_VOLUME, source)) != (kind == "volume")
        ):
            raise InvalidRequest(
                f"{what} is not type=bind,source=/PATH,target=DST, "
                "type=volume,source=NAME,target=DST or type=tmpfs,target=DST"
            )
        mount = _bind(
            source,
            destination,
            ["ro" if option == "readonly" else option for option in options],
            what,
            volumes,
        )
    if keys:
        raise InvalidRequest(
            f"{what}: unknown key {next(iter(keys))!r}; use type, source, target and ro"
        )
    return mount


def tmpfs(text: str) -> Mount:
    """Parse a tmpfs mount.

    Args:
        text: DST, DST:SIZE or DST:OPTIONS.

    Raises:
        InvalidRequest: it is invalid.
    """
    destination, _, words = text.partition(":")
    options = dict.fromkeys(("nosuid", "nodev"))
    settings = {"mode": "1777"}
    is_read_only = False
    for word in words.split(",") if words else ():
        size = bytes_of(word.removeprefix("size="))
        if word in ("ro", "rw"):
            is_read_only = word == "ro"
        elif size is not None:
            settings["size"] = str(size)
        elif re.fullmatch(_OF_TMPFS, word):
            key, _, value = word.partition("=")
            settings[key] = value
        elif word in _PASSED:
            options.pop(_OPPOSITES.get(word, ""), None)
            options[word] = None
        else:
            raise InvalidRequest(
                f"--tmpfs {text!r}: unknown option {word!r}; use e.g. /x:rw,size=64m,mode=1777"
            )
    passed = (*options, *(f"{key}={value}" for key, value in settings.items()))
    return Mount(
        source=Path("tmpfs"),
        destination=destination,
        read_only=is_read_only,
        kind=MountKind.TMPFS,
        options=passed,
    )
