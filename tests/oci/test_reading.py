"""How members of a bundle's objects are taken."""

from __future__ import annotations

import logging

from vc_core.oci.reading import Reader


def test_what_the_specification_does_not_have_is_ignored_with_a_warning(caplog):
    """Engines are newer than this, and write their own: config.md, "Extensibility"."""
    problems: list[str] = []
    member = {"path": "r", "unknown": {"a": 1}, "x" * 5000: 1}
    with caplog.at_level(logging.WARNING):
        Reader(member, "root", problems).refuse_others(("path",))
    assert problems == []
    first, second = caplog.messages
    assert first == "root.unknown: is unknown and has no effect"
    assert len(second) < 200


def test_what_the_specification_has_is_refused_where_it_would_change_the_container():
    problems: list[str] = []
    Reader({"intelRdt": {"closID": "x"}, "timeOffsets": {}}, "linux", problems).refuse_others(())
    assert problems == ["linux.intelRdt: not supported; remove it"]
