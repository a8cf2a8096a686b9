"""The baseline: QEMU clones with our arguments, started and driven over QMP by this file only."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vc_core import Pod

if TYPE_CHECKING:
    from _typeshed import HasFileno

# What HTTP/2 begins with (RFC 9113, section 3.4), and an empty SETTINGS frame: the agent's own
# SETTINGS are its answer.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_MONITOR_FD, _FIRST_FD, _STATE_FD = 3, 4, 5


@dataclass(frozen=True)
class Recipe:
    """How a clone of ours is started.

    Attributes:
        words: its command line.
        run_dir: which stands in them.
        state: the file that it loads.
    """

    words: tuple[str, ...]
    run_dir: Path
    state: Path


async def recipe(pod: Pod, run_dir: Path, templates: Path) -> Recipe:
    """Taken from a running pod: exactly the arguments that the product uses."""
    pid = (await pod.status()).pid
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().rstrip("\0").split("\0")
    # In its jail QEMU has other paths of shares: those of the host are empty folders here.
    for number, name in enumerate(("nothing", "files")):
        words = [
            word.replace(f"path=/shares/{number},", f"path={run_dir}/{name},") for word in words
        ]
    state = next(path for path in templates.glob("*/state"))
    return Recipe(tuple(words), run_dir, state)


class Clone:
    """One machine."""

    def __init__(self, how: Recipe, folder: Path) -> None:
        for name in ("nothing", "files"):
            (folder / name).mkdir(parents=True)
        words = [word.replace(str(how.run_dir), str(folder)) for word in how.words]
        with _listening(folder / "qmp.sock") as monitor, _listening(folder / "first.sock") as first:
            with how.state.open("rb") as state:
                files: dict[int, HasFileno] = {
                    _MONITOR_FD: monitor,
                    _FIRST_FD: first,
                    _STATE_FD: state,
                }
                high = {
                    number: fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 64)
                    for number, file in files.items()
                }
            self.pid = _spawn(words, high, folder / "log")
            for handle in high.values():
                os.close(handle)
        self._folder = folder
        self._qmp = _connected(folder / "qmp.sock").makefile("rwb")
        self._qmp.readline()

    def load(self) -> None:
        """Lets it go on from the saved state."""
        self._execute("qmp_capabilities", {})
        wanted = [{"capability": name, "state": True} for name in ("x-ignore-shared", "events")]
        self._execute("migrate-set-capabilities", {"capabilities": wanted})
        self._execute("migrate-incoming", {"uri": f"fd:{_STATE_FD}"})

    def answered(self) -> None:
        """Returns when the agent has said its first bytes."""
        with _connected(self._folder / "first.sock") as channel:
            channel.sendall(_HELLO)
            if not channel.recv(9):
                raise RuntimeError("the guest's agent hung up")

    def end(self) -> None:
        """Kills it."""
        self._qmp.close()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def _execute(self, command: str, arguments: dict[str, object]) -> None:
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
        self._qmp.flush()
        while True:
            told = json.loads(self._qmp.readline())
            if "error" in told:
                raise RuntimeError(told["error"]["desc"])
            if "return" in told:
                return


@contextmanager
def clones(how: Recipe, folder: Path, count: int) -> Iterator[tuple[list[Clone], float]]:
    """So many, started at once; and the seconds until the last one has answered."""
    began = time.monotonic()
    made: list[Clone] = []
    try:
        made.extend(Clone(how, folder / str(number)) for number in range(count))
        for clone in made:
            clone.load()
        for clone in made:
            clone.answered()
        yield made, time.monotonic() - began
    finally:
        for clone in made:
            clone.end()


def _spawn(words: list[str], handles: dict[int, int], log: Path) -> int:
    """Its process id; descriptors get the numbers that stand on the command line."""
    actions: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT, 0o600)
    ]
    actions += [
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_DUP2, ours, theirs) for theirs, ours in handles.items()),
    ]
    return os.posix_spawn(words[0], words, dict(os.environ), file_actions=actions)


def _listening(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(path))
    made.listen(8)
    return made


def _connected(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.connect(str(path))
    return made
