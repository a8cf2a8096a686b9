"""What counts as a failure of conformance."""

from __future__ import annotations

from conformance import reports
from conformance.reports import Report

TAP = """TAP version 13
ok 1 - one
ok 2 # SKIP linux.uidMappings not set
not ok 3 - three
  ---
  { "error": "x" }
  ...
1..3
"""


def test_points_are_counted():
    assert reports.read(TAP, 0) == Report(passed=1, failed=1, is_complete=True)
    assert not reports.read(TAP, 0).is_clean
    assert reports.read("ok 1 - one\n1..1\n", 0).is_clean


def test_an_exit_code_a_time_limit_and_an_error_without_points_are_failures():
    for text, code in (("ok 1\n", 1), ("ok 1\n", None), ('  { "error": "x" }\n1..0\n', 0)):
        assert not reports.read(text, code).is_clean
    assert reports.read("TAP version 13\n1..0\n", 0).is_clean


def test_a_program_may_fail_as_the_page_says(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("| program | points | why |\n|---|---|---|\n| `bad` | 2 | a reason |\n")
    allowed = reports.exceptions(page)
    assert allowed == {"bad": 2}
    good, bad, worse = (Report(passed=1, failed=count, is_complete=True) for count in (0, 2, 3))
    assert reports.complaints({"good": good, "bad": bad}, allowed) == []
    assert reports.complaints({"bad": worse}, allowed) == [
        "bad: 3 points fail, at most 2 are known"
    ]
    assert reports.complaints({"new": bad}, allowed) == [
        "new: is not clean, and no known exception"
    ]


def test_runtimes_stand_side_by_side():
    one, other = Report(2, 0, True), Report(1, 1, False)
    assert reports.table({"vc-runtime": {"p": one}, "runc": {"p": other}}).splitlines() == [
        "program             vc-runtime  runc",
        "p                   2 / 0       1 / 1 error",
        "clean programs      1 of 1      0 of 1",
        "points ok / not ok  2 / 0       1 / 1",
    ]
