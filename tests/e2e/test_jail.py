"""Somebody has broken into QEMU: what they try there fails, in the jail that pods get."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.conftest import Host
from tests.e2e.intruder import Intruder, Killed, named

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="intruder.py knows x86-64 only"),
]

_HERE, _RDWR, _CREAT = -100, os.O_RDWR, os.O_CREAT
_NEWUSER, _NEWNS = 0x10000000, 0x00020000
_SHARED_RW = (1 | 2, 1)  # PROT_READ | PROT_WRITE, MAP_SHARED
_BLOCK_DEVICE = 0o060600


@dataclass(frozen=True)
class Scene:
    """What somebody would go for.

    Attributes:
        pid: of the machine that was broken into.
        bystander: a process of the host.
        port: on which the host listens, on 127.0.0.1.
        own: run folder of the pod.
        other: run folder of another pod.
        other_disk: where another pod's container writes.
        memory: that all clones of the template have in common.
        record: of this pod, which the host believes.
        shared: a folder of the pod that is mounted writable, as the machine's process sees it.
    """

    pid: int
    bystander: int
    port: int
    own: Path
    other: Path
    other_disk: Path
    memory: Path
    record: Path
    shared: str


Attempt = Callable[[Intruder, Scene], int]


def opened(path: Callable[[Scene], object], flags: int = os.O_RDONLY) -> Attempt:
    """Opens a file by openat2, which no filter can look into."""

    def attempt(intruder: Intruder, scene: Scene) -> int:
        how = struct.pack("QQQ", flags, 0o600 if flags & _CREAT else 0, 0)
        return intruder.call(437, _HERE, str(path(scene)).encode(), how, len(how))

    return attempt


def called(number: int, *arguments: int | bytes) -> Attempt:
    """Makes one call."""
    return lambda intruder, _: intruder.call(number, *arguments)


def connected(intruder: Intruder, scene: Scene) -> int:
    """To a port of the host."""
    handle = intruder.call(41, socket.AF_INET, socket.SOCK_STREAM, 0)
    if handle < 0:
        return handle
    address = struct.pack("=H", socket.AF_INET) + struct.pack(">H", scene.port)
    return intruder.call(42, handle, address + bytes([127, 0, 0, 1]) + bytes(8), 16)


def reconnected(intruder: Intruder, scene: Scene) -> int:
    """With a socket that is there: QEMU's monitor."""
    return intruder.call(42, 3, struct.pack("=H", socket.AF_UNIX) + b"/run/docker.sock\0", 20)


def up_from_share(intruder: Intruder, scene: Scene) -> int:
    """From a folder of the pod upwards, to a file of the host beside it."""
    folder = intruder.call(257, _HERE, scene.shared.encode(), os.O_PATH, 0)
    return intruder.call(257, folder, b"../../../../../../../etc/shadow", os.O_RDONLY, 0)


def listed(intruder: Intruder, scene: Scene) -> int:
    """A file of another pod by the descriptor table of this process: /proc/self/fd/../root."""
    return intruder.call(257, _HERE, b"/proc/self/fd/../root/etc/shadow", os.O_RDONLY, 0)


# Each of them is made in the jail and without it. "free" tells what is expected without: the host
# lets it happen, or QEMU's own sandbox kills the machine, or refuses.
ATTEMPTS: dict[str, tuple[Attempt, str]] = {
    "read /etc/shadow": (opened(lambda _: "/etc/shadow"), "done"),
    "read the console of another pod": (opened(lambda scene: scene.other / "console"), "done"),
    "read what another pod's container writes": (opened(lambda scene: scene.other_disk), "done"),
    "change this pod's record on the host": (opened(lambda scene: scene.record, _RDWR), "done"),
    "make a file in the pod's run folder": (
        opened(lambda scene: scene.own / "planted", _RDWR | _CREAT),
        "done",
    ),
    "make a file in /": (opened(lambda _: "/planted-by-a-test", _RDWR | _CREAT), "done"),
    "change QEMU's firmware": (
        opened(lambda _: "/usr/share/seabios/bios-256k.bin", _RDWR),
        "done",
    ),
    "change the memory of all clones": (opened(lambda scene: scene.memory, _RDWR), "done"),
    "leave a shared folder by ..": (up_from_share, "done"),
    "find the host's root in /proc": (listed, "done"),
    "connect to a port of the host": (connected, "done"),
    "connect a socket that is open": (reconnected, "ENOENT"),
    "make a socket": (called(41, socket.AF_UNIX, socket.SOCK_STREAM, 0), "done"),
    "signal a process of the host": (lambda i, scene: i.call(62, scene.bystander, 0), "done"),
    "signal every process": (called(62, -1, 0), "done"),
    "signal a thread of the host": (
        lambda i, scene: i.call(234, scene.bystander, scene.bystander, 0),
        "done",
    ),
    "open a process of the host": (lambda i, scene: i.call(434, scene.bystander, 0), "done"),
    "trace a process of the host": (lambda i, s: i.call(101, 16, s.bystander, 0, 0), "done"),
    "mount": (called(165, b"none", b"/mnt", b"tmpfs", 0, 0), "killed"),
    "mount by descriptor": (called(430, b"tmpfs", 0), "done"),
    "change the root": (called(161, b"/"), "done"),
    "a user namespace": (called(272, _NEWUSER), "killed"),
    "a mount namespace": (called(272, _NEWNS), "killed"),
    "enter a namespace": (called(308, 0, _NEWNS), "killed"),
    "start a program": (called(59, b"/usr/bin/qemu-system-x86_64", 0, 0), "killed"),
    "start a process": (called(57), "killed"),
    "become another user": (called(105, 12345), "killed"),
    "make a block device of the host": (
        lambda i, scene: i.call(133, f"{scene.shared}/disk".encode(), _BLOCK_DEVICE, 0xFE00),
        "done",
    ),
    "open a file by its handle": (called(304, _HERE, bytes(16), 0), "EINVAL"),
    "load a program into the kernel": (called(321, 0, bytes(64), 64), "EINVAL"),
    "io_uring": (called(425, 8, bytes(120)), "done"),
    "userfaultfd": (called(323, 0), "done"),
    "perf_event_open": (called(298, bytes(128), 0, -1, -1, 0), "ENOENT"),
    "a key ring of the host": (called(250, 0, -4, 1), "done"),
    "raise a limit": (called(302, 0, 4, struct.pack("QQ", 1 << 30, 1 << 30), 0), "done"),
    "16 GiB of memory": (called(9, 0, 16 << 30, 3, 0x4022, -1, 0), "done"),
}


