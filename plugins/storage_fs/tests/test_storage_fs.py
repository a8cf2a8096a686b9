"""The store on a filesystem: atomic, private, and calm about what it finds."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from vc_storage_fs import FsOptions, FsStorage
from vc_storage_fs.files import write_atomically
from vc_storage_fs.options import default_config_root, default_run_root

from vc_core.driver_kit import HostProcess
from vc_core.spec import (
    AlreadyExists,
    Busy,
    InvalidRequest,
    NotFound,
    Record,
    StorageError,
    StoreListing,
    Verdict,
)


@pytest.fixture
def roots(tmp_path):
    return FsOptions(tmp_path / "run", tmp_path / "config")


@pytest.fixture
def store(roots):
    return FsStorage(roots)


async def test_records_lie_where_the_reference_has_them(store, roots):
    await store.storage_create("p", '{"pod": 1}')
    await store.storage_put("p", "", Record.POD_STATE, "{}")
    await store.storage_put("p", "c", Record.CONTAINER_CONFIG, "{}")
    await store.storage_put("p", "c", Record.PROCESS, "{}")
    made = sorted(
        str(path.relative_to(roots.run_root.parent))
        for path in roots.run_root.parent.rglob("*.json")
    )
    assert made == [
        "config/pods/p/config.json",
        "config/pods/p/containers/c/config.json",
        "run/pods/p/containers/c/process.json",
        "run/pods/p/state.json",
    ]
    assert json.loads((roots.config_root / "pods/p/config.json").read_text()) == {"pod": 1}
    folders = [
        path
        for root in (roots.run_root, roots.config_root)
        for path in [root, *root.rglob("*")]
        if path.is_dir()
    ]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}


async def test_a_pod_is_created_once(store):
    await store.storage_create("p", "{}")
    with pytest.raises(AlreadyExists, match="pod p exists already"):
        await store.storage_create("p", "{}")


async def test_what_is_not_there(store):
    with pytest.raises(NotFound):
        await store.storage_get("p", "", Record.POD_STATE)
    with pytest.raises(NotFound):
        await store.storage_put("p", "", Record.POD_STATE, "{}")
    with pytest.raises(NotFound):
        await store.storage_lock("p", exclusive=True, timeout_s=1)
    await store.storage_delete("p", "")
    await store.storage_create("p", "{}")
    assert await store.storage_get("p", "", Record.POD_STATE) is None
    assert await store.storage_get("p", "c", Record.PROCESS) is None


async def test_listing_survives_and_reports_what_is_foreign(store, roots):
    await store.storage_create("good", "{}")
    pods = roots.config_root / "pods"
    (pods / "half").mkdir()
    (pods / "file").write_text("")
    (pods / ".half-x").mkdir()
    (roots.run_root / "pods/orphan").mkdir()
    found = await store.storage_list()
    assert found.pods == ("good",)
    told = "\n".join(found.problems)
    for words in (
        "half: has no config.json",
        "file: not a pod's directory",
        ".half-x: has no config.json",
        "orphan: belongs to no pod",
    ):
        assert words in told
    assert (pods / "half").is_dir(), "reading never harms"


UNREADABLE = """
import asyncio, sys
from pathlib import Path
from vc_core.spec import Record, StorageError
from vc_storage_fs import FsOptions, FsStorage

async def work(root):
    roots = FsOptions(root / "run", root / "config")
    store = FsStorage(roots)
    for name in ("a", "b", "c"):
        await store.storage_create(name, "{}")
        await store.storage_put(name, "", Record.POD_STATE, "{}")
        await store.storage_put(name, "inner", Record.CONTAINER_STATE, "{}")
    (roots.config_root / "pods/a").chmod(0)
    (roots.run_root / "pods/b/containers").chmod(0)
    (roots.run_root / "pods/b").chmod(0)
    (roots.run_root / "pods/c/state.json").chmod(0)
    print((await store.storage_list()).pods)
    records = {"a": Record.POD_CONFIG, "b": Record.POD_STATE, "c": Record.POD_STATE}
    for name, record in records.items():
        try:
            await store.storage_get(name, "", record)
        except StorageError as error:
            print(error)
    for name in ("a", "b", "c"):
        await (await store.storage_lock(name, True, 1)).release()
        await store.storage_delete(name, "")
    print((await store.storage_list()).pods, [path.name for path in root.glob("*/pods/*")])

