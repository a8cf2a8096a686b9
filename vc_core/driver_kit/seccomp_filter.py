"""Compiles seccomp filters with libseccomp, on which sandboxed hypervisors and crun depend.

The functions and numbers are those of seccomp.h, https://github.com/seccomp/libseccomp.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from types import TracebackType
from typing import NamedTuple, Self

from vc_core.spec import HypervisorError

ALLOW = 0x7FFF0000
"""The action that permits a call."""
NOT_EQUAL, EQUAL, MASKED_EQUAL = 1, 4, 7
"""Comparisons of an argument; the last one has a mask as value and the result as value_two."""

_LIBRARY = "libseccomp.so.2"
_ERRNO = 0x00050000
_NO_NEW_PRIVILEGES = 3  # SCMP_FLTATR_CTL_NNP: set by the one who loads the program
_OPTIMIZE, _AS_A_TREE = 8, 2  # SCMP_FLTATR_CTL_OPTIMIZE
_UNKNOWN = -1  # __NR_SCMP_ERROR


class SeccompError(HypervisorError):
    """libseccomp is missing or refuses a filter; the message says why, and what to do."""


class Comparison(NamedTuple):
    """A condition on one argument of a call.

    Attributes:
        argument: its number, from 0.
        how: NOT_EQUAL, EQUAL or MASKED_EQUAL.
        value: what it is compared with, or the mask.
        value_two: what the masked argument is compared with.
    """

    argument: int
    how: int
    value: int
    value_two: int = 0


class _Argument(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [
        ("index", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    ]


def fails_with(number: int) -> int:
    """Returns the action that lets a call fail with an errno; 0 lets it return 0."""
    return _ERRNO | number


class SeccompFilter:
    """A filter for the architecture of this host, until the `with` block ends."""

    def __init__(self, default: int) -> None:
        """Begins a filter.

        Args:
            default: the action for calls without a rule.

        Raises:
            SeccompError: libseccomp is missing.
        """
        try:
            self._library = _library()
        except OSError as error:
            text = f"{_LIBRARY} is missing; install the package libseccomp2"
            raise SeccompError(text) from error
        self._default = default
        self._context = self._library.seccomp_init(default)

    def __enter__(self) -> Self:
        code = self._library.seccomp_attr_set(self._context, _NO_NEW_PRIVILEGES, 0)
        _demand(code, "seccomp_attr_set")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._library.seccomp_release(self._context)

    def search_as_tree(self) -> None:
        """Makes a program with some 8 comparisons per call, where libseccomp (2.5) can."""
        self._library.seccomp_attr_set(self._context, _OPTIMIZE, _AS_A_TREE)

    def add_architecture(self, name: str) -> None:
        """Filters the calls of another architecture too, by its name in seccomp.h, e.g. "x86".

        Raises:
            SeccompError: libseccomp refuses it.
        """
        number = self._library.seccomp_arch_resolve_name(name.encode())
        if number == 0:
            raise SeccompError(f"libseccomp does not know the architecture {name}")
        _demand(self._library.seccomp_arch_add(self._context, number), name)

    def add(self, action: int, name: str, conditions: Iterable[Comparison] = ()) -> None:
        """Adds a rule. A call that libseccomp does not know gets the default action.

        Args:
            action: ALLOW or that of `fails_with`; a rule with the default action changes nothing.
            name: of the call.
            conditions: all of them must hold.

        Raises:
            SeccompError: libseccomp refuses it.
        """
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number == _UNKNOWN or action == self._default:
            return  # newer than the library; or a rule that libseccomp refuses as useless
        given = [_Argument(*one) for one in conditions]
        array = (_Argument * len(given))(*given)
        _demand(
            self._library.seccomp_rule_add_array(self._context, action, number, len(given), array),
            name,
        )

    def program(self) -> bytes:
        """Returns the program for the kernel: 8 bytes per instruction, struct sock_filter.

        Raises:
            SeccompError: libseccomp cannot compile the filter.
        """
        file = os.memfd_create("seccomp")
        try:
            code = self._library.seccomp_export_bpf(self._context, file)
            _demand(code, "seccomp_export_bpf")
            return os.pread(file, os.fstat(file).st_size, 0)
        finally:
            os.close(file)


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    context, number = ctypes.c_void_p, ctypes.c_uint32
    library.seccomp_init.restype, library.seccomp_init.argtypes = context, [number]
    library.seccomp_release.argtypes, library.seccomp_release.restype = [context], None
    library.seccomp_attr_set.argtypes = [context, ctypes.c_int, number]
    library.seccomp_arch_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_arch_resolve_name.restype = number
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


def _demand(code: int, what: str) -> None:
    if code != 0:
        reason = os.strerror(-code)
        text = f"libseccomp refuses {what}: {reason}; update the package libseccomp2"
        raise SeccompError(text)
