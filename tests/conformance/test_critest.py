"""What critest's reports mean, and what counts as a failure."""

from __future__ import annotations

from conformance import critest

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
