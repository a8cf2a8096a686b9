"""Reads `process` of the runtime-spec."""

from __future__ import annotations

import logging

from vc_core.oci.reading import Reader
from vc_core.spec.values import Capabilities, ProcessSpec, Rlimit

log = logging.getLogger(__name__)

_KNOWN = (
    *(
        "args",
        "env",
        "cwd",
        "user",
        "terminal",
        "consoleSize",
        "capabilities",
        "noNewPrivileges",
        "rlimits",
    ),
    *("oomScoreAdj", "apparmorProfile", "selinuxLabel"),
)
_USER = ("uid", "gid", "umask", "additionalGids")
_SETS = Capabilities.__struct_fields__


def read(process: Reader) -> ProcessSpec:
    """Read a process; its environment is not changed."""
    process.refuse_others(_KNOWN)
    for name, module in (("apparmorProfile", "AppArmor"), ("selinuxLabel", "SELinux")):
        if process.text(name) not in ("", "unconfined"):
            where = process.at(name)
            log.warning(
                "%s: has no effect, as the guest has no %s",
                where,
                module,
            )
    args = process.texts("args")
    if not args:
        process.problems.append(f"{process.at('args')}: must not be empty")
    cwd = process.text("cwd", "/")
    if not cwd.startswith("/"):
        process.problems.append(f"{process.at('cwd')}: must be an absolute path")
    user = process.object("user")
    user.refuse_others(_USER)
    size = process.object("consoleSize")
    umask = user.raw("umask")
    adjustment = process.raw("oomScoreAdj")
    return ProcessSpec(
        args=args,
        env=process.texts("env"),
        cwd=cwd,
        user=f"{user.number('uid')}:{user.number('gid')}",
        groups=tuple(str(group) for group in user.raw("additionalGids") or ()),
        terminal=process.flag("terminal"),
        no_new_privileges=process.flag("noNewPrivileges"),
        capabilities=_capabilities(process),
        rlimits=process.each("rlimits", _rlimit),
        umask=None if umask is None else user.number("umask"),
        oom_score_adj=None if adjustment is None else process.number("oomScoreAdj"),
        rows=size.number("height", 24),
        columns=size.number("width", 80),
    )


def _capabilities(process: Reader) -> Capabilities:
    """Read five sets of capabilities; before version 1.0.0-rc5 there was one list for all."""
    if isinstance(process.raw("capabilities"), list):
        every = process.texts("capabilities")
        return Capabilities(**dict.fromkeys(_SETS, every))
    sets = process.object("capabilities")
    sets.refuse_others(_SETS)
    return Capabilities(**{name: sets.texts(name) for name in _SETS})


def _rlimit(limit: Reader) -> Rlimit:
    return Rlimit(kind=limit.text("type"), soft=limit.number("soft"), hard=limit.number("hard"))
