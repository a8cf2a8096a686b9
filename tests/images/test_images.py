"""Images on this host, with the real programs that unpack and pack them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images.layouts import busybox_layers, entry, layer
from vc_core.images import ImageConfig, ImageError, builtin, programs
from vc_core.images.archives import ArchiveFormat
from vc_core.images.oci_sources import Copied, OciLayout
from vc_core.images.rootfs_sources import Made
from vc_core.images.sources import of_path, of_reference
from vc_core.spec.errors import InvalidRequest, NotFound

FILES = [layer(entry("file", data=b"one"))]


def left(images_folder: Path) -> list[str]:
    """What lies there besides complete images."""
    return sorted(path.name for path in images_folder.glob("*") if len(path.name) != 64) + sorted(
        path.name for path in images_folder.glob(".half*")
    )


async def test_the_digest_of_its_configuration_is_its_id_and_names_find_it(images, layout):
    image_id = layout.image("v1", FILES, {"Cmd": ["sh"], "Labels": {"a": "b"}})
    made = await images.take(OciLayout(layout.folder), "team/app:1")
    assert made.id == image_id
    assert made.config == ImageConfig(cmd=("sh",), labels={"a": "b"})
    await images.tag("team/app:1", "other")
    for text in (
        "team/app:1",
        "other",
        "other:latest",
        image_id,
        image_id[:8],
        f"sha256:{image_id}",
    ):
        assert (await images.get(text)).id == image_id
    assert (await images.get("other")).names == ("other:latest", "team/app:1")
    with pytest.raises(
        NotFound, match=r"no image team/app; similar names: team/app:1, 'vc image --help'"
    ):
        await images.get("team/app")


async def test_layers_become_one_tree(images, layout, tmp_path):
    layout.image("v1", busybox_layers(b"#!"), {})
    made = await images.take(OciLayout(layout.folder), "app")
    tree = tmp_path / "tree"
    subprocess.run(["fsck.erofs", f"--extract={tree}", "--preserve", made.rootfs], check=True)
    names = {str(path.relative_to(tree)) for path in tree.rglob("*")}
    assert {"data/kept", "hidden/new", "turned/inside", "tmp", "proc"} <= names
    assert not {"data/gone", "data/.wh.gone", "hidden/old", "hidden/.wh..wh..opq"} & names
    kept = (tree / "data/kept").stat()
    assert (kept.st_uid, kept.st_gid, kept.st_mode & 0o7777, kept.st_mtime) == (
        70_000,
        80_000,
        0o640,
        1_000_000_000,
    )


async def test_a_corrupt_or_missing_blob_is_named_and_nothing_is_left(images, layout, tmp_path):
    layout.image("v1", FILES, {})
    (blob,) = layout.layers()
    blob.write_bytes(blob.read_bytes() + b"more")
    with pytest.raises(ImageError, match=f"the blob sha256:{blob.name} in .* is corrupt"):
        await images.take(OciLayout(layout.folder), "app")
    blob.unlink()
    with pytest.raises(
        ImageError, match=f"the blob sha256:{blob.name} cannot be read: No such file"
    ):
        await images.take(OciLayout(layout.folder), "app")
    assert left(tmp_path / "images") == []
    assert await images.list() == ()


async def test_two_at_once_do_the_work_once(images, tmp_path):
    fills = []

    async def fill(tree: Path, _progress: object) -> None:
        fills.append(tree)
        await asyncio.sleep(0.05)
        (tree / "file").write_text("one")

    def source() -> Made:
        return Made("slow", ImageConfig(), fill)

    first, second = await asyncio.gather(
        images.take(source(), "slow"), images.take(source(), "slow")
    )
    assert first == second
    assert len(fills) == 1


async def test_one_that_is_interrupted_leaves_nothing(images, tmp_path):
    begun = asyncio.Event()

    async def fill(_tree: Path, _progress: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(images.take(Made("endless", ImageConfig(), fill), "endless"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert left(tmp_path / "images") == []


async def test_what_a_killed_one_left_is_taken_away(images, tmp_path):
    code = """
