"""Archives as many programs write them: each becomes the image that it holds, or is refused by
name.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.images.layouts import compressed, docker_archive, entry, layer
from vc_core.images import ImageConfig, ImageError
from vc_core.images.archives import ArchiveFormat, examine
from vc_core.images.oci_sources import OciLayout
from vc_core.images.platforms import Platform
from vc_core.images.sources import of_path
from vc_core.spec.errors import InvalidRequest

FILES = [
    layer(entry("file", data=b"one")),
    layer(entry("file", data=b"two"), entry("more", data=b"more")),
]
ROOT = layer(entry("etc", "d"), entry("bin", "d"), entry("bin/sh", data=b"#!"))
PROGRAMS = ("gzip", "bzip2", "xz", "zstd")


def extracted(rootfs: Path, into: Path) -> dict[str, bytes]:
    """The files of an image that are not empty."""
    subprocess.run(["fsck.erofs", f"--extract={into}", rootfs], check=True)
    return {
        str(path.relative_to(into)): path.read_bytes() for path in into.rglob("*") if path.is_file()
    }


@pytest.mark.parametrize("writer", ["ggcr", "jib", "nix"])
async def test_docker_archives_of_other_writers_are_images(images, tmp_path, writer):
    file = tmp_path / "a:b.tar"
    docker_archive(file, writer, FILES)
    made = await images.take(of_path(file), "app")
    assert (made.config.cmd, made.config.labels) == (("cat", "/file"), {"number": "0"})
    assert extracted(made.rootfs, tmp_path / "tree") == {"file": b"two", "more": b"more"}


@pytest.mark.parametrize("program", PROGRAMS)
async def test_archives_may_be_compressed(images, layout, tmp_path, program):
    docker, oci, root = (tmp_path / name for name in ("docker", "oci", "root"))
    docker_archive(docker, "jib", FILES)
    oci_id = layout.image("v1", FILES, {})
    subprocess.run(["tar", "-cf", oci, "-C", layout.folder, "."], check=True)
    root.write_bytes(ROOT)
    plain = await images.take(of_path(root), "root")
    for file in (docker, oci, root):
        file.write_bytes(compressed(file.read_bytes(), program))
    assert (await images.take(of_path(docker), "docker")).config.cmd == ("cat", "/file")
    assert (await images.take(of_path(oci, "v1"), "oci")).id == oci_id
    assert (await images.take(of_path(root), "again")).id == plain.id


async def test_an_archive_can_come_from_standard_input(images, tmp_path, monkeypatch):
    file = tmp_path / "docker"
    docker_archive(file, "ggcr", FILES)
    reader, writer = os.pipe()
    monkeypatch.setattr("vc_core.images.archive_source.STDIN", reader)
    monkeypatch.setattr("vc_core.images.sources.STDIN", reader)
    with subprocess.Popen(["zstd", "-c", file], stdout=writer):  # noqa: ASYNC220
        os.close(writer)
        assert (await images.take(of_path(Path("-")), "app")).config.cmd == ("cat", "/file")
        with pytest.raises(
            InvalidRequest, match="standard input is neither a directory nor a tar archive"
        ):
            await images.take(of_path(Path("-")), "app")
    os.close(reader)


def test_standard_input_that_is_a_terminal_is_refused(monkeypatch):
    monkeypatch.setattr(os, "isatty", lambda _: True)
    with pytest.raises(InvalidRequest, match="which is a terminal; pipe one into it"):
        of_path(Path("-"))


async def test_one_of_several_images_is_chosen_by_its_name(images, tmp_path):
    file = tmp_path / "two.tar"
    docker_archive(file, "nix", FILES, ("team/one:1", "docker.io/library/two:latest"))
    with pytest.raises(
        ImageError,
        match=r"has 2 images to choose from; .* --tag: docker.io/library/two:latest, team/",
    ):
        await images.take(of_path(file), "app")
    assert (await images.take(of_path(file, "team/one:1"), "app")).config.labels == {"number": "0"}
    assert (await images.take(of_path(file, "two"), "app")).config.labels == {"number": "1"}


async def test_what_is_no_known_archive_is_asked_about(images, tmp_path):
    file = tmp_path / "source.tar"
    file.write_bytes(
        layer(entry("project-1.0", "d"), entry("project-1.0/manifest.json", data=b"[]"))
    )
    with pytest.raises(
        InvalidRequest,
        match=(
            r"neither an image archive nor a root file system .*; it has: project-1.0; "
            r".* '--format rootfs'"
        ),
    ):
        await images.take(of_path(file), "app")
    assert await images.list() == ()
    made = await images.take(of_path(file, format=ArchiveFormat.ROOTFS), "app")
    assert extracted(made.rootfs, tmp_path / "tree") == {"project-1.0/manifest.json": b"[]"}
    with pytest.raises(ImageError, match=r"has 0 images to choose from"):
        await images.take(of_path(file, format=ArchiveFormat.DOCKER), "app")
    with pytest.raises(ImageError, match=r"is not an OCI archive: it has no oci-layout"):
        await images.take(of_path(file, format=ArchiveFormat.OCI), "app")


async def test_a_folder_with_an_unpacked_archive_is_asked_about(images, tmp_path):
    file, folder = tmp_path / "docker.tar", tmp_path / "folder"
    docker_archive(file, "jib", FILES)
    folder.mkdir()
    subprocess.run(["tar", "-xf", file, "-C", folder], check=True)
    with pytest.raises(
        InvalidRequest,
        match=r"has a file manifest.json and .*; import the archive, or use '--format rootfs'",
    ):
        of_path(folder)
    assert (
        await images.take(of_path(folder, format=ArchiveFormat.ROOTFS), "app")
    ).config == ImageConfig()


def test_a_root_file_system_may_have_a_manifest_of_its_own(tmp_path):
    file = tmp_path / "root.tar"
    file.write_bytes(layer(entry("manifest.json", data=b'{"name": "app"}'), entry("bin/sh")))
    assert examine(file, "root.tar").format is ArchiveFormat.ROOTFS


def test_headers_without_end_are_not_read(tmp_path):
    file = tmp_path / "bomb.tar"
    info = tarfile.TarInfo("name")
    info.type, info.size = tarfile.XHDTYPE, 1 << 32
    file.write_bytes(info.tobuf())
    os.truncate(file, 1 << 32)
    with pytest.raises(InvalidRequest, match="its headers exceed 4 MiB at once"):
        examine(file, "bomb.tar")


@pytest.mark.parametrize("target", ["/etc", "../../other"])
async def test_links_in_an_oci_archive_are_refused(images, layout, tmp_path, target):
    layout.image("v1", FILES, {})
    file = tmp_path / "oci.tar"
    stream = io.BytesIO(layer(entry("blobs", "l", link=target)))
    with tarfile.open(file, "w") as archive, tarfile.open(fileobj=stream) as links:
        archive.add(layout.folder / "oci-layout", "oci-layout")
        archive.add(layout.folder / "index.json", "index.json")
        archive.addfile(links.getmember("blobs"))
    with pytest.raises(
        ImageError, match="is not an OCI archive: blobs is neither a file nor a directory"
    ):
        await images.take(of_path(file), "app")


async def test_layers_by_zstd_are_unpacked(images, layout, tmp_path):
    image_id = layout.image("v1", FILES, {}, compression="zstd")
    made = await images.take(OciLayout(layout.folder), "app")
    assert made.id == image_id
    assert extracted(made.rootfs, tmp_path / "tree") == {"file": b"two", "more": b"more"}


async def test_layers_by_zstd_in_a_docker_archive_are_unpacked(images, tmp_path):
    docker_archive(tmp_path / "docker.tar", "ggcr", FILES, compression="zstd")
    made = await images.take(of_path(tmp_path / "docker.tar"), "app")
    assert extracted(made.rootfs, tmp_path / "tree") == {"file": b"two", "more": b"more"}


async def test_what_has_no_layers_of_files_is_refused(images, layout):
    layout.image("v1", FILES, {})
    blob = layout.folder / "blobs/sha256"
    for file in blob.iterdir():  # the manifest, and with it its digest
        if b"layer.v1" in (text := file.read_bytes()):
            changed = text.replace(b"layer.v1.tar+gzip", b"layer.v1.tar+gzip+encrypted")
            described = layout.blob(changed, "manifest.v1+json")
            index = layout.folder / "index.json"
            index.write_text(
                index.read_text().replace(file.name, described["digest"].partition(":")[2])
            )
            break
    with pytest.raises(
        ImageError, match=r"is not an image of files: the blob .* has the type .*encrypted"
    ):
        await images.take(OciLayout(layout.folder), "app")


async def test_an_image_for_another_machine_is_refused_unless_it_is_asked_for(images, layout):
    image_id = layout.image("v1", FILES, {}, architecture="s390x")
    with pytest.raises(
        ImageError,
        match=r"is an image for linux/s390x, and .*; use '--platform linux/s390x' to accept it",
    ):
        await images.take(OciLayout(layout.folder), "app")
    with pytest.raises(ImageError, match=r"is an image for linux/s390x, not for linux/arm/v7"):
        await images.take(of_path(layout.folder, platform=Platform("arm", "v7")), "app")
    wanted = Platform.parse("s390x")
    made = await images.take(of_path(layout.folder, platform=wanted), "app")
    assert (made.id, made.architecture) == (image_id, "s390x")
    with pytest.raises(ImageError, match="is an image for linux/s390x"):  # also now that it is here
        await images.take(OciLayout(layout.folder), "app")


async def test_a_platform_chooses_among_those_of_an_index(images, layout):
    layout.image("mine", FILES, {"Cmd": ["mine"]})
    wanted = layout.image("theirs", FILES, {"Cmd": ["theirs"]}, architecture="s390x")
    layout.join("both")
    assert (
        await images.take(of_path(layout.folder, platform=Platform("s390x")), "app")
    ).id == wanted


async def test_a_root_file_system_is_for_the_machine_that_was_named(images, tmp_path):
    (tmp_path / "root.tar").write_bytes(ROOT)
    made = await images.take(
        of_path(tmp_path / "root.tar", platform=Platform("arm64", "v8")), "app"
    )
    assert made.architecture == "arm64"


@pytest.mark.parametrize("text", ["windows/amd64", "linux/", "a/b/c/d", "linux/a b"])
def test_what_is_no_platform_is_refused(text):
    with pytest.raises(InvalidRequest, match="--platform"):
        Platform.parse(text)


def test_platforms_are_named_as_docker_names_them():
    assert str(Platform.parse("aarch64")) == "linux/arm64"
    assert str(Platform.parse("linux/arm/v7")) == "linux/arm/v7"
    assert Platform.parse("") is None
