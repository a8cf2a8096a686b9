"""A host whose pods have a guest that is played by the test: `vc` as a user types it, and what it
needed of memory.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pexpect
import pytest

from tests.hostile.agent import Agent
from vc_core.engine.host import bind_mounts

SITE = Path(__file__).parent / "site"
DEADLINE_S = 1
MAX_MIB = 200
# glibc keeps freed memory below a threshold that it raises as it goes, in an arena for each thread;
# how much depends on the order of the threads. With a fixed one, the peak tells what the program
# keeps.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536"}
# A call that does not end is a failure; how long it may take is for the deadlines of the
# configuration.
_ENDS_S = 60
_EXITS = {0, 124, 125, 126, 127}
_ALLOWED_LINES = re.compile(r"vc: (error|warning): ")


@dataclass(frozen=True)
class Done:
    """What a command did.

    Attributes:
        words: that were typed.
        code: its exit code.
        stdout: what it wrote.
        stderr: as lines.
        peak_mib: the most memory that it had.
    """

    words: tuple[str, ...]
    code: int
    stdout: bytes
    stderr: list[str]
    peak_mib: float

    def problems(self) -> list[str]:
        """What no guest may bring a command to, whatever it answers."""
        found = []
        text = "\n".join(self.stderr)
        if self.code not in _EXITS:
            found.append(f"it exits with {self.code}")
        if self.peak_mib > MAX_MIB:
            found.append(f"it needed {self.peak_mib:.0f} MiB")
        found += [f"stderr has {word!r}" for word in ("Traceback", "a bug in vc") if word in text]
        errors = [line for line in self.stderr if line.startswith("vc: error:")]
        if self.code == 125 and len(errors) != 1:
            found.append(f"it tells {len(errors)} errors")
        found += [
            f"a line that is none of ours: {line!r}"
            for line in self.stderr
            if not _ALLOWED_LINES.match(line)
        ]
        found += [f"a line of {len(line)} characters" for line in self.stderr if len(line) > 2000]
        found += [
            f"a control character in {line!r}" for line in self.stderr if not line.isprintable()
        ]
        return found


@dataclass(frozen=True)
class Call:
    """A call of the API.

    Attributes:
        name: what was called.
        is_right: whether it gave a right answer, or an error of this project.
        error: the type of its error, empty for none.
        text: of the error.
    """

    name: str
    is_right: bool
    error: str
    text: str


@dataclass(frozen=True)
class Program:
    """A program that uses the API against the guest; limited_api.py has its protocol."""

    process: subprocess.Popen[str]
    errors: Path
    peak: Path

    def round(self, pod_id: str) -> list[Call]:
        """All calls, on a pod that is there. Fails when one does not end."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{pod_id}\n")
        self.process.stdin.flush()
        calls: list[Call] = []
        begun = "the start"
        while line := self._next_line():
            match json.loads(line):
                case None:
                    return calls
                case ["begins", name]:
                    begun = name
                case values:
                    calls.append(Call(*values))
        pytest.fail(f"{begun} does not end, or ends the program: {self.errors.read_text()[-2000:]}")

    def _next_line(self) -> str:
        """What it writes next; nothing when it does not, and is killed."""
        assert self.process.stdout is not None
        watchdog = threading.Timer(_ENDS_S, self.process.kill)
        watchdog.start()
        try:
            return self.process.stdout.readline()
        finally:
            watchdog.cancel()

    def end(self) -> list[str]:
        """Ends it; tells what no guest may bring a program to."""
        _, _ = self.process.communicate(timeout=_ENDS_S)
        lines = self.errors.read_text().rstrip("\n").split("\n")
        found = [
            line
            for line in lines
            if line and not (line.startswith("WARNING vc_core.") and line.isprintable())
        ]
        peak_mib = int(self.peak.read_text()) / 1024
        if peak_mib > MAX_MIB:
            found.append(f"it needed {peak_mib:.0f} MiB")
        if self.process.returncode != 0:
            found.append(f"it exits with {self.process.returncode}")
        return found


@dataclass(frozen=True)
class Follower:
    """A command at a terminal that goes on until Ctrl-C; `peak` is the file for its memory."""

    screen: pexpect.spawn
    peak: Path

    def interrupt(self, times: int = 1) -> tuple[int | None, str, float]:
        """Types Ctrl-C; gives the exit code, what it wrote since, and its peak in MiB."""
        for _ in range(times):
            self.screen.sendintr()
        self.screen.expect(pexpect.EOF)
        self.screen.wait()
        text = self.screen.before.decode(errors="replace")
        return self.screen.exitstatus, text, int(self.peak.read_text()) / 1024


