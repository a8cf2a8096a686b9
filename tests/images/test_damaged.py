"""Layouts that somebody has written wrong, and images whose file has changed: one error that says
so.
"""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from tests.images.layouts import entry, layer
from vc_core.images import ImageConfig, ImageError, Images, verified
from vc_core.images.layout import find
from vc_core.images.oci_sources import OciLayout
from vc_core.images.rootfs_sources import Made

_DIGEST = "sha256:" + "0" * 64


async def _fill(tree, _progress) -> None:
    (tree / "file").write_text("one")


@pytest.mark.parametrize(
    "index",
    [
        "null",
        "[]",
        "7",
        '"text"',
        '{"manifests": 7}',
        '{"manifests": [7]}',
        '{"manifests": [null]}',
        '{"manifests": [{}]}',
        '{"manifests": {"a": "b"}}',
        '{"manifests": [{"digest": 7}]}',
        '{"manifests": [{"digest": ["a"]}]}',
        '{"manifests": [{"annotations": 7}]}',
        (
            '{"manifests": [{"annotations": {"org.opencontainers.image.ref.name": {}}, "digest": '
            '"x"}]}'
        ),
        '{"manifests": [{"digest": "sha256:../../etc/passwd"}]}',
        f'{{"manifests": [{{"digest": "{_DIGEST}", "mediaType": ["a"]}}]}}',
        (
            f'{{"manifests": [{{"digest": "{_DIGEST}", "platform": 7}}, {{"digest": "{_DIGEST}", '
            f'"platform": [7]}}]}}'
        ),
        "[" * 100_000,
        "1e999",
        "\\ud800",
        '{"manifests": [{"digest": "sha256:\\u0000"}]}',
    ],
)
async def test_an_index_that_is_none_is_an_error_of_the_layout(tmp_path, index):
    (tmp_path / "oci-layout").write_text("{}")
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(ImageError):
        find(tmp_path)


async def test_an_index_without_an_end_is_not_read(tmp_path):
    with (tmp_path / "index.json").open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(ImageError, match="larger than 4 MiB"):
        find(tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"Entrypoint": "sh"},
        {"Cmd": [7]},
        {"Env": {}},
        {"User": 7},
        {"Volumes": []},
        {"Labels": {"a": 7}},
        [],
        7,
    ],
)
def test_a_configuration_of_wrong_types_is_refused(config):
    with pytest.raises((ValueError, AttributeError)):
        ImageConfig.read(config)


async def test_a_manifest_of_wrong_types_is_an_error_of_the_layout(images, layout):
    layout.image("latest", [layer(entry("file"))], {})
    index = json.loads((layout.folder / "index.json").read_text())
    blob = layout.folder / "blobs" / index["manifests"][0]["digest"].replace(":", "/")
    for wrong in ({"layers": 7}, {"config": 7, "layers": []}, [], {"config": {"digest": None}}):
        text = json.dumps(wrong).encode()
        digest = hashlib.sha256(text).hexdigest()
        blob.with_name(digest).write_bytes(text)
        index["manifests"][0]["digest"] = f"sha256:{digest}"
        (layout.folder / "index.json").write_text(json.dumps(index))
        with pytest.raises(ImageError):
            await images.take(OciLayout(layout.folder), "app")


async def test_the_file_of_an_image_is_compared_once_for_each_boot_and_change(images, monkeypatch):
    image = await images.take(Made("x", ImageConfig(), _fill), "app")
    reads = []
    compare = verified._digest
    monkeypatch.setattr(verified, "_digest", lambda file: reads.append(file) or compare(file))
    await images.verify(image.rootfs)
    assert reads == [], "it was just made"
    os.utime(image.rootfs)
    await images.verify(image.rootfs)
    await images.verify(image.rootfs)
    assert len(reads) == 1
    monkeypatch.setattr(verified, "_boot", lambda: "another")
    await images.verify(image.rootfs)
    assert len(reads) == 2


async def test_an_image_that_was_changed_is_not_used(images):
    """Also when its size is as before, and its times were set back."""
    image = await images.take(Made("x", ImageConfig(), _fill), "app")
    before = image.rootfs.stat()
    with image.rootfs.open("r+b") as stream:
        stream.seek(before.st_size // 2)
        stream.write(b"changed")
    os.utime(image.rootfs, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(
            ImageError, match=r"is damaged: rootfs\.erofs has digest .*'vc image rm"
        ):
            await images.verify(image.rootfs)
    assert await images.remove("app") == "app:latest"


async def test_a_record_that_was_changed_does_not_make_an_image_good(images):
    image = await images.take(Made("x", ImageConfig(), _fill), "app")
    record = image.rootfs.parent / "verified.json"
    with image.rootfs.open("r+b") as stream:
        stream.write(b"changed")
    for text in ("", "7", "{}", record.read_text()):
        record.write_text(text)
        with pytest.raises(ImageError, match="is damaged"):
            await images.verify(image.rootfs)


async def test_what_is_no_image_of_ours_is_not_compared(images: Images, tmp_path):
    (tmp_path / "rootfs.erofs").write_text("somebody's own")
    await images.verify(tmp_path / "rootfs.erofs")
