"""Places for binds: what a guest sees of them, what is refused, what is left.

With real mounts, as root.
"""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from vc_core.driver_kit import mountinfo
from vc_core.engine.host import bind_mounts, tree_removal
from vc_core.spec import InvalidRequest, StorageError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can bind a folder")


@pytest.fixture
def place(tmp_path):
    folder = tmp_path / "files"
    bind_mounts.prepare(folder)
    yield folder
    bind_mounts.remove_all(folder)
    assert [one for one in mountinfo.points() if folder in (one.point, *one.point.parents)] == []


@pytest.fixture
def data(tmp_path) -> Path:
    folder = tmp_path / "data"
    (folder / "logs").mkdir(parents=True)
    return folder


def test_nothing_can_be_made_moved_or_changed_beside_what_is_bound(place, data):
    """The hypervisor acts for the guest with root's rights in this folder, by these calls."""
    name = bind_mounts.add(data, place, False, True)
    attempts = [
        (place / "new").mkdir,
        (place / "new").touch,
        lambda: (place / "new").symlink_to("/etc"),
        lambda: os.mknod(place / "new", stat.S_IFREG | 0o4755),
        lambda: (place / name).rename(place / "other"),
        lambda: place.chmod(0o777),
        lambda: os.setxattr(place, "trusted.x", b"1"),
        lambda: os.link("/etc/passwd", place / "new"),
    ]
    for attempt in attempts:
        with pytest.raises(
            OSError, match=r"Read-only file system|Invalid cross-device link|resource busy"
        ):
            attempt()
    with pytest.raises(OSError, match=r"resource busy|Read-only"):
        (place / name).rmdir()
    (place / name / "inside").touch()
    assert (data / "inside").exists(), "what is bound writable is writable"
    assert [path.name for path in place.iterdir()] == [name]


def test_what_is_bound_has_no_power_through_the_bind(place, data):
    name = bind_mounts.add(data, place, False, True)
    (found,) = [one for one in mountinfo.points() if one.point == place / name]
    assert {"nosuid", "nodev", "rw"} <= found.options
    assert "unbindable" in found.tags


def test_what_became_a_pipe_or_a_device_is_refused(place, data):
    os.mkfifo(data / "pipe")
    with pytest.raises(InvalidRequest, match="neither a directory nor a plain file any more"):
        bind_mounts.add(data / "pipe", place, False, True)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("planted", ["link", "link above", "file above"])
def test_a_source_that_was_replaced_is_not_followed(place, data, planted):
    (data / "logs/deep").mkdir()
    source = data / "logs/deep"
    secret = data.parent / "secret"
    (secret / "deep").mkdir(parents=True)
    if planted == "link":
        source.rmdir()
        source.symlink_to(secret)
    else:
        (data / "logs").rename(data / "gone")
        if planted == "link above":
            (data / "logs").symlink_to(secret)
        else:
            (data / "logs").touch()
    with pytest.raises(InvalidRequest, match="is not what it was when the container was created"):
        bind_mounts.add(source, place, False, True)
    assert list(place.iterdir()) == []


def test_a_place_is_made_once_and_found_again(place, data):
    name = bind_mounts.add(data, place, False, True)
    bind_mounts.prepare(place)
    assert [path.name for path in place.iterdir()] == [name]
    assert bind_mounts.is_bound(place, name)
    bind_mounts.remove(place, name)
    assert not bind_mounts.is_bound(place, name)
    bind_mounts.remove(place, name)
    assert list(place.iterdir()) == []


def test_all_is_removed_whatever_a_guest_has_left_in_the_folder_of_an_older_version(tmp_path):
    folder = tmp_path / "files"
    deep = folder / "deep"
    deep.mkdir(parents=True)
    for _ in range(60):
        deep = deep / ("d" * 60)
        deep.mkdir()
    descriptor = os.open(deep, os.O_RDONLY)
    for _ in range(3000):  # deeper than a path can be long, and than Python recurses
        os.mkdir("d", dir_fd=descriptor)
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    os.mkfifo(folder / "fifo")
    (folder / "link").symlink_to("/etc")
    os.mknod(folder / "suid", stat.S_IFREG | 0o4755)
    (folder / "odd\n\x01 name").mkdir(mode=0)
    (folder / os.fsdecode(b"\xff\xfe")).touch()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "precious").touch()
    (folder / "bound").mkdir()
    subprocess.run(["mount", "--bind", kept, folder / "bound"], check=True)
    (folder / "fixed").mkdir()
    (folder / "fixed/file").touch()
    if (
        subprocess.run(
            ["chattr", "+i", folder / "fixed/file", folder / "fixed"], check=False
        ).returncode
        != 0
    ):
        pytest.skip("this file system has no immutable files")
    bind_mounts.remove_all(folder)
    assert list(folder.iterdir()) == []
    assert (kept / "precious").exists()


