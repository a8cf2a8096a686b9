"""Mount points whose names other users have chosen stop nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

_NAMES = (b"no-text-\xff", b"a\rb", b"a\x0cb", "a\u2028b".encode(), "a\x85b".encode())
_READERS = """
import os, pathlib, subprocess, sys
from vc_core.driver_kit import mountinfo
from vc_qemu.jail import limits, root
from vc_runtime import cgroups
from vc_storage_fs.files import remove_folder

folder = os.fsencode(sys.argv[1])
names = [bytes.fromhex(one) for one in sys.argv[2:]]
for name in names:
    os.mkdir(folder + b"/" + name)
    subprocess.run([b"mount", b"-t", b"tmpfs", b"none", folder + b"/" + name], check=True)
points = {os.fsencode(str(one.point)) for one in mountinfo.points()}
assert {folder + b"/" + name for name in names} <= points, points
assert len(root._mounts()) == len(mountinfo.points())
try:
    limits._controllers()
except FileNotFoundError as error:
    assert error.filename in ("memory", "pids"), error
cgroups.remove("vc-test-none")
remove_folder(pathlib.Path(sys.argv[1]) / "none")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts for a test")
def test_names_that_are_no_text_or_have_line_ends_are_read(tmp_path):
    words = [str(tmp_path), *(name.hex() for name in _NAMES)]
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", _READERS, *words],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