@pytest.fixture
def scene(host, tmp_path) -> Iterator[Callable[[str], Scene]]:
    """Makes the scene in a mode of the jail, anew when its machine has ended."""
    bystander = subprocess.Popen(["sleep", "1000"])
    listener = socket.create_server(("127.0.0.1", 0))
    folders = {name: tmp_path / name for name in ("mine", "theirs")}
    for folder in folders.values():
        folder.mkdir()
    (folders["theirs"] / "file").write_text("secret")
    pods: list[str] = []

    def make(mode: str) -> Scene:
        host.configure("hypervisor", jail=mode)
        number = len(pods)
        for name, folder in folders.items():
            pod = f"{name}{number}"
            if name == "theirs" and number:
                continue
            options = ("-d", "--start", "template", "--name", pod, "-v", f"{folder}:/m")
            host.vc("run", *options, "--", "sleep", "1000")
            pods.append(pod)
        mine = next(pod for pod in reversed(pods) if pod.startswith("mine"))
        machine = status(host, mine)
        words = Path(f"/proc/{machine['pid']}/cmdline").read_text()
        (memory,) = (part for part in words.split(",") if part.startswith("mem-path="))
        run = host.folder / "run/pods"
        pid = int(str(machine["pid"]))
        shared = _shared_by(pid) or folders["mine"]
        return Scene(
            pid,
            bystander.pid,
            listener.getsockname()[1],
            run / mine,
            run / "theirs0",
            folders["theirs"] / "file",
            Path(memory.removeprefix("mem-path=")),
            next((host.folder / "config/pods" / mine).glob("*.json")),
            str(shared),
        )

    yield make
    for pod in pods:
        host.vc("pod", "delete", "--force", pod)
    bystander.kill()
    bystander.wait()
    listener.close()


def _shared_by(pid: int) -> Path | None:
    """The writable folder of the pod, as the process in the jail sees it; None without a jail."""
    inside = Path(f"/proc/{pid}/root/shares/1")
    if not inside.exists():
        return None
    for entry in inside.iterdir():  # root binds it into the share
        return Path("/shares/1") / entry.name
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()  # a user plugs a share for it
    return next(Path(line.split()[4]) for line in lines if line.split()[3].endswith("/mine"))


def status(host: Host, pod: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(host.vc("inspect", pod).stdout)[0]
    return found


def results(make: Callable[[str], Scene], mode: str) -> dict[str, str]:
    """Of all attempts; each that the kernel kills the machine for gets a machine of its own."""
    found: dict[str, str] = {}
    while len(found) < len(ATTEMPTS):
        scene = make(mode)
        try:
            with broken_into(scene) as intruder:
                for name, (attempt, _) in ATTEMPTS.items():
                    if name not in found:
                        found[name] = "killed"  # unless there is an answer
                        found[name] = named(attempt(intruder, scene))
        except Killed:
            pass
        clean(scene)
    return found


@contextmanager
def broken_into(scene: Scene) -> Iterator[Intruder]:
    with Intruder(scene.pid) as intruder:
        assert intruder.call(39) in (1, scene.pid), "getpid: its calls are made"
        null = opened(lambda _: "/dev/null")(intruder, scene)
        assert null >= 0, "it opens what it may"
        yield intruder


def clean(scene: Scene) -> None:
    os.kill(scene.bystander, 0)
    Path("/planted-by-a-test").unlink(missing_ok=True)
    (scene.own / "planted").unlink(missing_ok=True)
    Path(scene.shared, "disk").unlink(missing_ok=True)


def test_in_the_jail_all_that_somebody_tries_fails(scene):
    found = results(scene, "strict")
    assert {name: answer for name, answer in found.items() if answer == "done"} == {}


def test_without_the_jail_the_same_attempts_succeed(scene):
    """What the test before proves nothing without: the attempts are real ones."""
    found = results(scene, "off")
    assert found == {name: expected for name, (_, expected) in ATTEMPTS.items()}


def test_a_machine_that_was_looked_into_goes_on(host, scene):
    made = scene("auto")
    with broken_into(made):
        pass
    assert host.vc("exec", made.own.name, "--", "echo", "well").stdout == b"well\n"
    os.kill(made.pid, signal.SIGTERM)
