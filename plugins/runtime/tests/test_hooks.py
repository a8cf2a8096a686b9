"""Which namespace hooks look for, and what is kept of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from vc_runtime.hooks import _namespace, deleted, in_network_of
from vc_runtime.records import Record, Records

NETWORK = {"namespaces": [{"type": "pid"}, {"type": "network"}]}
HOOKS = {"prestart": [{"path": "/bin/true"}]}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"hooks": HOOKS, "linux": NETWORK}, ""),
        (
            {"hooks": HOOKS, "linux": {"namespaces": [{"type": "network", "path": "/n"}]}},
            "/n",
        ),
        ({"hooks": {"createContainer": [{}]}, "linux": NETWORK}, ""),
        ({"hooks": {"poststop": [{}], "prestart": []}, "linux": NETWORK}, None),
        ({"hooks": None, "linux": NETWORK}, None),
        ({"hooks": HOOKS, "linux": {"namespaces": [{"type": "pid"}]}}, None),
        ({"hooks": HOOKS}, None),
        ({"hooks": [1], "linux": NETWORK}, None),
        ({"hooks": HOOKS, "linux": {"namespaces": [1]}}, None),
        ([], None),
    ],
)
def test_a_namespace_is_entered_only_for_hooks_that_look_for_it(tmp_path, document, path):
    (tmp_path / "config.json").write_text(json.dumps(document))
    assert _namespace(tmp_path) == path


def test_a_config_that_is_wrong_is_left_to_who_reads_it_next(tmp_path):
    assert in_network_of(tmp_path, lambda: ["done"]) == ["done"]
    (tmp_path / "config.json").write_text("{")
    assert in_network_of(tmp_path, lambda: ["done"]) == ["done"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a network namespace for a test")
def test_the_work_is_done_in_the_callers_namespace_and_its_errors_are_told(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"hooks": HOOKS, "linux": NETWORK}))
    # Of a child: the first thread does not come back.
    script = """
import os, pathlib, sys
from vc_runtime.hooks import in_network_of

folder = pathlib.Path(sys.argv[1])
before = os.readlink("/proc/thread-self/ns/net")

def work():
    return [str(os.readlink("/proc/thread-self/ns/net") == before)]

def fail():
    raise RuntimeError("told")

print(in_network_of(folder, work), os.readlink("/proc/self/ns/net") == before)
try:
    in_network_of(folder, fail)
except RuntimeError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, check=True
    )
    assert done.stdout == b"['True'] False\ntold\n"


async def test_a_damaged_file_of_hooks_keeps_nobody_from_deleting(tmp_path, caplog):
    records = Records(tmp_path / "root")
    fields = {"pod": "", "container": "c", "owns_pod": False, "bundle": "/b", "created_ns": 0}
    records.add(Record(id="c", annotations={}, environment={}, **fields))
    assert records.hooks("c") == b""
    records.put_hooks("c", b"{")
    await deleted(records, "c")
    assert "its hooks are not run" in caplog.text
