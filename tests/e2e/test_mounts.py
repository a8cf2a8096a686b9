"""Mounts: of the host's folders and files, of the guest's own, and of memory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import HYPERVISORS
from vc_core import ContainerSpec, Mount, ProcessSpec, Rootfs
from vc_core.driver_kit import mountinfo

pytestmark = pytest.mark.only("qemu")

PATH = ("PATH=/bin",)


@pytest.fixture
def nested(tmp_path) -> Iterator[Path]:
    """A folder with another file system mounted below it."""
    folder = tmp_path / "outer"
    (folder / "inner").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "inner"], check=True)
    (folder / "inner/deep").write_text("deep")
    yield folder
    subprocess.run(["umount", folder / "inner"], check=True)


def test_odd_names_come_through_and_read_only_is_kept(host, busybox, tmp_path):
    folder = tmp_path / "with space and ünï ☃ \\ tab\t"
    folder.mkdir()
    (folder / "näme").write_text("hello")
    words = [
        "-v",
        f"{folder}:/a b:ro",
        "-v",
        f"{folder / 'näme'}:/single:ro",
        "-v",
        f"{folder}:/open",
    ]
    script = "cat '/a b/näme' /single; touch '/a b/x'; echo no > /single; touch /open/made"
    done = host.vc("run", "--rootfs", str(busybox), *words, "--", "sh", "-c", script)
    assert done.stdout == b"hellohello"
    assert done.stderr.count(b"Read-only file system") == 2
    assert sorted(path.name for path in folder.iterdir()) == ["made", "näme"]


def test_one_file_may_be_read_only_here_and_writable_there(host, busybox, tmp_path):
    (tmp_path / "it").write_text("one\n")
    words = ["-v", f"{tmp_path}/it:/open", "-v", f"{tmp_path}/it:/closed:ro"]
    script = "cat /open /closed; echo two >> /open; echo no >> /closed; cat /closed"
    done = host.vc("run", "--rootfs", str(busybox), *words, "--", "sh", "-c", script)
    assert done.stdout == b"one\none\none\ntwo\n"
    assert done.stderr.count(b"Read-only file system") == 1


def test_names_of_what_is_bound_cannot_be_guessed(host, busybox, tmp_path):
    (tmp_path / "data").mkdir()
    host.vc(
        "run",
        "-d",
        "--name",
        "p",
        "--rootfs",
        str(busybox),
        "-v",
        f"{tmp_path}/data:/data",
        "--",
        "sleep",
        "99",
    )
    (bound,) = (host.folder / "run/pods/p/files").iterdir()
    assert len(bound.name) == 16
    assert int(bound.name, 16) >= 0
    assert (host.folder / "run/pods/p").stat().st_mode & 0o77 == 0
    host.vc("pod", "delete", "p")


@pytest.mark.only(*HYPERVISORS)
def test_thirty_folders_need_no_thirty_devices(host, busybox, tmp_path):
    words = []
    for number in range(30):
        (tmp_path / f"d{number}").mkdir()
        (tmp_path / f"d{number}/it").write_text(f"{number} ")
        words += ["-v", f"{tmp_path}/d{number}:/m{number}"]
    told = host.vc(
        "run", "--rootfs", str(busybox), *words, "--", "sh", "-c", "cat /m?/it /m??/it"
    ).stdout
    assert sorted(map(int, told.split())) == list(range(30))


async def test_what_is_mounted_below_comes_along_where_asked(host, busybox, nested):
    async with host.runtime() as runtime, runtime.pod("p") as pod:
        mounts = [
            Mount(source=nested, destination="/all"),
            Mount(source=nested, destination="/top", recursive=False),
            Mount(source=nested, destination="/ro", read_only=True),
        ]
        script = "ls /all/inner /top/inner /ro/inner; touch /all/inner/w; touch /ro/inner/no"
        result = await pod.run("sh", "-c", script, rootfs=busybox, mounts=mounts)
        assert result.stdout.decode() == "/all/inner:\ndeep\n\n/ro/inner:\ndeep\n\n/top/inner:\n"
        assert b"/ro/inner/no: Read-only file system" in result.stderr
        assert (nested / "inner/w").exists()
        assert (nested / "inner/deep").read_text() == "deep", (
            "unmounting the copies leaves the original"
        )


def test_memory_has_the_size_that_was_asked_for(host, busybox):
    words = ["--tmpfs", "/scratch:2m", "--shm-size", "3m"]
    script = "df -k /scratch /dev/shm | tail -n 2; dd if=/dev/zero of=/scratch/x bs=1M count=4"
    done = host.vc("run", "--rootfs", str(busybox), *words, "--", "sh", "-c", script, check=None)
    sizes = [int(line.split()[1]) for line in done.stdout.decode().splitlines()]
    assert sizes == [2048, 3072]
    assert b"No space left" in done.stderr


def test_the_kernels_folders_are_the_guests_and_said_so(host, busybox):
    words = ["-v", "/dev:/dev", "-v", "/sys:/sys:ro"]
    done = host.vc(
        "run",
        "--rootfs",
        str(busybox),
        *words,
        "--",
        "sh",
        "-c",
        "ls /dev; cat /sys/module/9p/initstate",
    )
    assert b"hvc0" in done.stdout or b"ttyS0" in done.stdout
    assert b"live" in done.stdout, "the host has no module 9p loaded in its own kernel"
    assert b"warning: the container gets the guest's /dev" in done.stderr
    assert b"warning: the container gets the guest's own /sys" in done.stderr


def test_a_file_may_stand_under_dev(host, busybox, tmp_path):
    (tmp_path / "log").touch()
    words = ["-v", f"{tmp_path}/log:/dev/termination-log"]
    host.vc(
        "run", "--rootfs", str(busybox), *words, "--", "sh", "-c", "echo why > /dev/termination-log"
    )
    assert (tmp_path / "log").read_text() == "why\n"


@pytest.mark.parametrize(
    ("mount", "told"),
    [
        ("/proc/sys:/elsewhere", "made by this host's kernel and cannot be shown at /elsewhere"),
        ("/dev:/elsewhere", "/dev can only be mounted on /dev"),
        ("/dev/null:/null", "is a device; pass it as one"),
        ("/no/such:/x", "does not exist on this host"),
        ("/etc:relative", "must be an absolute path in the container"),
        ("/etc:/a/../b", "must be an absolute path in the container"),
        ("/etc:/", "would hide the root file system"),
    ],
)
def test_what_cannot_be_mounted_is_refused_by_name(host, busybox, mount, told):
    assert (
        told
        in host.vc(
            "run", "--rootfs", str(busybox), "-v", mount, "--", "true", check=125
        ).stderr.decode()
    )


async def test_one_containers_failure_leaves_its_siblings_mounts(host, busybox, tmp_path):
    for name in ("shared", "own"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here").touch()
    shared = Mount(source=tmp_path / "shared", destination="/shared")

    def spec(name: str, *args: str, mounts: tuple[Mount, ...] = (shared,)) -> ContainerSpec:
        return ContainerSpec(
            id=name,
            rootfs=Rootfs(path=busybox),
            process=ProcessSpec(args=args, env=PATH),
            mounts=mounts,
        )

    async with host.runtime() as runtime, runtime.pod("p") as pod:
        good = await pod.create_container(spec("good", "sleep", "99"))
        await good.start()
        before = mountinfo.below(host.folder / "run")
        for broken in (
            spec("bad", "/missing"),
            spec(
                "bad",
                "true",
                mounts=(shared, Mount(source=tmp_path / "own", destination="/bin/sh/x")),
            ),
        ):
            with pytest.raises(Exception, match=r"missing|Not a directory|not a directory"):
                await (await pod.create_container(broken)).start()
        assert mountinfo.below(host.folder / "run") == before
        listed = await good.exec(ProcessSpec(args=("ls", "/shared", "/bin/sh"), env=PATH))
        assert b"here" in (await listed.communicate()).stdout
        assert [one.id for one in (await pod.status()).containers] == ["good"]


def test_an_ordinary_user_is_told_what_needs_root():
    code = (
        "import os, sys; os.setuid(65534); from pathlib import Path; "
        "from vc_core.engine.resources import mount_rules;"
        "from vc_core.spec import Mount;"
        "mount_rules.checked(Mount(source=Path(sys.argv[1]), destination='/x'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "/etc/passwd"], capture_output=True, text=True, check=False
    )
    assert (
        "only root can mount the single file /etc/passwd; mount its directory /etc instead"
        in done.stderr
    )
    assert subprocess.run([sys.executable, "-c", code, "/etc"], check=False).returncode == 0


def test_targets_that_a_read_only_root_lacks_are_made_and_inner_mounts_are_seen(
    host, busybox, tmp_path
):
    """Docker makes both so: whatever the order on the command line, and whatever the root has."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d/it").write_text("inner\n")
    before = sorted(path.name for path in busybox.iterdir())
    words = [
        "--read-only",
        "-v",
        f"{tmp_path}/d:/outer/deep",
        "--tmpfs",
        "/outer",
        "--tmpfs",
        "/scratch",
    ]
    words += ["-v", f"{tmp_path}/d/it:/etc/new/file:ro"]
    script = (
        "cat /outer/deep/it /etc/new/file; touch /scratch/x; touch /x; touch /etc/new/y; echo done"
    )
    done = host.vc("run", "--rootfs", str(busybox), *words, "--", "sh", "-c", script)
    assert done.stdout == b"inner\ninner\ndone\n"
    assert done.stderr.count(b"Read-only file system") == 2
    assert sorted(path.name for path in busybox.iterdir()) == before, "nothing is made on the host"
