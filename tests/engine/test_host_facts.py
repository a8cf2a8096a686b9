"""What is read from the host: mount tables, block devices, files of a pod's own."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from vc_core.driver_kit import mountinfo
from vc_core.engine.host import (
    bind_mounts,
    block_rootfs,
    folder_view,
    hidden_paths,
    mount_calls,
)
from vc_core.engine.state import boot_assets
from vc_core.engine.state.boot_assets import Asset, Assets
from vc_core.spec import Guest, InvalidRequest, Rootfs, RootfsMode

TABLE = r"""
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 7:1 /sub/tree /mnt/with\040space\011tab\134back\012line ro,relatime - ext4 /dev/loop1 rw
31 22 0:30 / /mnt/over rw - tmpfs first rw,size=1m
32 22 0:31 / /mnt/over rw master:7 - tmpfs second rw
33 32 0:32 / /mnt/over/deep rw - xfs /dev/x ro
""".strip()


def test_octal_escapes_are_decoded_and_optional_fields_skipped():
    table = mountinfo.parse(TABLE.encode())
    assert table[1].point == Path("/mnt/with space\ttab\\back\nline")
    assert (table[1].root, table[1].device, table[1].options) == (
        "/sub/tree",
        "7:1",
        frozenset({"ro", "relatime"}),
    )
    assert (table[0].fstype, table[0].source) == ("ext4", "/dev/root")


def test_the_last_mount_at_a_place_is_the_one_that_shows():
    table = mountinfo.parse(TABLE.encode())
    assert mountinfo.holding(Path("/mnt/over/file"), table).source == "second"
    assert mountinfo.holding(Path("/mnt/over/deep/file"), table).fstype == "xfs"
    assert mountinfo.holding(Path("/mnt/overhead"), table).point == Path("/")
    assert [one.fstype for one in mountinfo.below(Path("/mnt/over"), table)] == ["xfs"]


@pytest.mark.parametrize(
    ("offset", "magic", "fstype"),
    [(0x438, b"\x53\xef", "ext4"), (1024, b"\xe2\xe1\xf5\xe0", "erofs")],
)
def test_an_images_file_system_is_known_by_its_superblock(tmp_path, offset, magic, fstype):
    image = tmp_path / "image"
    image.write_bytes(bytes(offset) + magic + bytes(4096))
    assert block_rootfs.of(Rootfs(path=image)) == block_rootfs.Block(image, fstype)
    if fstype == "erofs":
        with pytest.raises(InvalidRequest, match="erofs, which is read-only"):
            block_rootfs.of(Rootfs(path=image, mode=RootfsMode.READ_WRITE))


@pytest.mark.parametrize("mode", list(RootfsMode))
def test_the_hosts_own_root_is_always_shared(mode):
    assert block_rootfs.of(Rootfs(path=Path("/"), mode=mode)) is None
    assert block_rootfs.of(Rootfs(path=Path("/usr"), mode=mode)) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can bind a folder")
def test_the_hosts_own_root_is_shared_wherever_it_is_bound(tmp_path):
    """Its device is mounted read-write: a guest that mounted it, too, would read what the host is
    writing.
    """
    bound = tmp_path / "bound"
    bound.mkdir()
    subprocess.run(["mount", "--bind", "/usr", bound], check=True)
    assert block_rootfs.of(Rootfs(path=bound)) is None


def test_the_references_vector_of_a_digest(tmp_path):
    """Reference, section 7.3."""
    (tmp_path / "asset").write_text("FakeAsset fake asset FAKE ASSET")
    digest = hashlib.sha512((tmp_path / "asset").read_bytes()).hexdigest()
    assert digest.startswith(
        "92549f8d2018a95a294d28a65e795ed7d1a9d150009a28cea108ae10101178676f04ab82a6950d0099e4924f9c5e"
    )
    boot_assets.check(Assets(kernel=Asset(tmp_path / "asset", digest.upper())))
    with pytest.raises(
        InvalidRequest, match=f"the kernel .*asset has the SHA-512 {digest}, and 0 was demanded"
    ):
        boot_assets.check(Assets(kernel=Asset(tmp_path / "asset", "0")))


@pytest.mark.parametrize("kind", ["kernel", "image", "hypervisor"])
def test_files_of_a_pods_own_are_checked_each(tmp_path, kind):
    (tmp_path / "empty").touch()
    for path, told in (
        (tmp_path / "absent", "cannot be read"),
        (tmp_path / "empty", "is empty"),
        (Path("x"), "absolute"),
    ):
        with pytest.raises(InvalidRequest, match=f"the {kind} .*{told}"):
            boot_assets.check(Assets(**{kind: Asset(path)}))


def test_files_of_a_pods_own_take_the_guests_place():
    guest = Guest(id="g", kernel=Path("/k"), initrd=Path("/i"), parameters=(), proof_parameters=())
    assert boot_assets.apply(Assets(), guest) == guest
    changed = boot_assets.apply(
        Assets(kernel=Asset(Path("/mine")), image=Asset(Path("/own"))), guest
    )
    assert (changed.kernel, changed.initrd) == (Path("/mine"), Path("/own"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can bind a folder")
def test_a_bind_of_the_hosts_root_brings_no_other_pods_binds_and_nothing_of_the_kernels_along(
    tmp_path,
):
    """Two pods that both show the host's root would keep each other's places busy for ever, and
    libvirtd confused.

    And /proc/kcore is the host's memory.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    first, second = (bind_mounts.add(Path("/"), folder, True, True) for folder in (one, two))
    found = mountinfo.below(two / second)
    assert [found_one for found_one in found if first in str(found_one.point)] == []
    assert {found_one.fstype for found_one in found}.isdisjoint(
        {"cgroup", "cgroup2", "proc", "sysfs", "devtmpfs"}
    )
    outer = tmp_path.relative_to("/").parts[0]
    assert (two / second / outer).is_dir()
    bind_mounts.remove(one, first)
    bind_mounts.remove(two, second)
    assert list(one.iterdir()) == list(two.iterdir()) == []


