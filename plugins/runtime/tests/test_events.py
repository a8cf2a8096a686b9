"""The times of `events`."""

from __future__ import annotations

import pytest
from vc_runtime import events
from vc_runtime.errors import RuntimeFailure


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("500ms", 0.5), ("1m30s", 90), ("1.5h", 5400), ("3us", 3e-6), ("2m", 120)],
)
def test_an_interval_is_one_of_go(text, seconds):
    assert events._seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "0s", "-1s", "s", "5 s", "1d", "1s\n", "9" * 30 + "s"])
def test_what_is_no_time_above_0_is_refused(text):
    with pytest.raises(RuntimeFailure, match="is not a time above 0"):
        events._seconds(text)
