"""Runs in a pod's network namespace and keeps it; imports only the standard library.

usage: python -I -S inside.py DESCRIPTOR PID_FILE NAME PROGRAM...

DESCRIPTOR is a socket to the caller, NAME the name of the tap, PROGRAM the program that this one
executes at the end. Writes its pid and start time to PID_FILE and reports that; waits for a
plan; carries it out; answers with the tap's descriptor or an error. Ends when the caller ends
before that.
"""

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

_TUNSETIFF = 0x400454CA  # linux/if_tun.h
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_MESSAGE_BYTES = 1 << 18


def main(descriptor: int, pid_file: Path, name: str, program: list[str]) -> None:
    """Runs the steps described above."""
    caller = socket.socket(fileno=descriptor)
    start_ticks = Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    pid_file.write_text(f"{os.getpid()} {start_ticks}")
    caller.send(b"ready")
    message = caller.recv(_MESSAGE_BYTES)
    if not message:
        return
    plan = json.loads(message)
    try:
        for path, value in plan["sysctls"].items():
            Path("/proc/sys/net", path).write_text(value)
        for command, text in plan["before"]:
            _run(command, text)
        tap = open_tap(name)
        for command, text in plan["after"]:
            _run(command, text)
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else ""
        caller.send(json.dumps({"error": said or str(error)}).encode())
        return
    socket.send_fds(caller, [b"{}"], [tap])
    os.closerange(3, max(tap, descriptor) + 1)
    os.execv(program[0], program)  # noqa: S606 (no shell is wanted)


def open_tap(name: str) -> int:
    """Makes a tap; returns its descriptor. The tap is gone when all copies of that are closed."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR
    try:
        fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
    except BaseException:
        os.close(tap)
        raise
    return tap


def _run(command: list[str], text: str) -> None:
    subprocess.run(command, input=text, capture_output=True, text=True, check=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4:])
