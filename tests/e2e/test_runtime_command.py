"""`vc-runtime` with the words of conmon and of containerd's shim, and its stand-in."""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.e2e import engines, other_agent
from tests.e2e.test_oci import MOUNTS

pytestmark = [
    pytest.mark.only("qemu"),
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's bundles are not set up here"),
]
MOST_KIB = 4096
NAMESPACES = ("pid", "network", "ipc", "mount", "cgroup")


@dataclass
class Caller:
    """A caller of the command, which is the parent of the stand-ins, as conmon."""

    host: object
    command: Path
    folder: Path
    stand_in: str = "own"
    made: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __call__(self, *words: object, check: int | None = 0, **more: object) -> engines.Done:
        return engines.run(
            *(self.command, "--root", self.folder / "root"), *words, check=check, **more
        )

    def create(self, bundle: Path, name: str, *more: str) -> subprocess.Popen[bytes]:
        """Creates a container with pipes; they end with the stand-in, which alone has them."""
        words = (self.command, "--root", self.folder / "root", "create", "--bundle", bundle)
        process = subprocess.Popen(
            [*map(str, words), "--pid-file", str(self.folder / name), *more, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.made.append(process)
        assert process.wait(240) == 0, process.stderr.read()
        return process

    def pid(self, name: str) -> int:
        return int((self.folder / name).read_text())

    def state(self, name: str) -> dict[str, object]:
        return json.loads(self("state", name).stdout)

    def ended(self, name: str) -> int:
        """Returns the exit code of a stand-in, of which we are the parent."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid(name), 0)[1])


_EACH_STAND_IN = pytest.mark.parametrize("caller", ["own", "generic"], indirect=True)


@pytest.fixture
def caller(host, tmp_path, request) -> Iterator[Caller]:
    """A caller; of containers whose agent brings a stand-in, or (generic) brings none."""
    import ctypes

    subreaper = 36  # linux/prctl.h, PR_SET_CHILD_SUBREAPER
    assert ctypes.CDLL(None).prctl(subreaper, 1, 0, 0, 0) == 0
    stand_in = getattr(request, "param", "own")
    if stand_in == "own":
        command = engines.wrapper(host)
    else:
        host.configure("use", agent="bare")
        command = engines.wrapper(host, other_agent.installed(tmp_path / "venv"))
    found = Caller(host, command, tmp_path, stand_in)
    yield found
    for record in json.loads(found("list", "--format", "json").stdout):
        found("delete", "--force", record["id"])
    for process in found.made:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        process.stderr.close()
    assert ctypes.CDLL(None).prctl(subreaper, 0, 0, 0, 0) == 0


@pytest.fixture
def bundle(busybox, tmp_path):
    """Writes a bundle around busybox."""

    def write(*args: str, terminal: bool = False, **joined: str) -> Path:
        folder = tmp_path / "bundle"
        folder.mkdir(exist_ok=True)
        document = {
            "ociVersion": "1.3.0",
            "process": {
                "args": list(args),
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
                "terminal": terminal,
            },
            "root": {"path": str(busybox)},
            "mounts": MOUNTS,
            "linux": {
                "namespaces": [
                    {"type": kind, **({"path": joined[kind]} if kind in joined else {})}
                    for kind in NAMESPACES
                ],
                "cgroupsPath": f"/vc-test-{os.getpid()}",
            },
        }
        (folder / "config.json").write_text(json.dumps(document))
        return folder

    return write


@_EACH_STAND_IN
def test_a_container_goes_through_all_states(caller, bundle):
    made = caller.create(bundle("sh", "-c", "cat; echo end >&2; exit 7"), "c")
    assert caller.state("c")["status"] == "created"
    assert caller.state("c")["pid"] == caller.pid("c")
    again = caller("create", "--bundle", bundle("true"), "c", check=1)
    assert b"container with id exists" in again.stderr
    words = Path(f"/proc/{caller.pid('c')}/cmdline").read_bytes()
    assert (b"vc_runtime.generic_stand_in" in words) == (caller.stand_in == "generic")
    usage = Path(f"/proc/{caller.pid('c')}/smaps_rollup").read_text()
    if caller.stand_in == "own":
        assert int(re.search(r"^Pss: +(\d+) kB", usage, re.MULTILINE)[1]) <= MOST_KIB
    caller("start", "c")
    assert b"cannot start" in caller("start", "c", check=1).stderr
    assert b"not stopped" in caller("delete", "c", check=1).stderr
    data = bytes(range(256)) * (16 << 10)
    feeding = threading.Thread(target=lambda: (made.stdin.write(data), made.stdin.close()))
    feeding.start()
    assert made.stdout.read() == data
    assert made.stderr.read() == b"end\n"
    feeding.join()
    assert caller.ended("c") == 7
    assert caller.state("c")["status"] == "stopped"
    assert b"container not running" in caller("kill", "c", "9", check=1).stderr
    caller("kill", "--all", "c", "9")
    caller("delete", "c")
    assert b"does not exist" in caller("state", "c", check=1).stderr
    caller("delete", "--force", "c")
    assert not Path(f"/sys/fs/cgroup/memory/vc-test-{os.getpid()}").exists()


@_EACH_STAND_IN
def test_signals_pauses_and_further_processes(caller, bundle, tmp_path):
    script = "trap 'exit 9' USR1; trap 'echo winch' WINCH; echo up; while true; do sleep 1; done"
    made = caller.create(bundle("sh", "-c", script), "c")
    assert b"not running" in caller("exec", "c", "true", check=1).stderr
    caller("start", "c")
    assert made.stdout.readline() == b"up\n"
    caller("kill", "c", "WINCH")
    assert made.stdout.readline() == b"winch\n"
    caller("pause", "c")
    assert caller.state("c")["status"] == "paused"
    assert b"is paused, not running" in caller("pause", "c", check=1).stderr
    caller("resume", "c")
    process = {"args": ["sh", "-c", "cat; exit 3"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    (tmp_path / "process.json").write_text(json.dumps({**process, "env": ["PATH=/bin"]}))
    words = ("exec", "--process", tmp_path / "process.json")
    assert caller(*words, "c", stdin=b"given", check=3).stdout == b"given"
    caller(*words, "--detach", "--pid-file", tmp_path / "e", "c", stdin=b"more")
    assert caller.ended("e") == 3
    killed = json.dumps({**process, "args": ["sleep", "2000"], "env": ["PATH=/bin"]})
    (tmp_path / "killed.json").write_text(killed)
    words = ("exec", "--process", tmp_path / "killed.json", "--detach")
    command = (caller.command, "--root", caller.folder / "root", *words)
    null = subprocess.DEVNULL  # which it keeps
    subprocess.run((*command, "--pid-file", tmp_path / "k", "c"), stdout=null, check=True)
    assert b"sleep 2000" in caller("ps", "c").stdout
    os.kill(caller.pid("k"), signal.SIGKILL)
    assert caller.ended("k") == -signal.SIGKILL
    engines.wait_until(lambda: b"sleep 2000" not in caller("ps", "c").stdout)
    missing = caller("exec", "c", "missing", check=1)
    assert b"executable file not found in $PATH" in missing.stderr
    limits = json.dumps({"memory": {"limit": 64 << 20}, "pids": {"limit": 44}}).encode()
    caller("update", "--resources=-", "c", stdin=limits)
    assert caller("exec", "c", "cat", "/sys/fs/cgroup/pids.max").stdout == b"44\n"
    assert b"sleep" in caller("ps", "c").stdout
    assert json.loads(caller("ps", "--format", "json", "c").stdout) == [caller.pid("c")]
    told = json.loads(caller("events", "--stats", "c").stdout)
    assert told["data"]["memory"]["usage"]["limit"] == 64 << 20
    caller("kill", "c", "USR1")
    assert caller.ended("c") == 9


@_EACH_STAND_IN
def test_a_killed_stand_in_kills_and_a_dead_machine_is_told(caller, bundle, host):
    made = caller.create(bundle("sleep", "1000"), "c")
    caller("start", "c")
    os.kill(caller.pid("c"), signal.SIGKILL)
    assert caller.ended("c") == -signal.SIGKILL
    assert made.stdout.read() == b""  # nobody else has the pipe
    engines.wait_until(lambda: host.machines() == [], "the end of the machine")
    caller("delete", "c")
    assert list(Path("/sys/fs/cgroup").glob(f"*/vc-test-{os.getpid()}")) == []
    made = caller.create(bundle("sleep", "1000"), "c")
    caller("start", "c")
    os.kill(*host.machines(), signal.SIGKILL)
    assert caller.ended("c") == 137
    assert b"the machine has ended" in made.stderr.read()
    caller("delete", "c")


@pytest.mark.parametrize("caller", ["generic"], indirect=True)
def test_a_stand_in_whose_guard_was_killed_ends_the_machine(caller, bundle, host):
    made = caller.create(bundle("sh", "-c", "read line; exit 7"), "c")
    caller("start", "c")
    pid = caller.pid("c")
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()  # the machine, too
    program = Path(f"/proc/{pid}/cmdline").read_bytes()
    (guard,) = [one for one in children if Path(f"/proc/{one}/cmdline").read_bytes() == program]
    os.kill(int(guard), signal.SIGKILL)
    made.stdin.close()
    assert caller.ended("c") == 7
    assert made.stderr.read() == b""
    assert host.machines() == []
    caller("delete", "c")


@_EACH_STAND_IN
def test_a_terminal_is_handed_over(caller, bundle, tmp_path):
    # Input and size come by different ways, in any order.
    script = (
        'stty size; read line; echo got $line; until [ "$(stty size)" = "20 50" ]; do :; done;'
        "stty size; exit 4"
    )
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "console"))
        listening.listen()
        caller.create(
            bundle("busybox", "sh", "-c", script, terminal=True),
            *("c", "--console-socket", str(tmp_path / "console")),
        )
        connection, _ = listening.accept()
        with connection:
            _, rights, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    (master,) = array.array("i", rights[0][2])
    _resize(master, 30, 100)
    caller("start", "c")
    told = b""
    while b"\n" not in told:
        told += os.read(master, 4096)
    assert told == b"30 100\r\n"
    _resize(master, 20, 50)
    os.write(master, b"word\n")
    while b"20 50" not in told:
        told += os.read(master, 4096)
    assert b"got word" in told
    assert caller.ended("c") == 4
    os.close(master)


def _resize(terminal: int, rows: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@_EACH_STAND_IN
def test_a_damaged_record_is_deleted_with_its_machine(caller, bundle, host):
    caller.create(bundle("sleep", "1000"), "c")
    (caller.folder / "root/c/container.json").write_text("{")
    groups = list(Path("/sys/fs/cgroup").glob(f"*/vc-test-{os.getpid()}"))
    assert groups != []
    assert b"is damaged" in caller("delete", "--force", "c").stderr
    assert [group for group in groups if group.exists()] == []
    assert caller.ended("c") == 137
    assert host.machines() == []
    assert caller("list", "--quiet").stdout == b""


@_EACH_STAND_IN
def test_a_create_that_fails_leaves_nothing(caller, bundle, host):
    words = ("create", "--bundle", bundle("missing"), "c")
    assert b"executable file not found in $PATH" in caller(*words, check=1).stderr
    config = bundle("true") / "config.json"
    document = json.loads(config.read_text())
    document["linux"]["namespaces"].append({"type": "user"})
    config.write_text(json.dumps(document))
    assert b"the namespace 'user' is not supported" in caller(*words, check=1).stderr
    assert host.machines() == []
    assert caller("list", "--quiet").stdout == b""


def test_a_create_that_is_killed_leaves_nothing(caller, bundle, host):
    words = (caller.command, "--root", caller.folder / "root", "create")
    file = caller.folder / "root/c/container.json"
    with subprocess.Popen(
        [*map(str, words), "--bundle", bundle("sleep", "1000"), "c"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        engines.wait_until(lambda: file.exists() and json.loads(file.read_text())["pod"])
        record = json.loads(file.read_text())
        groups = engines.groups(file.parent)
        os.kill(record["pid"], signal.SIGKILL)
        assert process.wait(240) == 1
        assert b"has ended with -9" in process.stderr.read()
    assert host.machines() == []
    assert groups != []
    assert [group for group in groups if group.exists()] == []
    caller.create(bundle("sleep", "1000"), "c")


@_EACH_STAND_IN
def test_a_pid_namespace_is_shared_and_all_processes_are_signalled(caller, bundle, tmp_path):
    caller.create(bundle("sleep", "1000"), "first")
    caller("start", "first")
    namespaces = f"/proc/{caller.pid('first')}/ns"
    script = (
        "setsid sleep 2000 & trap 'echo usr; exit 3' USR1; echo up; while true; do sleep 1; done"
    )
    joining = bundle(*("sh", "-c", script), pid=f"{namespaces}/pid", network=f"{namespaces}/net")
    made = caller.create(joining, "second")
    caller("start", "second")
    assert made.stdout.readline() == b"up\n"
    assert caller("exec", "second", "cat", "/proc/1/cmdline").stdout == b"sleep\x001000\x00"
    caller("kill", "--all", "second", "USR1")  # the shell handles it, its children end
    assert made.stdout.readline() == b"usr\n"
    assert caller.ended("second") == 3
    assert b"sleep 1000" in caller("exec", "first", "ps").stdout
    orphan = caller.create(
        bundle(
            "sh", "-c", "setsid sleep 2000 &", pid=f"{namespaces}/pid", network=f"{namespaces}/net"
        ),
        "third",
    )
    caller("start", "third")
    assert caller.ended("third") == 0
    orphan.stdout.close()
    assert b"sleep 2000" in caller("exec", "first", "ps").stdout
    assert b"container not running" in caller("kill", "--all", "third", "USR1", check=1).stderr
    caller("kill", "--all", "third", "9")
    assert b"sleep 2000" not in caller("exec", "first", "ps").stdout
    caller("delete", "third")
    # A pid namespace ends with its first process.
    last = caller.create(
        bundle("sleep", "1000", pid=f"{namespaces}/pid", network=f"{namespaces}/net"), "last"
    )
    caller("start", "last")
    caller("kill", "first", "9")
    assert caller.ended("last") == 137
    assert last.stdout.read() == b""


def test_settings_of_a_network_are_the_machines_and_wrong_namespaces_are_refused(caller, bundle):
    folder = bundle("cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start")
    document = json.loads((folder / "config.json").read_text())
    document["linux"]["sysctl"] = {"net.ipv4.ip_unprivileged_port_start": "42"}
    (folder / "config.json").write_text(json.dumps(document))
    made = caller.create(folder, "c")
    caller("start", "c")
    assert made.stdout.read() == b"42\n"
    assert caller.ended("c") == 0
    document["linux"]["namespaces"].append({"type": "uts", "path": "/proc/self/ns/ipc"})
    (folder / "config.json").write_text(json.dumps(document))
    refused = caller("create", "--bundle", folder, "d", check=1)
    assert b"/proc/self/ns/ipc is no uts namespace" in refused.stderr
