"""Finding plugins: by name, one at a time, with errors that teach.

Installed distributions are made up on the path.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from vc_core import first_party
from vc_core.engine.wiring import known_plugins
from vc_core.engine.wiring.catalog import Catalog
from vc_core.spec import PluginLoadError, PluginNotFound


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Installs made-up distributions."""

    def install(dist: str, family: str, name: str, module: str, source: str) -> None:
        info = tmp_path / f"{dist}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[vc_core.{family}]\n{name} = {module}:Plugin\n")
        (tmp_path / f"{module}.py").write_text(source)

    monkeypatch.syspath_prepend(str(tmp_path))
    return install


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """The folder where it is remembered which plugins there are."""
    monkeypatch.setattr(known_plugins, "_folder", lambda: tmp_path / "memory")
    return tmp_path / "memory"


def test_a_plugin_is_found_with_its_distribution(site):
    site("apex-vc", "hypervisor", "apex", "apex_one", "class Plugin: pass\n")
    found = Catalog().find("hypervisor", "apex")
    assert (found.factory.__name__, found.distribution, found.version) == (
        "Plugin",
        "apex-vc",
        "1.2",
    )


def test_only_the_named_plugin_is_imported(site):
    site("broken-vc", "hypervisor", "broken", "broken_one", "raise RuntimeError('imported')\n")
    site("apex-vc", "hypervisor", "apex", "apex_two", "class Plugin: pass\n")
    Catalog().find("hypervisor", "apex")
    assert "broken_one" not in sys.modules
    with pytest.raises(PluginLoadError, match="'broken' of broken-vc cannot be imported: imported"):
        Catalog().find("hypervisor", "broken")


def test_a_name_offered_twice_is_an_error(site):
    site("one-vc", "storage", "twice", "twice_a", "class Plugin: pass\n")
    site("two-vc", "storage", "twice", "twice_b", "class Plugin: pass\n")
    with pytest.raises(PluginNotFound, match="offered by one-vc and two-vc; uninstall one of them"):
        Catalog().find("storage", "twice")


def test_a_missing_plugin_teaches(monkeypatch):
    monkeypatch.setitem(first_party.EXTRAS, ("hypervisor", "absent"), "absent")
    with pytest.raises(
        PluginNotFound,
        match=r"no hypervisor plugin 'absent'; installed: .*qemu.*virtcontainers\[absent\]",
    ):
        Catalog().find("hypervisor", "absent")
    with pytest.raises(PluginNotFound, match='did you mean "qemu"'):
        Catalog().find("hypervisor", "quemu")


def test_all_installed_are_told_with_their_state(site):
    site("broken-vc", "observer", "broken", "broken_two", "raise RuntimeError('no')\n")
    told = {(one.family, one.name): one.state for one in Catalog().installed()}
    assert told["storage", "fs"] == "loads"
    assert "cannot be imported: no" in told["observer", "broken"]


def test_listing_and_help_import_no_driver():
    forbidden = ("grpc", "qemu.qmp", "rich")
    for words in (["--help"], ["pod", "ls"]):
        code = (
            f"import sys; sys.argv = ['vc', *{words!r}]\n"
            "from vc_core.cli import main\n"
            "try: main()\nexcept SystemExit: pass\n"
            f"print([name for name in {forbidden!r} if name in sys.modules], file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert done.stderr.strip() == "[]", words


def test_roots_memory_leaves_the_guest_image_beside_it_to_other_users(tmp_path, monkeypatch):
    cache = tmp_path / "cache/virtcontainers"
    monkeypatch.setattr(known_plugins, "_folder", lambda: cache / "plugins")
    monkeypatch.setattr(known_plugins, "is_system_root", lambda: True)
    former = os.umask(0o077)
    try:
        assert known_plugins.recall() is None
    finally:
        os.umask(former)
    modes = [path.stat().st_mode & 0o777 for path in (cache.parent, cache, cache / "plugins")]
    assert modes == [0o755, 0o755, 0o700]


def test_where_plugins_are_is_remembered_until_one_is_added_or_changed(
    site, memory, tmp_path, monkeypatch
):
    site("apex-vc", "hypervisor", "apex", "apex_three", "class Plugin: pass\nclass Other: pass\n")
    assert known_plugins.recall() is None
    assert Catalog().find("hypervisor", "apex").version == "1.2"
    assert ("hypervisor", "apex") in known_plugins.recall()
    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "entry_points", None)  # not called again
        found = Catalog().find("hypervisor", "apex")
    assert (found.factory.__name__, found.distribution, found.version) == (
        "Plugin",
        "apex-vc",
        "1.2",
    )
    points = tmp_path / "apex-vc-1.2.dist-info/entry_points.txt"
    points.write_text("[vc_core.hypervisor]\napex = apex_three:Other\n")
    os.utime(points, ns=(1, 1))
    assert known_plugins.recall() is None
    assert Catalog().find("hypervisor", "apex").factory.__name__ == "Other"
    site("second-vc", "hypervisor", "apex", "apex_four", "class Plugin: pass\n")
    with pytest.raises(PluginNotFound, match="offered by apex-vc and second-vc"):
        Catalog().find("hypervisor", "apex")


