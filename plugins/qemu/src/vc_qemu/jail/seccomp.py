"""The seccomp filter of QEMU: a list of the system calls that it requires.

QEMU's own `-sandbox` is a list of refused calls, and permits unknown ones. This is a list of
permitted calls; all others fail as in a kernel that lacks them. Both filters are active.
Compiled by libseccomp, a dependency of every QEMU with `-sandbox`; its functions are those of
seccomp.h, https://github.com/seccomp/libseccomp.
"""

from __future__ import annotations

import ctypes
import errno
import os

_LIBRARY = "libseccomp.so.2"
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NOT_EQUAL, _EQUAL, _MASKED_EQ = 1, 4, 7
_AT_FDCWD, _INT = -100, 0xFFFFFFFF
_NO_NEW_PRIVILEGES = 3  # SCMP_FLTATR_CTL_NNP: the jail sets it itself
_OPTIMIZE, _AS_A_TREE = (
    8,
    2,
)  # SCMP_FLTATR_CTL_OPTIMIZE: some 8 comparisons for each call instead of up to 230
_UNKNOWN = -1
_NEW_NAMESPACES = 0x7E020000 | 0x80  # all CLONE_NEW*, time namespaces too

# Memory, threads, time, signals, and the process itself.
_RUNS = (
    "brk mmap munmap mprotect mremap madvise mincore msync mlock munlock mlock2 membarrier rseq"
    " set_robust_list get_robust_list futex futex_waitv sched_yield sched_getaffinity"
    " sched_setaffinity sched_getparam sched_getscheduler get_mempolicy set_mempolicy mbind"
    " set_tid_address gettid getpid getppid getcpu exit exit_group restart_syscall arch_prctl prctl"
    " prlimit64 getrlimit getrusage times sysinfo uname getrandom memfd_create"
    " clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time"
    " timer_create timer_settime timer_gettime timer_getoverrun timer_delete getitimer setitimer"
    " alarm pause timerfd_create timerfd_settime timerfd_gettime"
    " rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait"
    " sigaltstack signalfd signalfd4 eventfd eventfd2"
    " getuid geteuid getgid getegid getresuid getresgid getgroups capget getsid getpgrp getpgid"
    " setsid"
    " execve vfork"  # to execute QEMU; its own filter refuses both from then on
    " seccomp"  # QEMU's own filter
)
# Descriptors that are open already or received. No call here creates a socket that can be
# connected: a pair of sockets is connected only to itself (vhost-user uses one).
_OPEN = (
    "read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 close close_range"
    " lseek dup dup2 dup3 fcntl ioctl poll ppoll select pselect6 epoll_create epoll_create1"
    " epoll_ctl epoll_wait epoll_pwait epoll_pwait2 pipe pipe2 accept accept4 listen recvfrom"
    " recvmsg recvmmsg sendto sendmsg sendmmsg shutdown getsockname getpeername getsockopt"
    " setsockopt socketpair sendfile splice tee copy_file_range"
    " io_setup io_destroy io_submit io_getevents io_pgetevents io_cancel"
    " fsync fdatasync sync_file_range syncfs fallocate ftruncate flock fadvise64 readahead"
)
# Files. The root determines which ones exist.
_FILES = (
    "openat2 creat access faccessat faccessat2 stat fstat lstat newfstatat statx statfs fstatfs"
    " readlink readlinkat getdents getdents64 getcwd chdir fchdir umask truncate mkdir mkdirat"
    " rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat mknod mknodat"
    " chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat utime utimes utimensat futimesat"
    " getxattr lgetxattr fgetxattr setxattr lsetxattr fsetxattr listxattr llistxattr flistxattr"
    " removexattr lremovexattr fremovexattr name_to_handle_at"
)


class NoFilter(Exception):
    """A seccomp filter is not available; the message says why."""


class _Argument(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = [
        ("index", ctypes.c_uint),
        ("comparison", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    ]


def compiled(is_first_process: bool, memory_is_stdin: bool) -> bytes:
    """Returns the program for this host's architecture.

    Args:
        is_first_process: whether the process is number 1 of a pid namespace: it signals no other.
        memory_is_stdin: whether opening the file of its memory returns the standard input. QEMU
            before 8.2 opens that file for writing even when it maps it privately, and has no option
            for that. It opens only this file, and /dev/null to test file locks, by name with no
            other flag than O_RDWR.

    Raises:
        NoFilter: libseccomp is missing or refuses the list.
    """
    try:
        library = _library()
    except OSError as error:
        raise NoFilter(f"{_LIBRARY} is missing") from error
    context = library.seccomp_init(_ERRNO | errno.ENOSYS)
    try:
        _demand(library.seccomp_attr_set(context, _NO_NEW_PRIVILEGES, 0), "seccomp_attr_set")
        library.seccomp_attr_set(context, _OPTIMIZE, _AS_A_TREE)  # libseccomp >= 2.5
        for name in " ".join((_RUNS, _OPEN, _FILES)).split():
            _add(library, context, name)
        _add(library, context, "clone", _Argument(0, _MASKED_EQ, _NEW_NAMESPACES, 0))
        _add_open(library, context, memory_is_stdin)
        own = (_Argument(0, _EQUAL, 1, 0),) if is_first_process else ()
        _add(library, context, "tgkill", *own)
        return _exported(library, context)
    finally:
        library.seccomp_release(context)


def _add_open(library: ctypes.CDLL, context: int, memory_is_stdin: bool) -> None:
    if not memory_is_stdin:
        for name in ("open", "openat"):
            _add(library, context, name)
        return
    for name, flags in (("open", 1), ("openat", 2)):
        _add(library, context, name, _Argument(flags, _NOT_EQUAL, os.O_RDWR, 0))
    # A call that "fails" with error 0 returns 0: the number of the standard input.
    number = library.seccomp_syscall_resolve_name(b"openat")
    given = (_Argument * 2)(
        _Argument(0, _MASKED_EQ, _INT, _AT_FDCWD & _INT), _Argument(2, _EQUAL, os.O_RDWR, 0)
    )
    _demand(library.seccomp_rule_add_array(context, _ERRNO, number, 2, given), "openat")


def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    context, number = ctypes.c_void_p, ctypes.c_uint32
    library.seccomp_init.restype, library.seccomp_init.argtypes = context, [number]
    library.seccomp_release.argtypes, library.seccomp_release.restype = [context], None
    library.seccomp_attr_set.argtypes = [context, ctypes.c_int, number]
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


def _add(library: ctypes.CDLL, context: int, name: str, *arguments: _Argument) -> None:
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number == _UNKNOWN:
        return  # newer than the library
    given = (_Argument * len(arguments))(*arguments)
    _demand(library.seccomp_rule_add_array(context, _ALLOW, number, len(arguments), given), name)


def _exported(library: ctypes.CDLL, context: int) -> bytes:
    file = os.memfd_create("seccomp")
    try:
        _demand(library.seccomp_export_bpf(context, file), "seccomp_export_bpf")
        return os.pread(file, os.fstat(file).st_size, 0)
    finally:
        os.close(file)


def _demand(outcome: int, what: str) -> None:
    if outcome != 0:
        raise NoFilter(
            f"libseccomp refuses {what}: {os.strerror(-outcome)}; update the package libseccomp2"
        )
