"""The parts of the jail: what it lets in, what it lets a process do. Real processes, no machine."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from vc_qemu.command_line import Machine
from vc_qemu.errors import QemuError
from vc_qemu.jail import files, launch, limits, plan, probe, seccomp, spawn
from vc_qemu.jail.enter import Failure, Plan
from vc_qemu.jail.layers import ABOUT, REMEDIES, JailMode, Layer

from vc_core.spec import Verdict

BINARY = "/usr/bin/qemu-system-x86_64"
AUDIT_ARCH = b"\x3e\x00\x00\xc0"


@pytest.fixture
def known(tmp_path) -> Path:
    return tmp_path / "known"


def run(wanted: Plan, log: Path) -> tuple[int, str]:
    """Exit code and messages of a process in a jail."""
    process = spawn.start(wanted, log, {}, lambda: None)
    handle = os.pidfd_open(process.pid)
    try:
        status = os.waitid(os.P_PIDFD, handle, os.WEXITED)
    finally:
        os.close(handle)
    assert status is not None
    return status.si_status, log.read_text()


def shell(known: Path, place: Path, script: str, **changes: object) -> Plan:
    """A jail in which busybox is what QEMU is in others."""
    busybox = "/bin/busybox"
    program = files.Program((busybox,), (7, 2))
    whole = f"PATH=/bin; while [ ! -e {plan.OPEN_FILES}/1 ]; do :; done; {script}"
    made = plan.of_words((busybox, "sh", "-c", whole), program, place, {Layer.SECCOMP})
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("user", [(), (os.geteuid(), os.getegid())], ids=["root", "user"])
def test_huge_pages_are_as_the_plan_says(known, tmp_path, allowed, user):
    def of(pid: int) -> str:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(line.split()[1] for line in lines if line.startswith("THP_enabled"))

    ours = of(os.getpid())
    endless = shell(known, tmp_path, "while :; do :; done", huge_pages=allowed, user=user)
    process = spawn.start(endless, tmp_path / "log", {}, lambda: None)
    try:
        assert of(process.pid) == (ours if allowed else "0")
    finally:
        process.send(signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # another process has started it
            os.waitpid(process.pid, 0)
    assert of(os.getpid()) == ours


@pytest.mark.parametrize(
    ("accelerator", "is_clone", "expected"),
    [("tcg", True, False), ("tcg", False, True), ("kvm", True, True)],
)
def test_only_an_emulated_clone_has_no_huge_pages(known, tmp_path, accelerator, is_clone, expected):
    machine = Machine(
        binary=BINARY,
        name="m",
        uuid="u",
        accelerator=accelerator,
        machine="q35",
        cpu="max",
        vcpus=1,
        max_vcpus=1,
        memory_mib=64,
        max_memory_mib=64,
        memory_slots=0,
        shared_memory=False,
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
        parameters=(),
        run_dir=tmp_path,
        memory_file=tmp_path / "memory",
        is_clone=is_clone,
    )
    program = files.Program((BINARY,), (7, 2))
    assert plan.of_machine(machine, program, [], [Layer.SECCOMP]).huge_pages is expected


def test_what_qemu_needs_is_found_out_once(known, monkeypatch):
    first = files.of_program(BINARY, known)
    assert first.files[0] == BINARY
    assert any("libc.so" in path for path in first.files)
    assert any("accel-tcg" in path for path in first.files)
    assert "/usr/share/seabios" in first.files
    assert first.version >= (7, 2)
    files._of_program.cache_clear()
    monkeypatch.setattr(files, "_look", lambda _: pytest.fail("it was remembered"))
    assert files.of_program(BINARY, known) == first


def test_what_was_remembered_is_not_believed_when_a_file_is_gone(known):
    found = files.of_program(BINARY, known)
    (record,) = known.glob("files-*.json")
    record.write_text(record.read_text().replace("libc.so", "libc-of-before.so"))
    files._of_program.cache_clear()
    assert files.of_program(BINARY, known) == found


def test_the_filter_is_for_this_architecture_and_differs_by_what_is_asked():
    programs = {
        seccomp.compiled(first, stdin) for first in (True, False) for stdin in (True, False)
    }
    assert len(programs) == 4
    assert all(len(program) % 8 == 0 for program in programs)
    if os.uname().machine == "x86_64":
        assert all(AUDIT_ARCH in program for program in programs)


@pytest.mark.skipif(os.geteuid() != 0, reason="the process of another user is no child of ours")
class TestInside:
    """Of a small program in the jail."""

    def test_there_are_its_files_and_no_others(self, known, tmp_path):
        script = "cd / && busybox find . -path ./proc/self/fd/\\* -prune -o -print"
        code, words = run(shell(known, tmp_path, script), tmp_path / "log")
        assert code == 0
        assert set(words.split()) == {
            *(".", "./bin", "./bin/busybox", "./dev", "./dev/null", "./proc", "./proc/self"),
            "./proc/self/fd",
        }

    def test_it_cannot_write_and_is_alone(self, known, tmp_path):
        script = "(echo x > /x); echo $$; umask; busybox env; busybox cat /proc/self/fd/../status"
        _, words = run(shell(known, tmp_path, script), tmp_path / "log")
        assert "can't create /x: Read-only file system" in words
        assert words.splitlines()[1:3] == ["1", "0077"], "the first process of its namespace"
        assert "can't open '/proc/self/fd/../status': No such file" in words
        assert "HOME" not in words

    def test_descriptors_of_our_caller_are_closed(self, known, tmp_path):
        leaked = os.open("/etc/passwd", os.O_RDONLY)
        os.set_inheritable(leaked, True)
        high = os.dup2(leaked, 77)
        try:
            _, words = run(shell(known, tmp_path, "busybox ls /proc/self/fd"), tmp_path / "log")
            assert "77" not in words.split()
        finally:
            os.close(leaked)
            os.close(high)

    def test_a_share_shows_mounts_below_but_nothing_of_the_kernel(self, known, tmp_path):
        wanted = shell(
            known, tmp_path, "busybox ls /host/proc /host/sys; echo; busybox ls /host/usr"
        )
        wanted.shares = (("/", "/host", True),)
        _, words = run(wanted, tmp_path / "log")
        assert words.startswith("/host/proc:\n\n/host/sys:\n\n"), words
        assert words.split("\n\n")[-1].strip()

    def test_a_share_is_read_only_where_it_shall_be(self, known, tmp_path):
        folders = [tmp_path / name for name in ("read", "written")]
        for folder in folders:
            folder.mkdir()
        wanted = shell(known, tmp_path, "busybox touch /s/0/x; busybox touch /s/1/x; echo $?")
        wanted.shares = tuple((str(one), f"/s/{n}", n == 0) for n, one in enumerate(folders))
        _, words = run(wanted, tmp_path / "log")
        assert "/s/0/x: Read-only file system" in words
        assert words.endswith("0\n")
        assert [path.parent.name for path in tmp_path.glob("*/x")] == ["written"]

    def test_a_folder_comes_and_goes_while_it_runs(self, known, tmp_path):
        shown = tmp_path / "shown"
        shown.mkdir()
        (shown / "here").touch()
        turns, log = tmp_path / "turns", tmp_path / "log"
        os.mkfifo(turns)
        os.mkfifo(log)
        turn = os.open(turns, os.O_RDWR)
        look = "read turn; busybox ls /late; "
        wanted = shell(known, tmp_path, f"{look}{look}echo end", stdin=str(turns))
        wanted.folders += ("/late",)
        with os.fdopen(os.open(log, os.O_RDONLY | os.O_NONBLOCK)) as words:
            process = spawn.start(wanted, log, {}, lambda: None)
            os.set_blocking(words.fileno(), True)
            try:
                spawn.mount(process, False, str(shown), "/late", True, False)
                os.write(turn, b"\n")
                assert words.readline() == "here\n"
                spawn.unmount(process, False, "/late")
                spawn.unmount(process, False, "/late")  # nothing there is no error
                os.write(turn, b"\n")
                assert words.readline() == "end\n"
            finally:
                os.close(turn)  # it reads the end, if it still waits
                _, status = os.waitpid(process.pid, 0)
        assert status == 0

    def test_nothing_of_it_is_left_on_the_host(self, known, tmp_path):
        before = Path("/proc/self/mountinfo").read_text()
        run(shell(known, tmp_path, "true"), tmp_path / "log")
        assert Path("/proc/self/mountinfo").read_text() == before
        status = Path("/proc/self/status").read_text()
        assert "NoNewPrivs:\t0" in status
        assert "Seccomp:\t0" in status, "only the thread was confined"

    def test_a_control_group_bounds_it_and_is_removed(self, known, tmp_path):
        if reason := limits.is_writable():
            pytest.skip(reason)
        process = spawn.start(
            shell(known, tmp_path, "busybox sleep 1000"), tmp_path / "log", {}, lambda: None
        )
        group = "of-a-test"
        limits.join_group(process, group, limits.Limits(64, 7))
        lines = Path(f"/proc/{process.pid}/cgroup").read_text()
        assert f"/virtcontainers/{group}" in lines
        limits.leave_groups()
        assert Path(f"/proc/{process.pid}/cgroup").read_text() == lines, "it is in use"
        os.kill(process.pid, 9)
        os.waitpid(process.pid, 0)
        limits.leave_groups()
        assert not list(Path("/sys/fs/cgroup").glob(f"*/virtcontainers/{group}"))


def refusing(layer: Layer) -> Callable[[frozenset[Layer]], Plan]:
    """A host whose kernel refuses a layer."""

    def wanted(absent: frozenset[Layer]) -> Plan:
        if layer not in absent:
            raise Failure(layer.value, "a step of it", 1)
        return plan.of_words(("/bin/true",), files.Program((), (7, 2)), Path("/"), list(Layer))

    return wanted


@pytest.mark.parametrize("layer", [Layer.NAMESPACES, Layer.ROOT, Layer.SECCOMP])
def test_strict_starts_nothing_without_a_layer_and_names_the_remedy(layer, tmp_path):
    with pytest.raises(QemuError) as caught:
        launch.start(JailMode.STRICT, refusing(layer), tmp_path / "log", {}, lambda: None)
    assert f"{layer.value}: a step of it: Operation not permitted" in str(caught.value)
    assert REMEDIES[layer] in str(caught.value)


@pytest.mark.parametrize("layer", [Layer.NAMESPACES, Layer.ROOT, Layer.SECCOMP])
def test_auto_starts_without_it_and_says_so(layer, tmp_path):
    started = launch.start(JailMode.AUTO, refusing(layer), tmp_path / "log", {}, lambda: None)
    os.waitpid(started.process.pid, 0)
    assert layer in {lack.layer for lack in started.missing}
    assert layer not in started.layers


def test_a_user_without_user_namespaces_is_told_what_is_missing(tmp_path):
    """In a user namespace that allows no further ones, as an administrator can set it."""
    script = tmp_path / "probe.py"
    script.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from vc_qemu.jail import probe\n"
        "from vc_qemu.jail.layers import JailMode\n"
        "for one in probe.findings(JailMode.AUTO, sys.argv[1], Path(sys.argv[2])):\n"
        "    print(one.verdict.value, one.subject, one.detail, sep='|')\n"
    )
    limit = 'echo 0 > /proc/sys/user/max_user_namespaces && exec "$@"'
    unshare = ("unshare", "--user", "--map-user=12345", "--map-group=12345", "--keep-caps")
    python = (sys.executable, str(script), BINARY, str(tmp_path / "known"))
    command = [*unshare, "sh", "-c", limit, "sh", *python]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = {row.split("|")[1]: row for row in done.stdout.splitlines()}
    assert "jail: namespaces" in rows, (done.stdout, done.stderr)
    assert "a user namespace" in rows["jail: namespaces"]
    assert not rows["jail: namespaces"].startswith(Verdict.GOOD.value)
    assert rows["jail: seccomp"].startswith(Verdict.GOOD.value)


def test_the_doctor_names_every_layer_and_a_jail_that_is_off(known):
    rows = probe.findings(JailMode.AUTO, BINARY, known)
    assert [row.subject for row in rows] == [f"jail: {layer.value}" for layer in Layer]
    (off,) = probe.findings(JailMode.OFF, BINARY, known)
    assert off.verdict is Verdict.WARNING
    assert set(ABOUT) == set(REMEDIES) == set(Layer)
