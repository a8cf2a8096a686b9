"""Parses --cap-add, --cap-drop and --security-opt as Docker and Podman do."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import structs

from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import DEFAULT_CAPABILITIES, Capabilities, ContainerSpec

_YES = {"", "true", "1"}
_NO = {"false", "0"}
_WITHOUT_EFFECT = ("apparmor", "label")  # the guest has neither AppArmor nor SELinux
_OFF = {"unconfined", "disable"}


def capabilities(
    added: Sequence[str], dropped: Sequence[str], default: Capabilities | None
) -> Capabilities | None:
    """Apply --cap-add and --cap-drop to the default capabilities.

    Raises:
        InvalidRequest: a capability does not exist.
    """
    if not added and not dropped:
        return default
    drop, add = (
        {f"CAP_{name.upper().removeprefix('CAP_')}" for name in names} for names in (dropped, added)
    )
    if unknown := sorted((add | drop) - {*_EVERY, "CAP_ALL"}):
        raise InvalidRequest(f"unknown capability {unknown[0]}; see capabilities(7)")
    usual = default or Capabilities(
        bounding=DEFAULT_CAPABILITIES,
        effective=DEFAULT_CAPABILITIES,
        permitted=DEFAULT_CAPABILITIES,
    )

    def changed(names: Sequence[str], more: set[str]) -> tuple[str, ...]:
        base = () if "CAP_ALL" in drop else _EVERY if "CAP_ALL" in more else names
        return tuple(
            name for name in dict.fromkeys((*base, *sorted(more - {"CAP_ALL"}))) if name not in drop
        )

    return Capabilities(
        bounding=changed(usual.bounding, add),
        effective=changed(usual.effective, add),
        permitted=changed(usual.permitted, add),
        inheritable=changed(usual.inheritable, set()),
        ambient=changed(usual.ambient, set()),
    )


def confined(spec: ContainerSpec, words: Sequence[str]) -> ContainerSpec:
    """Apply --security-opt to a container.

    Raises:
        InvalidRequest: an option is unknown or not supported.
    """
    for word in words:
        separator = "=" if "=" in word else ":"  # docker reads both
        name, _, value = word.partition(separator)
        if name == "no-new-privileges" and value in _YES | _NO:
            process = structs.replace(spec.process, no_new_privileges=value in _YES)
            spec = structs.replace(spec, process=process)
        elif (name, value) == ("seccomp", "unconfined"):
            spec = structs.replace(spec, confinement=structs.replace(spec.confinement, seccomp=""))
        elif (name, value) == ("systempaths", "unconfined") or (name, value.upper()) == (
            "unmask",
            "ALL",
        ):
            shown = structs.replace(spec.confinement, masked_paths=(), readonly_paths=())
            spec = structs.replace(spec, confinement=shown)
        elif not (name in _WITHOUT_EFFECT and value in _OFF):
            raise InvalidRequest(f"--security-opt {word!r} is not supported; {_remedy(name)}")
    return spec


def _remedy(name: str) -> str:
    if name == "seccomp":
        return "use seccomp=unconfined, or a profile in the config.json of --bundle"
    if name in _WITHOUT_EFFECT:
        return f"the guest has no {'AppArmor' if name == 'apparmor' else 'SELinux'}, so remove it"
    return "use no-new-privileges, seccomp=unconfined or systempaths=unconfined"


# capabilities(7), in the kernel's order.
_EVERY = tuple(
    f"CAP_{name}"
    for name in (
        *(
            "CHOWN",
            "DAC_OVERRIDE",
            "DAC_READ_SEARCH",
            "FOWNER",
            "FSETID",
            "KILL",
            "SETGID",
            "SETUID",
            "SETPCAP",
        ),
        *(
            "LINUX_IMMUTABLE",
            "NET_BIND_SERVICE",
            "NET_BROADCAST",
            "NET_ADMIN",
            "NET_RAW",
            "IPC_LOCK",
            "IPC_OWNER",
        ),
        *(
            "SYS_MODULE",
            "SYS_RAWIO",
            "SYS_CHROOT",
            "SYS_PTRACE",
            "SYS_PACCT",
            "SYS_ADMIN",
            "SYS_BOOT",
            "SYS_NICE",
        ),
        *(
            "SYS_RESOURCE",
            "SYS_TIME",
            "SYS_TTY_CONFIG",
            "MKNOD",
            "LEASE",
            "AUDIT_WRITE",
            "AUDIT_CONTROL",
            "SETFCAP",
        ),
        *(
            "MAC_OVERRIDE",
            "MAC_ADMIN",
            "SYSLOG",
            "WAKE_ALARM",
            "BLOCK_SUSPEND",
            "AUDIT_READ",
            "PERFMON",
            "BPF",
        ),
        "CHECKPOINT_RESTORE",
    )
)