asyncio.run(work(Path(sys.argv[1])))
"""


@pytest.fixture
def folder_of_others():
    """pytest's own are closed to them."""
    with tempfile.TemporaryDirectory(prefix="vc-store-", dir="/tmp") as folder:
        yield Path(folder)


def test_an_unreadable_folder_hides_no_other_and_is_removed(folder_of_others):
    roots = folder_of_others
    words = [sys.executable, "-c", UNREADABLE]
    if os.geteuid() == 0:  # who may read everything
        os.chown(roots, 65534, 65534)
        words = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *words]
    words.append(str(roots))
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "('a', 'b', 'c')",
        f"{roots}/config/pods/a/config.json cannot be read: Permission denied",
        f"{roots}/run/pods/b/state.json cannot be read: Permission denied",
        f"{roots}/run/pods/c/state.json cannot be read: Permission denied",
        "() []",
    ]


async def test_what_has_lost_its_config_can_still_be_removed(store, roots):
    for name in ("empty", "odd", "orphan"):
        await store.storage_create(name, "{}")
    (roots.config_root / "pods/empty/config.json").unlink()
    (roots.config_root / "pods/odd/config.json").unlink()
    (roots.config_root / "pods/odd/config.json").mkdir()
    (roots.config_root / "pods/orphan/config.json").unlink()
    (roots.config_root / "pods/orphan").rmdir()
    listing = await store.storage_list()
    assert listing.pods == ("odd",)
    assert all("'vc pod delete --force" in problem for problem in listing.problems)
    assert len(listing.problems) == 2
    assert await store.storage_get("empty", "", Record.POD_CONFIG) is None
    with pytest.raises(StorageError, match=r"config\.json cannot be read: Is a directory"):
        await store.storage_get("odd", "", Record.POD_CONFIG)
    for name in ("empty", "odd", "orphan"):
        await (await store.storage_lock(name, exclusive=True, timeout_s=1)).release()
        await store.storage_delete(name, "")
    assert await store.storage_list() == StoreListing(pods=())


async def test_a_reboot_takes_the_run_root_only(store, roots):
    await store.storage_create("p", "{}")
    await store.storage_put("p", "c", Record.CONTAINER_CONFIG, "{}")
    subprocess.run(["rm", "-rf", str(roots.run_root)], check=True)
    assert (await store.storage_list()).pods == ("p",)
    assert await store.storage_containers("p") == ("c",)
    await (await store.storage_lock("p", exclusive=True, timeout_s=1)).release()
    await store.storage_put("p", "", Record.POD_STATE, "{}")


async def test_delete_leaves_nothing_and_may_be_said_twice(store, roots):
    await store.storage_create("p", "{}")
    await store.storage_put("p", "c", Record.CONTAINER_CONFIG, "{}")
    await store.storage_put("p", "c", Record.CONTAINER_STATE, "{}")
    await store.storage_delete("p", "c")
    await store.storage_delete("p", "c")
    assert await store.storage_containers("p") == ()
    lock = await store.storage_lock("p", exclusive=True, timeout_s=1)
    await store.storage_delete("p", "")
    await lock.release()
    await store.storage_delete("p", "")
    left = [
        path
        for root in (roots.run_root, roots.config_root)
        for path in root.rglob("*")
        if not path.is_dir()
    ]
    assert left == []


