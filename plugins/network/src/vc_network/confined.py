"""Confines the process that reads what guests send to the filter of names.

It keeps its sockets and can make others of TCP and UDP. It has no file, no capability, no other
program and no other process: the system calls for these do not exist for it. Nor do those that let
the kernel send signals on its behalf, as to the owner of a socket (fcntl(2), F_SETOWN).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal

from vc_core.driver_kit.seccomp_filter import (
    ALLOW,
    EQUAL,
    MASKED_EQUAL,
    Comparison,
    SeccompFilter,
    fails_with,
)

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38  # linux/prctl.h
_SECCOMP_MODE_FILTER = 2
_INSTRUCTION_BYTES = 8
_CAPABILITY_VERSION = 0x20080522  # linux/capability.h, version 3
_INET, _INET6 = 2, 10
_SOCKET_TYPE = 0xF  # linux/net.h; the other bits are SOCK_CLOEXEC and SOCK_NONBLOCK
_FIONBIO = 0x5421  # asm-generic/ioctls.h: how Python makes a socket nonblocking
_STREAM, _DATAGRAM = 1, 2
# 0 is the type's usual protocol. Others, and other types, load modules of the kernel.
_TRANSPORTS = ((_STREAM, 0), (_STREAM, 6), (_DATAGRAM, 0), (_DATAGRAM, 17))

_CALLS = (
    "brk mmap munmap mprotect mremap madvise futex sched_yield rseq set_robust_list"
    " clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getrandom"
    " rt_sigaction rt_sigprocmask rt_sigreturn sigaltstack restart_syscall"
    " getpid gettid getuid geteuid getgid getegid exit exit_group"
    " read write readv writev close lseek fstat poll ppoll select pselect6"
    " epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2"
    " bind connect accept accept4 listen recvfrom recvmsg recvmmsg sendto sendmsg shutdown"
    " getsockname getpeername getsockopt setsockopt"
)
# Python looks for modules that it may import: as in an empty root, there are none.
_FILES = "open openat openat2 stat lstat newfstatat statx access faccessat faccessat2 readlink"


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def end_with_parent(parent: int) -> None:
    """Kills this process when its parent ends, or now if it has ended already."""
    _check(_LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def compiled() -> bytes:
    """Returns the seccomp filter: a list of allowed calls; others fail as unknown ones.

    Raises:
        SeccompError: libseccomp is missing or refuses the list.
    """
    with SeccompFilter(fails_with(errno.ENOSYS)) as made:
        made.search_as_tree()
        for name in _CALLS.split():
            made.add(ALLOW, name)
        for name in _FILES.split():
            made.add(fails_with(errno.ENOENT), name)
        made.add(ALLOW, "ioctl", [Comparison(1, EQUAL, _FIONBIO)])
        for family in (_INET, _INET6):
            for kind, protocol in _TRANSPORTS:
                conditions = [
                    Comparison(0, EQUAL, family),
                    Comparison(1, MASKED_EQUAL, _SOCKET_TYPE, kind),
                    Comparison(2, EQUAL, protocol),
                ]
                made.add(ALLOW, "socket", conditions)
        return made.program()


def confine(program: bytes, root: str) -> None:
    """Confines this process for the rest of its life.

    Args:
        program: the seccomp filter.
        root: an empty folder, which becomes its root.

    Raises:
        OSError: the kernel refuses.
    """
    os.chroot(root)
    os.chdir("/")
    header, nothing = _Header(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    _check(_LIBC.capset(ctypes.byref(header), nothing))
    _check(_LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    values = _Program(len(program) // _INSTRUCTION_BYTES, program)
    _check(_LIBC.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(values), 0, 0))


def _check(outcome: int) -> None:
    if outcome != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
