"""A libvirtd of the tests' own, with virtlogd, in a mount namespace without /dev/kvm.

Where that node opens but does not work, libvirtd queries QEMU's capabilities again and again, for
two seconds each time. `python -m tests.e2e.libvirtd FOLDER` is the process that runs both. It reads
commands from its input, ends at the end of that, and reaps what they leave: libvirtd waits until a
machine's process is gone, and process 1 may be slow to reap it here.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_KEPT = ("null", "zero", "full", "random", "urandom", "tty", "ptmx")
# The paths are libvirt's own, compiled in. Its machines' private /dev cannot be made where /dev/pts
# is mounted twice.
_OURS = {
    "run": "/run/libvirt",
    "log": "/var/log/libvirt",
    "lib": "/var/lib/libvirt",
    "cache": "/var/cache/libvirt",
}
_CONFIG = "namespaces = []\n"
_ENDING_S = 30.0
_LOOP, _LOOPS = 7, 64  # the major number of loop devices, and more than a test attaches


class Libvirtd:
    """The tests' side."""

    def __init__(self, folder: Path, shared: list[Path]) -> None:
        """What is mounted below the folders in `shared`, it sees, too: as any libvirtd does that
        has no namespace.
        """
        self.folder = folder
        self._shared = shared
        for path in shared:
            subprocess.run(["mount", "--bind", path, path], check=True)
            subprocess.run(["mount", "--make-shared", path], check=True)
        self.uri = f"qemu+unix:///system?socket={folder}/run/libvirt-sock"
        self.log_dir = folder / "log/qemu"
        command = [
            "unshare",
            "--mount",
            "--propagation",
            "slave",
            sys.executable,
            "-m",
            "tests.e2e.libvirtd",
            folder,
        ]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
        )
        self._expect("ready")

    def restart(self) -> None:
        """Ends libvirtd at once and starts it again: what it ran goes on."""
        self._say("restart")
        self._expect("ready")

    def end(self) -> None:
        """Ends both."""
        self._process.communicate(timeout=30)
        for path in self._shared:
            _unmount(path)

    def _say(self, word: str) -> None:
        self._process.stdin.write(word.encode() + b"\n")
        self._process.stdin.flush()

    def _expect(self, word: str) -> None:
        told = self._process.stdout.readline().decode().strip()
        assert told == word, (told, (self.folder / "daemons.log").read_text())


def _unmount(path: Path) -> None:
    """Waits for processes that are ending: the kernel closes their files after all else of them."""
    until = time.monotonic() + _ENDING_S
    while subprocess.run(["umount", "--recursive", path], check=False).returncode != 0:
        assert time.monotonic() < until, f"{path} is in use by {_users(path)}"
        time.sleep(0.1)  # nobody tells of the last file


def _users(path: Path) -> list[str]:
    """Returns the open files and directories of processes that are below a path."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has just ended
            links = [process / "cwd", *(process / "fd").iterdir()]
            found += [str(link) for link in links if _leads_below(link, path)]
    return found


def _leads_below(link: Path, path: Path) -> bool:
    try:
        return link.readlink().is_relative_to(path)
    except OSError:  # it has just been closed
        return False


def _mount_all(folder: Path) -> None:
    dev = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "dev", dev], check=True)
    for name in _KEPT:
        subprocess.run(["cp", "-a", f"/dev/{name}", dev], check=True)
    for number in range(_LOOPS):  # others come when they are attached, and would be missing here
        os.mknod(dev / f"loop{number}", 0o600 | stat.S_IFBLK, os.makedev(_LOOP, number))
    for name in ("pts", "shm"):
        (dev / name).mkdir()
        subprocess.run(["mount", "--rbind", f"/dev/{name}", dev / name], check=True)
    subprocess.run(["mount", "--move", dev, "/dev"], check=True)
    dev.rmdir()
    for name, path in _OURS.items():
        (folder / name).mkdir(exist_ok=True)
        Path(path).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", folder / name, path], check=True)
    config = folder / "qemu.conf"
    config.write_text(_CONFIG)
    subprocess.run(["mount", "--bind", config, "/etc/libvirt/qemu.conf"], check=True)


def _start(name: str, folder: Path) -> int:
    """Returns when it is ready: as a daemon, its first process waits for that."""
    pid_file = folder / f"{name}.pid"
    pid_file.unlink(missing_ok=True)
    with (folder / "daemons.log").open("ab") as log:
        subprocess.run(
            [name, "--daemon", "--pid-file", pid_file], stdout=log, stderr=log, check=True
        )
    return int(pid_file.read_text())


def _end(pid: int) -> None:
    handle = os.pidfd_open(pid)
    signal.pidfd_send_signal(handle, signal.SIGKILL)
    select.select([handle], [], [])
    os.close(handle)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return


def main(folder: Path) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _mount_all(folder)
    virtlogd, libvirtd = _start("virtlogd", folder), _start("libvirtd", folder)
    came, comes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(comes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    print("ready", flush=True)
    while True:
        ready, _, _ = select.select([came, sys.stdin], [], [])
        if came in ready:
            os.read(came, 512)
            _reap()
        if sys.stdin in ready:
            if sys.stdin.readline().strip() != "restart":
                break
            _end(libvirtd)
            libvirtd = _start("libvirtd", folder)
            print("ready", flush=True)
    for pid in (libvirtd, virtlogd):
        _end(pid)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