@pytest.mark.parametrize("damage", ["", "garbage", "[]", '{"key": 1, "plugins": []}'])
def test_a_damaged_memory_of_plugins_is_written_anew(site, memory, damage):
    site("apex-vc", "hypervisor", "apex", "apex_five", "class Plugin: pass\n")
    Catalog().find("hypervisor", "apex")
    (file,) = memory.iterdir()
    file.write_text(damage)
    assert Catalog().find("hypervisor", "apex").distribution == "apex-vc"
    assert ("hypervisor", "apex") in known_plugins.recall()


def test_a_memory_of_plugins_that_others_can_write_is_not_used(site, memory):
    site("apex-vc", "hypervisor", "apex", "apex_six", "class Plugin: pass\n")
    Catalog().find("hypervisor", "apex")
    memory.chmod(0o777)
    assert known_plugins.recall() is None
    assert Catalog().find("hypervisor", "apex").distribution == "apex-vc"


_FIND = """
import sys
from pathlib import Path
from vc_core.engine.wiring import known_plugins
from vc_core.engine.wiring.catalog import Catalog
known_plugins._folder = lambda: Path(sys.argv[1])
Catalog().find("storage", "fs")
assert ("storage", "fs") in known_plugins.recall()
"""


def test_folders_without_permission_are_left_out_as_by_import(site, tmp_path):
    site("closed-vc", "storage", "fs", "closed_one", "class Plugin: pass\n")
    info, closed = tmp_path / "closed-vc-1.2.dist-info", tmp_path / "closed"
    closed.mkdir()
    for folder in (info, closed):
        folder.chmod(0)
    obeys = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]  # as users do
    done = subprocess.run(
        [*(obeys if os.geteuid() == 0 else []), sys.executable, "-P", "-c", _FIND, "memory"],
        env={**os.environ, "PYTHONPATH": f"{closed}:{tmp_path}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    for folder in (info, closed):
        folder.chmod(0o700)
    assert (done.returncode, done.stderr) == (0, "")


def test_paths_that_are_not_utf8_are_no_error(site, memory, tmp_path, monkeypatch):
    site("apex-vc", "hypervisor", "apex", "apex_seven", "class Plugin: pass\n")
    other = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    Path(other).mkdir()
    (tmp_path / "apex-vc-1.2.dist-info").rename(f"{other}/apex-vc-1.2.dist-info")
    monkeypatch.syspath_prepend(other)
    assert Catalog().find("hypervisor", "apex").distribution == "apex-vc"
    assert known_plugins.recall() is None


@pytest.mark.parametrize("folder", ["", "lib"])
def test_nothing_is_remembered_for_a_path_that_follows_the_current_folder(
    site, memory, tmp_path, monkeypatch, folder
):
    (tmp_path / "lib").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(folder)
    site("apex-vc", "hypervisor", "apex", "apex_eight", "class Plugin: pass\n")
    assert Catalog().find("hypervisor", "apex").distribution
    assert known_plugins.recall() is None


def test_a_plugin_that_is_added_while_others_are_read_is_not_missed(site, memory, monkeypatch):
    site("apex-vc", "hypervisor", "apex", "apex_nine", "class Plugin: pass\n")
    read = importlib.metadata.entry_points

    def slow():
        found = read()
        site("second-vc", "hypervisor", "apex", "apex_ten", "class Plugin: pass\n")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(importlib.metadata, "entry_points", slow)
        assert Catalog().find("hypervisor", "apex").distribution == "apex-vc"
    with pytest.raises(PluginNotFound, match="offered by apex-vc and second-vc"):
        Catalog().find("hypervisor", "apex")


def test_a_memory_that_is_exchanged_after_its_check_is_not_used(
    site, memory, tmp_path, monkeypatch
):
    site("apex-vc", "hypervisor", "apex", "apex_eleven", "class Plugin: pass\n")
    Catalog().find("hypervisor", "apex")
    (file,) = memory.iterdir()
    good = file.read_bytes()
    moved, planted = tmp_path / "moved", tmp_path / "planted"
    planted.mkdir()
    (planted / file.name).write_text("planted")
    checked = known_plugins.opened_private_folder

    @contextmanager
    def exchanged(path, setting):
        with checked(path, setting) as place:
            path.rename(moved)
            planted.rename(path)
            yield place
            path.rename(planted)
            moved.rename(path)

    monkeypatch.setattr(known_plugins, "opened_private_folder", exchanged)
    found = known_plugins.recall()
    assert ("hypervisor", "apex") in found
    file.unlink()
    known_plugins.remember(found.values(), known_plugins.key())
    assert [one.name for one in memory.iterdir()] == [file.name]
    assert file.read_bytes() == good
    assert [one.read_text() for one in planted.iterdir()] == ["planted"]
