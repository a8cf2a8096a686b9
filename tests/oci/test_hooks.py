"""What becomes of hooks in a bundle's config.json."""

from __future__ import annotations

import json

import pytest

from tests.oci.test_bundle import load
from vc_core import oci
from vc_core.spec import ConfigError


def test_hooks_of_all_six_kinds_are_read(tmp_path):
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart")
    hooks = {kind: [{"path": f"/{kind}", "timeout": 3}] for kind in (*kinds, "poststop")}
    process = {"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}}
    document = {"ociVersion": "1.0.2", "process": process, "root": {"path": "r"}, "hooks": hooks}
    (tmp_path / "config.json").write_text(json.dumps(document))
    found = oci.load(tmp_path, "c").container.hooks
    assert [
        [str(one.path) for one in getattr(found, name)] for name in found.__struct_fields__
    ] == [
        ["/prestart", "/createRuntime"],
        ["/createContainer"],
        ["/startContainer"],
        ["/poststart"],
        ["/poststop"],
    ]
    assert found.start_container[0].timeout_s == 3


def test_a_hook_with_a_nul_is_refused(tmp_path):
    hooks = {"poststop": [{"path": "/x", "args": ["x", "a\0b"]}]}
    with pytest.raises(ConfigError, match=r"hooks\.poststop\[0\]\.args: .* must not contain NUL"):
        load(tmp_path, hooks=hooks)