def test_a_removal_does_not_enter_what_is_mounted(tmp_path):
    (tmp_path / "tree/deep").mkdir(parents=True)
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "precious").touch()
    subprocess.run(["mount", "--bind", kept, tmp_path / "tree/deep"], check=True)
    try:
        with pytest.raises(StorageError, match=r"mounted|busy"):
            tree_removal.remove_tree(tmp_path / "tree")
    finally:
        subprocess.run(["umount", tmp_path / "tree/deep"], check=True)
    assert (kept / "precious").exists()
    tree_removal.remove_tree(tmp_path / "tree")
    tree_removal.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_killed_at_any_moment_nothing_is_left_but_what_the_pods_end_removes(tmp_path, data):
    """Each call on mounts may be the last: the folder is emptied from there."""
    folder = tmp_path / "files"
    for step in range(40):
        child = os.fork()
        if child == 0:
            _die_after(step, folder, data)
        _, status = os.waitpid(child, 0)
        bind_mounts.remove_all(folder)
        assert [
            one for one in mountinfo.points() if folder in (one.point, *one.point.parents)
        ] == []
        assert list(folder.iterdir() if folder.exists() else ()) == []
        assert (data / "logs").is_dir()
        if os.waitstatus_to_exitcode(status) == 0:
            break
    assert 5 < step < 39


def _die_after(step: int, folder: Path, data: Path) -> None:
    from vc_core.engine.host import mount_calls

    left, call = [step], mount_calls._call

    def counted(*args, **kwargs):
        if not left[0]:
            os._exit(9)
        left[0] -= 1
        return call(*args, **kwargs)

    mount_calls._call = counted
    try:
        bind_mounts.prepare(folder)
        bind_mounts.add(data, folder, True, True, covered=[data / "logs"])
        os._exit(0)
    finally:
        os._exit(1)


def test_of_the_hosts_root_nothing_is_seen_that_is_hidden(place, tmp_path):
    """Also what appears there, or is replaced, while it is shown; and the host may rename all of it
    meanwhile.
    """
    folder = Path("/var/tmp") / f"vc-test-{tmp_path.name}-{os.getpid()}"
    (folder / "home/.ssh").mkdir(parents=True)
    (folder / "home").chmod(0o750)
    try:
        (folder / "shadow").write_text("secret")
        (folder / "plain").write_text("seen")
        (folder / "disk").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder / "disk"], check=True)
        for name in ("key", "plain"):
            (folder / "disk" / name).touch()
        hidden = [
            folder / "disk/key",
            folder / "shadow",
            folder / "home/.ssh",
            folder / "home/.config/gcloud",
            folder / "none/deep/key",
        ]
        bind_mounts.add_host_root(place, "root", hidden)
        shown = place / "root" / folder.relative_to("/")
        assert sorted(path.name for path in shown.iterdir()) == ["disk", "home", "plain"]
        assert [path.name for path in (shown / "disk").iterdir()] == ["plain"], (
            "another file system"
        )
        assert list((shown / "home").iterdir()) == []
        assert stat.S_IMODE((shown / "home").stat().st_mode) == 0o750
        (folder / "new").write_text("another secret")
        (folder / "new").rename(folder / "shadow")  # as passwd(1) does
        (folder / "home/.ssh/id").write_text("key")
        (folder / "home/.config/gcloud").mkdir(parents=True)
        (folder / "none/deep").mkdir(parents=True)
        (folder / "none/deep/key").touch()
        for name in ("shadow", "home/.ssh/id", "home/.config/gcloud", "none/deep/key"):
            with pytest.raises(FileNotFoundError):
                (shown / name).stat()
        assert (shown / "plain").read_text() == "seen"
        for name in ("proc", "sys", "dev", "run", "tmp"):
            assert list((place / "root" / name).iterdir()) == []
        with pytest.raises(OSError, match="Read-only"):
            (shown / "x").touch()
    finally:
        subprocess.run(["umount", folder / "disk"], check=True)
        tree_removal.remove_tree(folder)


def test_folders_of_ours_are_covered_in_whatever_is_bound(place, tmp_path):
    (tmp_path / "all/store/pods").mkdir(parents=True)
    (tmp_path / "all/other").mkdir()
    (tmp_path / "all/file").write_text("of ours")
    covered = [tmp_path / "all" / name for name in ("store", "file", "none")]
    name = bind_mounts.add(tmp_path / "all", place, False, True, covered=covered)
    assert sorted(path.name for path in (place / name).iterdir()) == ["file", "other", "store"]
    assert (place / name / "file").read_bytes() == b""
    assert list((place / name / "store").iterdir()) == []
    with pytest.raises(OSError, match="Read-only"):
        (place / name / "store/x").touch()
    (place / name / "other/x").touch()
    assert (tmp_path / "all/other/x").exists()
