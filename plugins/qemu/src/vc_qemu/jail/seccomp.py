"""The seccomp filter of QEMU: a list of the system calls that it requires.

QEMU's own `-sandbox` is a list of refused calls, and permits unknown ones. This is a list of
permitted calls; all others fail as in a kernel that lacks them. Both filters are active.
"""

from __future__ import annotations

import errno
import os

from vc_core.driver_kit.seccomp_filter import (
    ALLOW,
    EQUAL,
    MASKED_EQUAL,
    NOT_EQUAL,
    Comparison,
    SeccompFilter,
    fails_with,
)

_AT_FDCWD, _INT = -100, 0xFFFFFFFF
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


def compiled(is_first_process: bool, memory_is_stdin: bool) -> bytes:
    """Returns the program for this host's architecture.

    Args:
        is_first_process: whether the process is number 1 of a pid namespace: it signals no other.
        memory_is_stdin: whether opening the file of its memory returns the standard input. QEMU
            before 8.2 opens that file for writing even when it maps it privately, and has no option
            for that. It opens only this file, and /dev/null to test file locks, by name with no
            other flag than O_RDWR.

    Raises:
        SeccompError: libseccomp is missing or refuses the list.
    """
    with SeccompFilter(fails_with(errno.ENOSYS)) as made:
        made.search_as_tree()  # some 8 comparisons for each call instead of up to 230
        for name in " ".join((_RUNS, _OPEN, _FILES)).split():
            made.add(ALLOW, name)
        made.add(ALLOW, "clone", [Comparison(0, MASKED_EQUAL, _NEW_NAMESPACES, 0)])
        _add_open(made, memory_is_stdin)
        made.add(ALLOW, "tgkill", [Comparison(0, EQUAL, 1)] if is_first_process else [])
        return made.program()


def _add_open(made: SeccompFilter, memory_is_stdin: bool) -> None:
    if not memory_is_stdin:
        for name in ("open", "openat"):
            made.add(ALLOW, name)
        return
    for name, flags in (("open", 1), ("openat", 2)):
        made.add(ALLOW, name, [Comparison(flags, NOT_EQUAL, os.O_RDWR)])
    # A call that "fails" with error 0 returns 0: the number of the standard input.
    by_name = Comparison(0, MASKED_EQUAL, _INT, _AT_FDCWD & _INT)
    made.add(fails_with(0), "openat", [by_name, Comparison(2, EQUAL, os.O_RDWR)])
