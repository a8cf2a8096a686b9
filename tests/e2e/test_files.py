"""Files of containers: copied both ways, read, written, listed and watched."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
import stat
import subprocess
import tarfile
import time

import pytest

from vc_core import Change, FileKind
from vc_core.spec import InvalidRequest, NotFound


@pytest.fixture
def pod(host, busybox):
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "sleep", "1000")
    yield "p"
    host.vc("pod", "delete", "--force", "p")


@pytest.fixture
def tree(tmp_path):
    """A folder with all that a copy can lose."""
    root = tmp_path / "tree"
    (root / "sub/empty").mkdir(parents=True)
    (root / "file").write_bytes(b"content")
    os.link(root / "file", root / "twin")
    (root / "soft").symlink_to("file")
    (root / "away").symlink_to("/etc/passwd")
    (root / "run").write_text("#!/bin/sh")
    (root / "run").chmod(0o750)
    with (root / "sparse").open("wb") as stream:
        stream.truncate(64 << 20)
        stream.seek(32 << 20)
        stream.write(b"middle")
    os.utime(root / "file", (1_000_000_000, 1_000_000_000))
    return root


def shape(root):
    return sorted(
        (
            str(path.relative_to(root)),
            path.lstat().st_mode,
            path.lstat().st_size if path.is_file() else 0,
            path.readlink() if path.is_symlink() else None,
        )
        for path in root.rglob("*")
    )


@pytest.mark.only("qemu")
def test_a_tree_goes_there_and_comes_back_as_it_was(host, pod, tree, tmp_path):
    host.vc("cp", str(tree), f"{pod}:/data")
    told = host.vc(
        "exec",
        pod,
        "--",
        "sh",
        "-c",
        "stat -c '%n %h %a %u %Y %b' /data/file /data/run /data/sparse",
    )
    file, run, sparse = [line.split() for line in told.stdout.decode().splitlines()]
    assert (file[1], file[4]) == ("2", "1000000000")
    assert (run[2], run[3]) == ("750", "0")
    assert int(sparse[5]) < 1000
    host.vc("cp", f"{pod}:/data", str(tmp_path / "back"))
    assert shape(tmp_path / "back") == shape(tree)
    assert (tmp_path / "back/file").stat().st_ino == (tmp_path / "back/twin").stat().st_ino
    assert (tmp_path / "back/sparse").stat().st_blocks < 1000
    assert (tmp_path / "back/sparse").read_bytes() == (tree / "sparse").read_bytes()


@pytest.mark.only("qemu")
def test_where_a_copy_goes_is_as_everybody_has_it(host, pod, tree, tmp_path):
    def there(path: str) -> bool:
        return host.vc("exec", pod, "--", "ls", "-d", path, check=None).returncode == 0

    host.vc("cp", str(tree / "file"), f"{pod}:/named")
    host.vc("cp", str(tree / "file"), f"{pod}:/tmp")
    host.vc("cp", str(tree), f"{pod}:/tmp")
    host.vc("cp", f"{tree}/.", f"{pod}:/content")
    assert all(map(there, ("/named", "/tmp/file", "/tmp/tree/sub/empty", "/content/file")))
    (tmp_path / "here").mkdir()
    host.vc("cp", f"{pod}:/tmp/tree", str(tmp_path / "here"))
    host.vc("cp", f"{pod}:/named", str(tmp_path / "here/other"))
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"tree", "other"}


@pytest.mark.only("qemu")
def test_streams_are_tar_archives(host, pod, tree):
    packed = subprocess.run(["tar", "-c", "-C", tree, "."], capture_output=True, check=True).stdout
    assert (
        b"/data/: No such file"
        in host.vc("cp", "-", f"{pod}:/data", stdin=packed, check=125).stderr
    )
    host.vc("exec", pod, "--", "busybox", "mkdir", "/data", "/alone")
    host.vc("cp", "-", f"{pod}:/data", stdin=packed)
    told = host.vc("cp", f"{pod}:/data", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(told)) as archive:
        assert {member.name for member in archive} >= {
            "data",
            "data/file",
            "data/twin",
            "data/sub/empty",
        }
    alone = subprocess.run(
        ["tar", "-c", "-C", tree.parent, "tree/run"], capture_output=True, check=True
    ).stdout
    host.vc("cp", "-", f"{pod}:/alone", stdin=alone)
    host.vc("exec", pod, "--", "stat", "/alone/tree/run")


@pytest.mark.only("qemu")
def test_special_files_and_folders_that_are_there_are_as_docker_has_them(host, pod, tree, tmp_path):
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    host.vc("exec", pod, "--", "chmod", "1777", "/tmp")
    host.vc("cp", f"{tree}/.", f"{pod}:/tmp")
    found = host.vc(
        "exec", pod, "--", "stat", "-c", "%F %a", "/tmp", "/tmp/fifo", "/tmp/null"
    ).stdout.decode()
    assert found.splitlines() == ["directory 1777", "fifo 644", "character special file 600"]
    for _ in range(2):  # the second time all of it is there, and the FIFO is not opened
        host.vc("cp", f"{pod}:/tmp/.", str(tmp_path / "back"))
    assert (tmp_path / "back/fifo").is_fifo()
    assert {path.name for path in (tmp_path / "back").iterdir()} == {
        path.name for path in tree.iterdir()
    } - {"null"}
    assert (
        b"null is a device"
        in host.vc("cp", f"{pod}:/tmp/null", str(tmp_path / "x"), check=125).stderr
    )
    with tarfile.open(fileobj=io.BytesIO(host.vc("cp", f"{pod}:/tmp/.", "-").stdout)) as archive:
        assert {member.name for member in archive if member.isdev()} == {"fifo", "null"}


@pytest.mark.only("qemu")
def test_a_file_that_grows_and_shrinks_is_copied(host, pod, tmp_path):
    script = "while :; do head -c 3000000 /dev/zero >> /tmp/log; : > /tmp/log; done"
    host.vc(
        "exec",
        pod,
        "--",
        "sh",
        "-c",
        f"(echo > /tmp/log; {script}) > /tmp/out 2>&1 & until [ -e /tmp/log ]; do :; done",
    )
    for _ in range(3):
        host.vc("cp", f"{pod}:/tmp/.", str(tmp_path / "back"))
    assert (tmp_path / "back/log").is_file()


@pytest.mark.only("qemu")
def test_a_copy_that_is_refused_ends_and_one_that_is_interrupted_too(host, pod, tmp_path):
    (tmp_path / "large").write_bytes(bytes(8 << 20))
    for path in ("/nodir/x", "/etc/passwd/x"):
        done = host.vc("cp", str(tmp_path / "large"), f"{pod}:{path}", check=125)
        assert done.stderr.startswith(f"vc: error: container p: {path}: No".encode())
    host.vc("cp", str(tmp_path / "large"), f"{pod}:/tmp/large")
    pipe = subprocess.PIPE

    def interrupted(process):
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(timeout=60) == 130
        finally:
            process.communicate()

    unread = host.start("cp", f"{pod}:/tmp/large", "-", stdout=pipe)
    unread.stdout.read(1)
    interrupted(unread)
    silent = host.start("cp", "-", f"{pod}:/tmp", stdin=pipe)
    member = tarfile.TarInfo("half")
    member.size = 64 << 20
    silent.stdin.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(8 << 20))
    silent.stdin.flush()
    interrupted(silent)
    paused = host.start("cp", "-", f"{pod}:/tmp", stdin=pipe)
    paused.stdin.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(8 << 20))
    paused.stdin.flush()
    host.vc("pod", "pause", pod)
    interrupted(paused)
    host.vc("pod", "resume", pod)
    dying = host.start("cp", "-", f"{pod}:/tmp", stdin=pipe, stderr=pipe)
    dying.stdin.write(member.tobuf(tarfile.GNU_FORMAT) + bytes(8 << 20))
    dying.stdin.flush()
    host.vc("pod", "stop", "--force", pod)
    assert dying.wait(timeout=60) == 125
    assert dying.communicate()[1].startswith(b"vc: error: ")


@pytest.mark.only("qemu")
def test_a_full_file_system_is_named(host, busybox):
    host.vc(
        "run",
        "-d",
        "--name",
        "p",
        "--rootfs",
        str(busybox),
        "--tmpfs",
        "/small:1m",
        "sleep",
        "1000",
    )
    large = io.BytesIO()
    with tarfile.open(fileobj=large, mode="w") as archive:
        member = tarfile.TarInfo("large")
        member.size = 8 << 20
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    done = host.vc("cp", "-", "p:/small", stdin=large.getvalue(), check=125)
    host.vc("pod", "delete", "--force", "p")
    assert done.stderr.decode().startswith(
        "vc: error: container p: /small/: failed to unpack `large`"
    )
    assert done.stderr.decode().endswith(": No space left on device (os error 28)\n")


@pytest.mark.only("qemu")
def test_a_large_file_passes_unchanged(host, pod, tmp_path):
    data = os.urandom(20 << 20)
    (tmp_path / "large").write_bytes(data)
    host.vc("cp", str(tmp_path / "large"), f"{pod}:/tmp/large")
    host.vc("cp", f"{pod}:/tmp/large", str(tmp_path / "back"))
    assert (
        hashlib.sha256((tmp_path / "back").read_bytes()).digest() == hashlib.sha256(data).digest()
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["p:/none", "/tmp/x"], "container p: /none: No such file or directory (os error 2)"),
        (["/none", "p:/tmp"], "there is no /none on this host"),
        (
            ["/etc/passwd", "p:/no/folder/x"],
            "container p: /no/folder/x: No such file or directory (os error 2)",
        ),
        (["p:/etc", "/no/folder/x"], "there is no directory /no/folder on this host"),
        (
            ["a", "b"],
            "one of SOURCE and TARGET must be POD:PATH, the other a path on this host or -",
        ),
        (["p:", "b"], "the path in the container is empty; give POD:PATH"),
        (["p:none", "b"], "container p: /none: No such file or directory (os error 2)"),
        (["-", "p:/tmp"], "container p: /tmp/: it is no archive: "),
    ],
)
@pytest.mark.only("qemu")
def test_what_cannot_be_is_told_in_one_line(host, pod, words, told):
    done = host.vc("cp", *words, stdin=b"no archive" * 100, check=125)
    assert done.stderr.decode().startswith(f"vc: error: {told}")
    assert done.stderr.count(b"\n") == 1


@pytest.mark.only("qemu")
def test_files_of_a_container_that_has_ended_are_still_there(host, busybox, tmp_path):
    host.vc(
        "run", "-d", "--name", "p", "--rootfs", str(busybox), "sh", "-c", "echo result > /result"
    )
    host.vc("wait", "p")
    host.vc("cp", "p:/result", str(tmp_path / "result"))
    assert (tmp_path / "result").read_text() == "result\n"
    host.vc("pod", "stop", "p")
    assert (
        b"to reach its files it must be running"
        in host.vc("cp", "p:/result", "-", check=125).stderr
    )
    host.vc("pod", "delete", "p")


@pytest.mark.only("qemu")
async def test_the_api_reads_writes_lists_and_watches(host, pod):
    async with host.runtime() as runtime:
        files = (await runtime.get(pod)).files
        began_s = int(time.time())
        await files.write("/tmp/a", b"content", mode=0o600)
        assert await files.read("/tmp/a") == b"content"
        (found,) = await files.list("/tmp")
        assert (found.name, found.kind, found.size, found.mode, found.uid) == (
            "a",
            FileKind.FILE,
            7,
            0o600,
            0,
        )
        assert began_s <= found.mtime_ns / 1e9 <= time.time()
        assert (await files.list("/tmp/a"))[0].name == "a"
        await files.write("/srv/new/deep", "deep")
        assert await files.read("/srv/new/deep") == b"deep"
        for path in ("/tmp", "/etc/passwd/x"):
            with pytest.raises(InvalidRequest):
                await files.write(path, b"")
        assert {one.name: one.target for one in await files.list("/bin")}["sh"] == "busybox"
        changes = files.watch("/tmp")
        first = asyncio.ensure_future(anext(changes))
        while (
            not first.done()
        ):  # the watch begins when the guest says so: until then nobody is told
            await files.write("/tmp/b", b"")
            await asyncio.wait({first}, timeout=0.1)
        assert first.result().name == "b"
        await files.write("/tmp/last", b"")
        seen = [(one.name, one.change) async for one in _until(changes, "last")]
        assert ("last", Change.WRITTEN) in seen
        with pytest.raises(NotFound, match="No such file"):
            await files.read("/none")
        assert (await files.read("/proc/version")).startswith(b"Linux version")
        assert b"\0" not in await files.read("/sys/kernel/uevent_seqnum")
        with pytest.raises(InvalidRequest, match="is not a file in the container"):
            await files.read("/tmp")


async def _until(changes, name):
    async for change in changes:
        yield change
        if (change.name, change.change) == (name, Change.WRITTEN):
            break
    await changes.aclose()


@pytest.mark.only("qemu")
def test_links_in_a_container_lead_nowhere_else(host, busybox, tmp_path):
    script = "ln -s /etc/shadow /link; ln -s ../../../../.. /up; sleep 1000"
    host.vc("run", "-d", "--name", "p", "--rootfs", str(busybox), "sh", "-c", script)
    host.vc("exec", "p", "--", "sh", "-c", "until [ -h /up ]; do :; done")
    host.vc("cp", str(busybox / "etc/passwd"), "p:/up")
    assert host.vc("exec", "p", "--", "ls", "/passwd").stdout == b"/passwd\n"
    host.vc("cp", "p:/link", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink()
    host.vc("pod", "delete", "--force", "p")
