"""Runs in a pod's network namespace and keeps it. The start of a pod waits for it.

usage: python -I -S inside.py DESCRIPTOR PID_FILE PROGRAM...

DESCRIPTOR is a socket to the caller, PROGRAM the program that this one executes at the end. Writes
its pid and start time to PID_FILE and reports that. Then it carries out the caller's messages, the
fields of which end with a zero byte each:

    tap NAME            makes a tap, which is down; its descriptor comes with the answer
    write VALUE PATH    writes a file
    run INPUT PROGRAM...
    keep                executes PROGRAM

Each is answered by "done", or by the reason why it failed. Ends when the caller ends before `keep`.

It imports only modules that are written in C: those of the standard library that are written in
Python (socket, subprocess, json, pathlib) take three times as long as the start of Python.
"""

import _socket
import fcntl
import os
import sys

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_NAME_BYTES, _REQUEST_BYTES = 16, 40  # linux/if.h: struct ifreq
_MESSAGE_BYTES = 1 << 18
_SAID_BYTES = 1 << 12
DONE = b"done"
"""The answer to what did not fail."""


def main(descriptor: int, pid_file: str, program: list[str]) -> None:
    """Runs the steps described above."""
    os.umask(0o077)
    os.chdir("/")  # the namespace outlives its caller: it must not keep a folder busy
    caller = _socket.socket(fileno=descriptor)
    os.set_inheritable(descriptor, False)  # PROGRAM, nft and ip have no use for it
    with open("/proc/self/stat") as stat:  # noqa: PTH123 (pathlib is slow)
        start_ticks = stat.read().rpartition(")")[2].split()[19]
    _write(pid_file, f"{os.getpid()} {start_ticks}".encode())
    caller.send(DONE)
    while message := caller.recv(_MESSAGE_BYTES):
        kind, *fields = message.split(b"\0")[:-1]
        if kind == b"keep":
            caller.send(DONE)
            os.execv(program[0], program)  # noqa: S606 (no shell is wanted)
        try:
            if kind == b"tap":
                _send_tap(caller, fields[0].decode())
                continue
            if kind == b"write":
                _write(fields[1].decode(), fields[0])
                reason = b""
            else:
                reason = _run(fields[1:], fields[0])
        except OSError as error:
            reason = str(error).encode()
        caller.send(reason or DONE)


def open_tap(name: str) -> int:
    """Makes a tap; returns its descriptor. The tap is gone when all copies of that are closed."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
    request = name.encode().ljust(_NAME_BYTES, b"\0") + flags.to_bytes(2, sys.byteorder)
    try:
        fcntl.ioctl(tap, _TUNSETIFF, request.ljust(_REQUEST_BYTES, b"\0"))
    except BaseException:
        os.close(tap)
        raise
    return tap


def _send_tap(caller: _socket.socket, name: str) -> None:
    tap = open_tap(name)
    rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, tap.to_bytes(4, sys.byteorder))
    caller.sendmsg([DONE], [rights])
    os.close(tap)


def _write(path: str, value: bytes) -> None:
    with open(path, "wb") as file:  # noqa: PTH123 (pathlib is slow)
        file.write(value)


def _run(words: list[bytes], text: bytes) -> bytes:
    """Runs a program; returns why it failed, empty when it did not."""
    given, said = os.memfd_create("input"), os.memfd_create("output")
    try:
        os.write(given, text)
        os.lseek(given, 0, os.SEEK_SET)
        copies = [(os.POSIX_SPAWN_DUP2, given, 0)]
        copies += [(os.POSIX_SPAWN_DUP2, said, number) for number in (1, 2)]
        child = os.posix_spawn(words[0], words, os.environ, file_actions=copies)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if code == 0:
            return b""
        return os.pread(said, _SAID_BYTES, 0).strip() or f"exit code {code}".encode()
    finally:
        os.close(given)
        os.close(said)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