def test_the_table_is_read_once_for_a_root_file_system(tmp_path, monkeypatch):
    reads = []
    points = mountinfo.points
    monkeypatch.setattr(mountinfo, "points", lambda: reads.append(1) or points())
    block_rootfs.of(Rootfs(path=tmp_path))
    assert len(reads) == 1


def test_each_folder_of_hidden_names_is_looked_at_once(tmp_path, monkeypatch):
    host, layer = tmp_path / "host", tmp_path / "layer"
    for folder in (host / "etc/ssh", host / "root", layer):
        folder.mkdir(parents=True)
    (host / "root/file").touch()
    looked = []
    has_names = folder_view._has_names
    monkeypatch.setattr(
        folder_view,
        "_has_names",
        lambda origin, layer, folder: (
            looked.append(str(folder)) or has_names(origin, layer, folder)
        ),
    )
    monkeypatch.setattr(folder_view, "_whiteout", lambda layer, inner: hidden.append(str(inner)))
    hidden, visible = [], {}
    with (
        mount_calls.opened(mount_calls.open_plain(host)) as origin,
        mount_calls.opened(mount_calls.open_plain(layer)) as top,
    ):
        for name in ("etc/shadow", "etc/ssh/a", "etc/ssh/b", "etc/none/a", "etc/none/b"):
            folder_view._hide(origin, top, Path(name), False, visible)
        folder_view._hide(origin, top, Path("root/file/below"), False, visible)
    assert looked == ["etc", "etc/ssh", "etc/none", "root", "root/file"]
    assert hidden == ["etc/shadow", "etc/ssh/a", "etc/ssh/b", "etc/none"]


def test_paths_inside_others_are_left_out():
    found = [Path(name) for name in ("/a/b", "/a/bc", "/a/b/c", "/d/e/f", "/d", "/a/b")]
    assert hidden_paths.without_nested(found) == (Path("/a/b"), Path("/a/bc"), Path("/d"))
    assert hidden_paths.without_nested([Path("/a"), Path("/")]) == (Path("/"),)
