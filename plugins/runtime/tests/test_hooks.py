"""What is kept of hooks."""

from __future__ import annotations

from vc_runtime.hooks import deleted
from vc_runtime.records import Record, Records


async def test_a_damaged_file_of_hooks_keeps_nobody_from_deleting(tmp_path, caplog):
    records = Records(tmp_path / "root")
    fields = {"pod": "", "container": "c", "owns_pod": False, "bundle": "/b", "created_ns": 0}
    records.add(Record(id="c", annotations={}, environment={}, **fields))
    assert records.hooks("c") == b""
    records.put_hooks("c", b"{")
    await deleted(records, "c")
    assert "its hooks are not run" in caplog.text
