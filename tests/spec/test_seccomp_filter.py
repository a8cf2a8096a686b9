"""Filters of driver_kit: what libseccomp refuses is an error, what it does not know is left out."""

from __future__ import annotations

import errno
import struct

import pytest

from vc_core.driver_kit import seccomp_filter
from vc_core.driver_kit.seccomp_filter import (
    ALLOW,
    EQUAL,
    Comparison,
    SeccompError,
    SeccompFilter,
    fails_with,
)

_RETURNS = 0x06  # BPF_RET | BPF_K


def results(program: bytes) -> set[int]:
    """The actions that a program can end with."""
    instructions = struct.iter_unpack("=HBBI", program)
    return {value for code, _, _, value in instructions if code == _RETURNS}


def test_a_program_ends_with_the_actions_of_its_rules():
    with SeccompFilter(fails_with(errno.ENOSYS)) as made:
        made.add(ALLOW, "read")
        made.add(ALLOW, "read")  # twice is no error
        made.add(fails_with(errno.EACCES), "kill", [Comparison(1, EQUAL, 9)])
        program = made.program()
    assert results(program) >= {ALLOW, fails_with(errno.ENOSYS), fails_with(errno.EACCES)}


def test_calls_that_the_library_does_not_know_get_the_default():
    with SeccompFilter(fails_with(errno.ENOSYS)) as made:
        made.add(ALLOW, "write")
        before = made.program()
        made.add(ALLOW, "no_such_call")
        made.add(fails_with(errno.ENOSYS), "read")  # as without a rule
        assert made.program() == before


def test_what_libseccomp_refuses_is_named():
    made = SeccompFilter(ALLOW)
    with made, pytest.raises(SeccompError, match="libseccomp refuses kill: Invalid argument"):
        made.add(fails_with(1), "kill", [Comparison(9, EQUAL, 1)])  # a call has six arguments
    with made.__class__(ALLOW) as other, pytest.raises(SeccompError, match="no_such_machine"):
        other.add_architecture("no_such_machine")


def test_a_missing_library_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(seccomp_filter, "_LIBRARY", "libno-such-library.so.2")
    with pytest.raises(SeccompError, match="install the package libseccomp2"):
        SeccompFilter(ALLOW)
