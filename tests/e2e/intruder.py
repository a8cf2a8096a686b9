"""Somebody who runs code inside a process of another: makes its system calls, by ptrace.

The calls are the process's own: its filter, its namespaces, its root, its rights. This is what
somebody can do who has broken into it, and no more. For x86-64.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from dataclasses import dataclass, field
from typing import Self

_ATTACH, _DETACH, _STEP, _GETREGS, _SETREGS, _SETOPTIONS = 16, 17, 9, 12, 13, 0x4200
_TRACE_EXIT, _EXIT_KILL, _EXIT_EVENT = 0x40, 0x100000, 6
_SYSCALL = b"\x0f\x05"
_WALL = 0x40000000
_SCRATCH = 64 << 10  # below the stack of the thread, where nothing is

_libc = ctypes.CDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.restype = ctypes.c_long
_ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


_NAMES = (
    "r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ss"
    " fs_base gs_base ds es fs gs"
)


class _Registers(ctypes.Structure):
    """struct user_regs_struct of sys/user.h."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in _NAMES.split()]


class Killed(Exception):
    """The kernel has killed the process for the call."""


@dataclass
class Intruder:
    """In the main thread of a process, which stands still meanwhile.

    Attributes:
        pid: of the process.
    """

    pid: int
    _registers: _Registers = field(default_factory=_Registers)
    _entry: int = 0

    def __enter__(self) -> Self:
        _check(_ptrace(_ATTACH, self.pid, None, None))
        self._wait()
        _check(_ptrace(_SETOPTIONS, self.pid, None, _TRACE_EXIT | _EXIT_KILL))
        _check(_ptrace(_GETREGS, self.pid, None, ctypes.addressof(self._registers)))
        self._memory = os.open(f"/proc/{self.pid}/mem", os.O_RDWR)
        self._entry = self._registers.rip - len(_SYSCALL)  # it waits in a call of its own
        assert os.pread(self._memory, 2, self._entry) == _SYSCALL, "it waits for nothing"
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        os.close(self._memory)
        if kind is Killed:  # perhaps only its main thread, and that waits until it is let go
            os.kill(self.pid, signal.SIGKILL)
            _ptrace(_DETACH, self.pid, None, None)
        else:
            _check(_ptrace(_SETREGS, self.pid, None, ctypes.addressof(self._registers)))
            _check(_ptrace(_DETACH, self.pid, None, None))

    def call(self, number: int, *arguments: int | bytes) -> int:
        """Makes a system call; gives what the kernel answers, a negative number for an error.

        Args:
            number: of the call.
            arguments: bytes are put into the memory of the process, which gets their address.

        Raises:
            Killed: there was no answer.
        """
        place = self._registers.rsp - _SCRATCH & ~0xF
        words = []
        for argument in arguments:
            if isinstance(argument, bytes):
                os.pwrite(self._memory, argument + b"\0", place)
                words.append(place)
                place += len(argument) + 16 & ~0xF
            else:
                words.append(argument)
        changed = _Registers.from_buffer_copy(self._registers)
        changed.rip, changed.rax, changed.orig_rax = self._entry, number, (1 << 64) - 1
        for name, word in zip(("rdi", "rsi", "rdx", "r10", "r8", "r9"), words, strict=False):
            setattr(changed, name, word & (1 << 64) - 1)
        _check(_ptrace(_SETREGS, self.pid, None, ctypes.addressof(changed)))
        while True:
            _check(_ptrace(_STEP, self.pid, None, None))
            if self._wait() == signal.SIGTRAP:
                break  # else a signal was about to be delivered; it is not
        after = _Registers()
        _check(_ptrace(_GETREGS, self.pid, None, ctypes.addressof(after)))
        return ctypes.c_longlong(after.rax).value

    def read(self, size: int) -> bytes:
        """What a call has written behind the first bytes that it was given."""
        return os.pread(self._memory, size, self._registers.rsp - _SCRATCH & ~0xF)

    def _wait(self) -> int:
        """Returns the signal that it has stopped for."""
        _, status = os.waitpid(self.pid, _WALL)
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            raise Killed
        if os.WSTOPSIG(status) == signal.SIGSYS or status >> 16 == _EXIT_EVENT:
            raise Killed
        return os.WSTOPSIG(status)


def named(answer: int) -> str:
    """An answer for people."""
    return errno.errorcode.get(-answer, str(answer)) if answer < 0 else "done"


def _check(outcome: int) -> None:
    if outcome < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
