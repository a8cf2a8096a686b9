"""Compiles a seccomp filter of the runtime-spec to the kernel's program.

crun would compile it again for each container: 60 ms in an emulated machine. An image contains the
compiled filter.
"""

from __future__ import annotations

from typing import Any

from vc_agent_grpc.image.errors import ImageError
from vc_core.driver_kit.seccomp_filter import (
    ALLOW,
    EQUAL,
    MASKED_EQUAL,
    NOT_EQUAL,
    Comparison,
    SeccompError,
    SeccompFilter,
    fails_with,
)

_COMPARISONS = {
    "SCMP_CMP_NE": NOT_EQUAL,
    "SCMP_CMP_EQ": EQUAL,
    "SCMP_CMP_MASKED_EQ": MASKED_EQUAL,
}


def compiled(document: dict[str, Any]) -> bytes:
    """Returns the program of a `linux.seccomp` object of the runtime-spec, 8 bytes per instruction.

    Raises:
        ImageError: libseccomp is missing or refuses the filter.
    """
    default = _action(document["defaultAction"], document.get("defaultErrnoRet", 1))
    try:
        with SeccompFilter(default) as made:
            for name in document["architectures"][1:]:  # the first is the library's own
                made.add_architecture(name.removeprefix("SCMP_ARCH_").lower())
            for rule in document["syscalls"]:
                action = _action(rule["action"], rule.get("errnoRet", 1))
                conditions = [_comparison(one) for one in rule.get("args") or []]
                for name in rule["names"]:
                    made.add(action, name, conditions)
            return made.program()
    except SeccompError as error:
        raise ImageError(f"the default filter of containers: {error}") from error


def _comparison(argument: dict[str, Any]) -> Comparison:
    how = _COMPARISONS[argument["op"]]
    return Comparison(argument["index"], how, argument["value"], argument.get("valueTwo", 0))


def _action(name: str, number: int) -> int:
    return {"SCMP_ACT_ALLOW": ALLOW, "SCMP_ACT_ERRNO": fails_with(number)}[name]