async def test_the_lock_of_a_deleted_pod_is_no_lock(store):
    import asyncio

    await store.storage_create("p", "{}")
    first = await store.storage_lock("p", exclusive=True, timeout_s=1)
    waiting = asyncio.create_task(store.storage_lock("p", exclusive=True, timeout_s=10))
    await asyncio.sleep(0)
    await store.storage_delete("p", "")
    await first.release()
    with pytest.raises(NotFound):
        await waiting


async def test_a_held_lock_has_a_deadline(store):
    await store.storage_create("p", "{}")
    held = await store.storage_lock("p", exclusive=False, timeout_s=1)
    with pytest.raises(Busy, match=r"pod p is busy: .* \(not free within 0\.05 s\)"):
        await store.storage_lock("p", exclusive=True, timeout_s=0.05)
    await held.release()


WRITER = """
import sys
import tempfile
from pathlib import Path
from vc_storage_fs.files import write_atomically
for number in range(10**9):
    write_atomically(Path(sys.argv[1]), str(number) * 5000)
"""


def test_json_is_whole_or_old_however_the_writer_dies(tmp_path):
    path = tmp_path / "state.json"
    write_atomically(path, "first" * 5000)
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
        before = path.stat().st_ino
        while path.stat().st_ino == before:
            os.sched_yield()
        writer.kill()
        writer.wait()
        text = path.read_text()
        assert text == text[: len(text) // 5000] * 5000


async def test_a_root_of_somebody_else_is_refused(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("only root can make folders of others")
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 12345, 12345)
    store = FsStorage(FsOptions(tmp_path / "theirs", tmp_path / "config"))
    with pytest.raises(
        InvalidRequest, match=r"theirs does not belong to this user .*; set storage\.fs\.run_root"
    ):
        await store.storage_create("p", "{}")


def test_roots_by_user(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/nina/state")
    assert str(default_run_root()) == "/run/user/1000/virtcontainers"
    assert str(default_config_root()) == "/home/nina/state/virtcontainers"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert str(default_run_root()).endswith("/virtcontainers-1000")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert str(default_run_root()) == "/run/virtcontainers"


async def test_diagnosis_names_the_remedy(tmp_path):
    good = await FsStorage(FsOptions(tmp_path / "a", tmp_path / "b")).storage_diagnose()
    assert [one.verdict for one in good] == [Verdict.GOOD, Verdict.GOOD]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
async def test_nothing_is_removed_through_a_mount(store, tmp_path):
    await store.storage_create("p", "{}")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/precious").touch()
    point = await store.storage_run_dir("p") / "files"
    point.mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "theirs", point], check=True)
    with pytest.raises(StorageError, match="is a mount point"):
        await store.storage_delete("p", "")
    assert (tmp_path / "theirs/precious").exists()
    assert (await store.storage_list()).pods == ("p",), "it can be deleted when the mount is gone"
    subprocess.run(["umount", point], check=True)
    await store.storage_delete("p", "")
    assert (await store.storage_list()).pods == ()


async def test_what_killed_calls_have_left_is_taken_away_and_what_lives_is_not(store, roots):
    await store.storage_create("p", "{}")
    me, pods = HostProcess.this(), roots.config_root / "pods"
    dead, alive = (
        pods / f".half-{me.pid}-{me.start_ticks + 1}-x",
        pods / f".dead-{me.pid}-{me.start_ticks}-y",
    )
    for folder in (dead, alive):
        folder.mkdir()
    assert (await store.storage_list()).problems == ()
    assert (dead.exists(), alive.exists()) == (False, True)


@pytest.mark.parametrize(("length", "is_good"), [(60, True), (67, True), (68, False), (118, False)])
def test_a_run_root_that_is_too_long_for_sockets_is_told_by_its_options(length, is_good):
    told = list(FsOptions(Path("/".ljust(length, "x"))).problems())
    assert bool(told) is not is_good
    assert all("run_root: is" in one and "use one of at most 67" in one for one in told)