@dataclass
class HostileHost:
    """The user's side of a test, and the guest's."""

    folder: Path
    agent: Agent

    def configure(self, deadline_s: float) -> None:
        """Writes the configuration."""
        settings: dict[str, dict[str, object]] = {
            "use": {"hypervisor": "hostile"},
            "hypervisor.hostile": {
                "socket": str(self.agent.path),
                "console": str(self.folder / "console"),
            },
            "agent.grpc": {"cache": str(self.folder / "cache")},
            "deadlines": {"default": deadline_s, "boot": deadline_s, "lock": deadline_s, "stop": 1},
            "storage.fs": {
                "run_root": str(self.folder / "run"),
                "config_root": str(self.folder / "config"),
            },
            "data": {"dir": str(self.folder / "lasting")},
            **{
                table: {"dir": str(self.folder / table)}
                for table in ("template", "snapshot", "image", "volume")
            },
        }
        lines = []
        for table, values in settings.items():
            lines += [
                f"[{table}]",
                *(f"{key} = {json.dumps(value)}" for key, value in values.items()),
            ]
        (self.folder / "vc.toml").write_text("\n".join(lines) + "\n")

    def _environ(self) -> dict[str, str]:
        own = {"PYTHONPATH": str(SITE), "VC_CONFIG": str(self.folder / "vc.toml")}
        return {**os.environ, **_ALLOCATOR, **own}

    def vc(self, *words: str, stdin: bytes = b"") -> Done:
        """Types a command."""
        peak = self.folder / "peak"
        peak.unlink(missing_ok=True)
        environ = self._environ()
        command = [sys.executable, str(SITE / "limited_vc.py"), str(peak), *words]
        output = self.folder / "stdout"
        with (
            output.open("wb") as stdout,
            subprocess.Popen(
                command, env=environ, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE
            ) as process,
        ):
            try:
                _, stderr = process.communicate(stdin, timeout=_ENDS_S)
            except subprocess.TimeoutExpired:
                process.kill()
                pytest.fail(f"vc {' '.join(words)} does not end")
        with output.open("rb") as written:
            head = written.read(1 << 20)  # a hostile guest writes without an end
        lines = stderr.decode(errors="replace").splitlines()
        return Done(words, process.returncode, head, lines, int(peak.read_text()) / 1024)

    @contextmanager
    def follow(self, *words: str) -> Iterator[Follower]:
        """Types a command that goes on until Ctrl-C, at a terminal."""
        peak = self.folder / "peak"
        peak.unlink(missing_ok=True)
        environ = {**self._environ(), "TERM": "xterm-256color"}
        screen = pexpect.spawn(
            sys.executable,
            [str(SITE / "limited_vc.py"), str(peak), *words],
            env=environ,
            dimensions=(40, 140),
            timeout=_ENDS_S,
        )
        try:
            yield Follower(screen, peak)
        finally:
            screen.close(force=True)

    @contextmanager
    def program(self, kind: str) -> Iterator[Program]:
        """One that uses the API: "asyncio" or "blocking"."""
        peak = self.folder / "peak"
        environ = self._environ()
        command = [sys.executable, "-W", "always", str(SITE / "limited_api.py"), str(peak), kind]
        errors = self.folder / "stderr"
        pipe = subprocess.PIPE
        with (
            errors.open("wb") as stderr,
            subprocess.Popen(
                command,
                env=environ,
                cwd=self.folder,
                stdin=pipe,
                stdout=pipe,
                stderr=stderr,
                text=True,
            ) as process,
        ):
            try:
                yield Program(process, errors, peak)
            finally:
                process.kill()

    def run(self, name: str = "box") -> None:
        """A pod with a container that goes on, by an agent that answers well."""
        self.configure(_ENDS_S)  # a slow host is no hostile guest
        done = self.vc(
            "run", "-d", "--name", name, "--rootfs", str(self.folder / "root"), "--", "sleep"
        )
        self.configure(DEADLINE_S)
        assert done.code == 0, done

    def log(self, name: str = "box") -> Path:
        """The disk with what the pod's container has written."""
        (found,) = (self.folder / "lasting" / name).glob("*.log")
        return found

    def outside(self) -> dict[str, tuple[int, int]]:
        """The files that no command may change: those beside what is the store's."""
        kept = self.folder / "kept"
        return {
            str(path): (path.lstat().st_mtime_ns, path.lstat().st_mode)
            for path in (kept, *sorted(kept.rglob("*")))
        }


@pytest.fixture
def hostile() -> Iterator[HostileHost]:
    """A host of its own; its paths are short, for they are those of sockets."""
    folder = Path(tempfile.mkdtemp(prefix="vc-hostile-", dir="/tmp"))
    image = folder / "cache/guest/0123456789abcdef"
    image.mkdir(parents=True)
    (image / "manifest.json").write_text(
        json.dumps({"id": image.name, "release": "6.1", "inputs": {}})
    )
    (image / "vmlinux").touch()
    (image / "initrd").touch()
    (image.parent / "current").write_text(image.name)
    (folder / "root/etc").mkdir(parents=True)
    (folder / "kept/into").mkdir(parents=True)
    (folder / "kept/.bashrc").write_text("mine")
    agent = Agent(folder / "agent.sock")
    host = HostileHost(folder, agent)
    (folder / "console").write_bytes(b"[    0.0] Linux\n")
    host.configure(DEADLINE_S)
    agent.begin()
    yield host
    agent.end()
    for mounts in (folder / "run/pods").glob("*/*"):  # of pods that the test has let be
        if mounts.is_mount():
            bind_mounts.remove_all(mounts)
    shutil.rmtree(folder)
