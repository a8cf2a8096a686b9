"""What a pod leaves on the host is its user's alone, whatever the umask."""

from __future__ import annotations

import os
import stat

import pytest

pytestmark = pytest.mark.needs("snapshot")


def test_no_file_of_ours_is_open_to_others(host, busybox):
    before = os.umask(0)
    try:
        host.vc("image", "import", str(busybox), "box")
        host.vc("volume", "create", "kept")
        host.vc("run", "-d", "--name", "p", "box", "sh", "-c", "echo hello; sleep 1000")
        host.vc("pod", "snapshot", "p", "saved")
    finally:
        os.umask(before)
    found = [
        path
        for path in host.folder.rglob("*")
        if not path.is_symlink() and "kept" not in path.parts
    ]
    kinds = {
        path: path.stat().st_mode
        for path in found
        if path != busybox and busybox not in path.parents
    }
    open_ones = {
        str(path.relative_to(host.folder)): stat.filemode(mode)
        for path, mode in kinds.items()
        if mode & 0o077 and not stat.S_ISSOCK(mode) and path != host.config_file
    }
    assert open_ones == {}
    host.vc("pod", "delete", "--force", "p")
