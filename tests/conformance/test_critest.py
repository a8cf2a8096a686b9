"""What critest's reports mean, and what counts as a failure."""

from __future__ import annotations

import pytest

from conformance import critest
from conformance.building import Unusable
from conformance.containerd import Engine

REPORT = """<testsuites><testsuite>
<testcase name="[SynchronizedBeforeSuite]" status="passed"/>
<testcase name="[It] [k8s.io] Pods start" status="passed"/>
<testcase name="[It] [k8s.io] Pods end" status="failed"/>
<testcase name="[It] [k8s.io] Pods hang" status="timedout"/>
<testcase name="[It] [k8s.io] Pods on Windows" status="skipped"/>
</testsuite></testsuites>"""


def test_tests_that_were_run_are_read():
    found = critest.read(REPORT)
    assert found == {"Pods start": True, "Pods end": False, "Pods hang": False}
    assert critest.cell(found) == "1 of 3"


def test_a_test_may_fail_as_the_page_says(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "| program | points | why |\n|---|---|---|\n| `bad` | 2 | a reason |\n\n"
        "| test | why |\n|---|---|\n| `Pods end [Now]` | a reason |\n"
    )
    allowed = critest.exceptions(page)
    assert allowed == {"Pods end [Now]"}
    assert critest.complaints({"Pods end [Now]": False, "Pods start": True}, {}, allowed) == []
    assert critest.complaints({"Pods start": False}, {}, allowed) == [
        "Pods start: fails, and is no known exception"
    ]


def test_a_test_that_only_others_run_is_told():
    assert critest.complaints({}, {"runc": {"Pods start": True, "Pods end": False}}, set()) == [
        "Pods start: passes with runc, and is skipped here"
    ]


def test_runtimes_stand_side_by_side():
    found = {"vc-runtime": {"a": True, "b": False}, "runc": {"a": True}}
    assert critest.table(found).splitlines() == [
        "b: fails with vc-runtime, skipped with runc",
        "1 of 2  vc-runtime",
        "1 of 1  runc",
    ]


def test_a_critest_that_does_not_end_is_unusable(tmp_path, monkeypatch):
    program = tmp_path / "critest"
    program.write_text("#!/bin/sh\nexec sleep 1000\n")
    program.chmod(0o755)
    monkeypatch.setattr(critest, "_LIMIT_S", 0)
    monkeypatch.setattr(critest, "_END_S", 0.1)
    with pytest.raises(Unusable, match="has not ended"):
        critest.run(program, Engine("", (), "", tmp_path, 0), "vc", "", tmp_path / "log")
