"""Compiles a seccomp filter to the kernel's program, with libseccomp, a dependency of every crun.

crun would compile it again for each container: 60 ms in an emulated machine. An image contains the
compiled filter. The functions are those of seccomp.h, https://github.com/seccomp/libseccomp.
"""

from __future__ import annotations

import ctypes
import os
from typing import Any

from vc_agent_grpc.image.errors import ImageError

_LIBRARY = "libseccomp.so.2"
_ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000}
_COMPARISONS = {"SCMP_CMP_NE": 1, "SCMP_CMP_EQ": 4, "SCMP_CMP_MASKED_EQ": 7}
_SET_NO_NEW_PRIVILEGES = 3  # SCMP_FLTATR_CTL_NNP: crun's decision, not the filter's
_UNKNOWN = -1  # __NR_SCMP_ERROR


class _Argument(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [
        ("index", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    ]


def compiled(document: dict[str, Any]) -> bytes:
    """Returns the program of a `linux.seccomp` object of the runtime-spec, 8 bytes per instruction.

    Raises:
        ImageError: libseccomp is missing or refuses the filter.
    """
    try:
        library = _library()
    except OSError as error:
        raise ImageError(f"{_LIBRARY} is missing; install the package libseccomp2") from error
    context = library.seccomp_init(
        _action(document["defaultAction"], document.get("defaultErrnoRet", 1))
    )
    try:
        _demand(library.seccomp_attr_set(context, _SET_NO_NEW_PRIVILEGES, 0), "seccomp_attr_set")
        for name in document["architectures"][1:]:  # the first is the library's own
            number = library.seccomp_arch_resolve_name(
                name.removeprefix("SCMP_ARCH_").lower().encode()
            )
            _demand(library.seccomp_arch_add(context, number), name)
        for rule in document["syscalls"]:
            _add(library, context, rule, document)
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    context, number = ctypes.c_void_p, ctypes.c_uint32
    library.seccomp_init.restype, library.seccomp_init.argtypes = context, [number]
    library.seccomp_release.argtypes, library.seccomp_release.restype = [context], None
    library.seccomp_attr_set.argtypes = [context, ctypes.c_int, number]
    library.seccomp_arch_resolve_name.argtypes, library.seccomp_arch_resolve_name.restype = (
        [ctypes.c_char_p],
        number,
    )
    library.seccomp_arch_add.argtypes = [context, number]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        context,
        number,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    library.seccomp_export_bpf.argtypes = [context, ctypes.c_int]
    return library


def _add(
    library: ctypes.CDLL, context: int, rule: dict[str, Any], document: dict[str, Any]
) -> None:
    action = _action(rule["action"], rule.get("errnoRet", 1))
    if action == _action(document["defaultAction"], document.get("defaultErrnoRet", 1)):
        return  # libseccomp refuses rules equal to the default action
    given = rule.get("args") or []
    arguments = (_Argument * len(given))(
        *(
            _Argument(one["index"], _COMPARISONS[one["op"]], one["value"], one.get("valueTwo", 0))
            for one in given
        )
    )
    for name in rule["names"]:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number != _UNKNOWN:  # newer than the library: it gets the default, as with crun
            _demand(
                library.seccomp_rule_add_array(context, action, number, len(given), arguments), name
            )


def _exported(library: ctypes.CDLL, context: int) -> bytes:
    file = os.memfd_create("seccomp")
    try:
        _demand(library.seccomp_export_bpf(context, file), "seccomp_export_bpf")
        return os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)


def _action(name: str, errno: int) -> int:
    return _ACTIONS[name] | (errno if name == "SCMP_ACT_ERRNO" else 0)


def _demand(outcome: int, what: str) -> None:
    if outcome != 0:
        raise ImageError(
            f"libseccomp refuses {what} of the default filter: {os.strerror(-outcome)}"
        )
