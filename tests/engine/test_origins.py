"""Paths of the host that a container names are resolved once: what it plants there later is
refused, not followed.
"""

from __future__ import annotations

import pytest

from tests.engine.specs import container
from vc_core.spec import HostDevice, InvalidRequest, Mount


@pytest.mark.parametrize("what", ["mount", "rootfs", "device"])
async def test_a_link_that_was_planted_since_is_refused_in_one_line(
    open_runtime, world, tmp_path, what
):
    """Whoever runs it, root or not; also where the link leads to a folder that the container had
    before.
    """
    for name in ("data/inner", "secret/inner"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "data/inner/x.dev").touch()
    (tmp_path / "secret/inner/x.dev").touch()
    inner = tmp_path / "data/inner"
    wanted = {
        "mount": lambda: container("a", mounts=(Mount(source=inner, destination="/inner"),)),
        "rootfs": lambda: container("a", rootfs=str(inner)),
        "device": lambda: container(
            "a", devices=(HostDevice(path=inner / "x.dev", destination="/dev/x"),)
        ),
    }[what]()
    async with open_runtime() as runtime:
        pod = await runtime.create("p")
        made = await pod.create_container(wanted)
        (tmp_path / "data").rename(tmp_path / "moved")
        (tmp_path / "data").symlink_to(tmp_path / "secret")
        with pytest.raises(
            InvalidRequest, match=r"inner.* is not what it was when the container was created"
        ) as caught:
            await pod.start()
        assert "\n" not in str(caught.value)
        assert world.residue() == []
        (tmp_path / "data").unlink()
        (tmp_path / "moved").rename(tmp_path / "data")
        await pod.start()
        await made.stop(0)
        (tmp_path / "data").rename(tmp_path / "moved")
        (tmp_path / "data").symlink_to(tmp_path / "secret")
        with pytest.raises(InvalidRequest, match="is not what it was"):
            await made.start()
        await pod.delete(force=True)


async def test_a_link_of_the_users_own_is_followed_once_when_the_container_is_created(
    open_runtime, tmp_path
):
    (tmp_path / "one").mkdir()
    (tmp_path / "current").symlink_to("one")
    async with open_runtime() as runtime:
        pod = await runtime.create("p")
        made = await pod.create_container(
            container("a", mounts=(Mount(source=tmp_path / "current", destination="/current"),))
        )
        assert [mount.source for mount in (await made.spec()).mounts] == [tmp_path / "one"]
        await pod.delete()
