"""The caller's control groups."""

from __future__ import annotations

import logging

from vc_runtime import cgroups


def test_a_group_that_is_not_removed_is_told_and_no_obstacle(tmp_path, monkeypatch, caplog):
    odd, gone, plain = tmp_path / "odd", tmp_path / "gone", tmp_path / "plain"
    odd.write_text("")  # fails with an error that nobody has thought of
    plain.mkdir()
    monkeypatch.setattr(cgroups, "_folders", lambda _: (odd, gone, plain))
    with caplog.at_level(logging.WARNING):
        assert cgroups.remove("group") == (str(odd),)
    assert not plain.exists()
    assert [record.getMessage() for record in caplog.records] == [
        f"{odd} is not removed: Not a directory"
    ]