import asyncio, os, sys
from pathlib import Path
from vc_core.images import ImageConfig, Images
from vc_core.images.archives import ArchiveFormat
from vc_core.images.rootfs_sources import Made

async def fill(tree, progress):
    (tree / "half").write_text("half")
    print("begun", flush=True)
    await asyncio.Event().wait()

asyncio.run(Images(Path(sys.argv[1]), 10).take(Made("m", ImageConfig(), fill), "m"))
"""
    folder = tmp_path / "images"
    process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE)  # noqa: ASYNC220
    assert process.stdout.readline() == b"begun\n"
    assert [name for name in left(folder) if not name.endswith(".lock")] != []
    process.kill()
    process.wait()
    process.stdout.close()
    assert await images.list() == ()
    assert left(folder) == []


async def test_an_image_of_several_architectures(images, layout):
    wanted = layout.image("mine", FILES, {"Cmd": ["mine"]})
    layout.image("theirs", FILES, {"Cmd": ["theirs"]}, architecture="s390x")
    with pytest.raises(ImageError, match="has 2 images to choose from; its tags are: mine, theirs"):
        await images.take(OciLayout(layout.folder), "app")
    layout.join("both")
    assert (await images.take(OciLayout(layout.folder), "app")).id == wanted


async def test_one_of_another_architecture_is_refused(images, layout):
    layout.image("theirs", FILES, {}, architecture="s390x")
    layout.join("both")
    with pytest.raises(
        ImageError, match=r"has no image for linux/\w+; select another with --platform: linux/s390x"
    ):
        await images.take(OciLayout(layout.folder), "app")


async def test_archives_folders_and_tarballs_are_told_apart(images, layout, tmp_path):
    image_id = layout.image("v1", FILES, {"Cmd": ["x"]})
    oci, docker, tarball, tree = (
        tmp_path / name for name in ("oci.tar", "docker.tar", "root.tar.gz", "tree")
    )
    for target in (f"oci-archive:{oci}:v1", f"docker-archive:{docker}:app:v1"):
        subprocess.run(
            ["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout.folder}:v1", target],
            check=True,
        )
    tree.mkdir()
    (tree / "file").write_text("one")
    subprocess.run(["tar", "-czf", tarball, "-C", tree, "."], check=True)
    assert (await images.take(of_path(layout.folder), "a")).id == image_id
    assert (await images.take(of_path(oci), "b")).id == image_id
    from_docker = await images.take(of_path(docker), "c")
    assert from_docker.config.cmd == ("x",)
    config = ImageConfig(cmd=("cat", "/file"), env=("A=b",))
    config = ImageConfig(cmd=("cat", "/file"), env=("A=b",))
    from_tarball = await images.take(
        of_path(tarball, config=config, format=ArchiveFormat.ROOTFS), "d"
    )
    from_tree = await images.take(of_path(tree, config=config), "e")
    assert (from_tarball.config, from_tree.config) == (config, config)
    assert (await images.take(of_path(tree, config=config), "f")).id == from_tree.id
    with pytest.raises(InvalidRequest, match="is an image with a configuration; remove"):
        await images.take(of_path(oci, config=config), "g")
    with pytest.raises(InvalidRequest, match="which has no tags; remove --tag"):
        of_path(tree, "v1")
    with pytest.raises(
        InvalidRequest, match=r"/none does not exist; to fetch from a registry, use 'vc image pull'"
    ):
        of_path(tmp_path / "none")
    (tmp_path / "text").write_text("no archive at all")
    with pytest.raises(InvalidRequest, match=r"is neither a directory nor a tar archive [^\n]*$"):
        await images.take(of_path(tmp_path / "text"), "g")


async def test_names_are_taken_away_one_by_one_and_used_images_stay(images, layout):
    layout.image("v1", FILES, {})
    made = await images.take(OciLayout(layout.folder), "a")
    await images.tag("a", "b")
    assert await images.remove("a") == "a:latest"
    assert (await images.get("b")).names == ("b:latest",)
    with pytest.raises(
        InvalidRequest, match="the image b:latest is used by containers; delete their pods"
    ):
        await images.remove("b", {made.rootfs})
    assert await images.prune(also_named=False) == ()
    assert await images.prune({made.rootfs}, also_named=True) == ()
    assert [one.id for one in await images.prune(also_named=True)] == [made.id]
    assert await images.list() == ()


async def test_a_name_that_moves_on_leaves_an_image_without_one(images, tmp_path):
    tree = tmp_path / "tree"
    tree.mkdir()
    old = await images.take(of_path(tree), "app")
    (tree / "more").write_text("more")
    new = await images.take(of_path(tree), "app")
    assert old.id != new.id
    assert [one.id for one in await images.prune()] == [old.id]
    assert (await images.get("app")).id == new.id


async def test_a_damaged_image_is_told(images, layout):
    layout.image("v1", FILES, {})
    made = await images.take(OciLayout(layout.folder), "app")
    os.truncate(made.rootfs, 10)
    with pytest.raises(ImageError, match=r"is damaged: the size of rootfs\.erofs has changed"):
        await images.get("app")


async def test_links_that_lead_out_of_an_image_are_not_followed(images, layout, tmp_path):
    layout.image(
        "v1",
        [layer(entry("out", "l", link=str(tmp_path)))],
        {"Volumes": {"/out/made": {}, "/var/lib/x": {}}},
    )
    made = await images.take(OciLayout(layout.folder), "app")
    assert not (tmp_path / "made").exists()
    listed = subprocess.run(
        ["dump.erofs", "--path=/var/lib/x", made.rootfs], check=True, capture_output=True
    )
    assert b"directory" in listed.stdout


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(programs, "find_program", lambda _: None)
    with pytest.raises(
        ImageError, match=r"skopeo is not installed; .*; run 'apt-get install skopeo'"
    ):
        programs.path_of("skopeo")
    assert {one.remedy for one in programs.diagnose()} >= {
        "apt-get install erofs-utils",
        "apt-get install umoci",
    }


@pytest.mark.parametrize("text", ["", " app", "-rf", "--all"])
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(InvalidRequest):
        of_reference(text)


def test_a_reference_is_one_of_a_registry_unless_it_says_otherwise():
    assert of_reference("debian:12").key == "docker://debian:12"
    assert of_reference("containers-storage://x").key == "containers-storage://x"


@pytest.mark.parametrize("name", ["", "a b", "../up", "x" * 0, "-x", "f" * 64])
async def test_what_is_no_name_is_refused(images, name):
    with pytest.raises(InvalidRequest, match="is not an image name"):
        await images.take(Copied("docker://x"), name)


async def test_a_debian_has_nothing_of_the_host_that_built_it(images, tmp_path, monkeypatch):
    real = programs.run

    async def run(program, *words, **options):
        if program != "debootstrap":
            return await real(program, *words, **options)
        etc = words[-2] / "etc"  # what debootstrap does besides its work
        etc.mkdir()
        for name in ("hostname", "resolv.conf"):
            (etc / name).write_text("of the host\n")
        (etc / "debian_version").write_text("12\n")
        return b""

    monkeypatch.setattr(programs, "run", run)
    made = await images.take(builtin.debian("bookworm", "http://mirror"), "debian")
    listed = subprocess.run(
        ["dump.erofs", "--ls", "--path=/etc", made.rootfs], check=True, capture_output=True
    )
    assert b"debian_version" in listed.stdout
    assert b"hostname" not in listed.stdout
    assert b"resolv.conf" not in listed.stdout
