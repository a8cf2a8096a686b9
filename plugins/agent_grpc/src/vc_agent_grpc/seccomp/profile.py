"""Converts the published list to the runtime-spec's `linux.seccomp` for a set of capabilities."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

Json = dict[str, Any]

_LIST = Path(__file__).with_name("containers-common.json")
_ARCHITECTURE = "amd64"
_ADMIN = "CAP_SYS_ADMIN"
_EPERM = 1
# Refused without CAP_SYS_ADMIN. A user namespace would give a process all capabilities in its own
# namespaces, and with them access to much more of the kernel's attack surface.
_NEEDS_ADMIN = frozenset(
    {
        *(
            "unshare",
            "setns",
            "pivot_root",
            "mount",
            "umount",
            "umount2",
            "mount_setattr",
            "open_tree",
            "move_mount",
        ),
        *("fsopen", "fsconfig", "fsmount", "fspick"),
    }
)
# Key rings belong to the user, not the container: containers with the same user id would
# share them.
_NEVER = frozenset({"keyctl", "add_key", "request_key"})
# clone3's flags are in memory, which a filter does not read. It is "not implemented" (ENOSYS), so
# libraries use clone.
_CLONE3 = "clone3"
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET of sched.h.
_NEW_NAMESPACES = 0x7E020000


def default_filter(capabilities: Collection[str]) -> Json:
    """Returns the `linux.seccomp` object of a container.

    Args:
        capabilities: those of its bounding set, as "CAP_CHOWN".
    """
    published = _published()
    has_admin = _ADMIN in capabilities
    rules = [
        _rule(entry, has_admin) for entry in published["syscalls"] if _applies(entry, capabilities)
    ]
    if not has_admin:
        rules.append(
            {"names": sorted(_NEEDS_ADMIN | _NEVER), "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}
        )
        no_namespace = {
            "index": 0,
            "value": _NEW_NAMESPACES,
            "valueTwo": 0,
            "op": "SCMP_CMP_MASKED_EQ",
        }
        rules.append({"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_namespace]})
    return {
        "defaultAction": published["defaultAction"],
        "defaultErrnoRet": published["defaultErrnoRet"],
        "architectures": next(
            [entry["architecture"], *entry["subArchitectures"]]
            for entry in published["archMap"]
            if entry["architecture"] == "SCMP_ARCH_X86_64"
        ),
        "syscalls": [rule for rule in rules if rule["names"]],
    }


def digest(document: Json) -> str:
    """Returns 16 hex digits that identify the filter."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


@functools.cache
def _published() -> Json:
    published: Json = json.loads(_LIST.read_text(encoding="utf-8"))
    return published


def _applies(entry: Json, capabilities: Collection[str]) -> bool:
    """Returns whether a rule of the published list applies here with these capabilities."""
    includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
    if includes.get("arches") and _ARCHITECTURE not in includes["arches"]:
        return False
    if _ARCHITECTURE in excludes.get("arches", ()):
        return False
    return all(name in capabilities for name in includes.get("caps", ())) and not any(
        name in capabilities for name in excludes.get("caps", ())
    )


def _rule(entry: Json, has_admin: bool) -> Json:
    narrowed = frozenset() if has_admin else _NEEDS_ADMIN | _NEVER | {"clone", _CLONE3}
    rule: Json = {
        "names": [name for name in entry["names"] if name not in narrowed],
        "action": entry["action"],
    }
    if entry.get("args"):
        rule["args"] = entry["args"]
    if "errnoRet" in entry:
        rule["errnoRet"] = entry["errnoRet"]
    return rule
