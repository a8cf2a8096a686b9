"""Commands that go on until Ctrl-C, with a guest that answers wrong or not at all: they go on, take
little memory, and end at Ctrl-C.
"""

from __future__ import annotations

import grpc
import pytest

from tests.hostile.agent import Answer
from tests.hostile.answers import drops, refuses, says, silent
from tests.hostile.conftest import MAX_MIB, HostileHost
from tests.hostile.test_log import block, record

_MIB = 1 << 20
_CALLS = 6  # more than one round of questions

_ANSWERS = {
    "refused": refuses(grpc.StatusCode.INTERNAL),
    "not-found": refuses(grpc.StatusCode.NOT_FOUND),
    "unavailable": refuses(grpc.StatusCode.UNAVAILABLE),
    "long-text": refuses(grpc.StatusCode.INTERNAL, "long " * 4000),
    "no-message": says(b"\xff" * 100),
    "large-message": says(bytes(64 * _MIB)),
    "many-rows": says(b"\x0a\x02" * 500_000),
    "silent": silent,
    "breaks": None,
}


@pytest.fixture(params=_ANSWERS.values(), ids=_ANSWERS)
def box(hostile: HostileHost, request: pytest.FixtureRequest) -> HostileHost:
    """A host whose pod box has an agent that answers everything wrong."""
    hostile.run()
    answer: Answer | None = request.param
    hostile.agent.all_wrong = answer or drops(hostile.agent)
    while hostile.agent.calls.acquire(blocking=False):
        """Those of the start do not count."""
    return hostile


def check(host: HostileHost, *words: str, shows: str, calls: int, interrupts: int = 1) -> None:
    """Fails when a command ends by itself, or does not end by so many Ctrl-C."""
    with host.follow(*words) as follower:
        follower.screen.expect_exact(shows)
        for _ in range(calls):
            assert host.agent.calls.acquire(timeout=60)
        assert follower.screen.isalive()
        code, text, peak_mib = follower.interrupt(interrupts)
    assert code in (0, 130), text
    assert "Traceback" not in text
    assert "a bug in vc" not in text
    assert peak_mib < MAX_MIB
    assert host.vc("pod", "delete", "box").code == 0


def test_events_are_followed_until_ctrl_c(box):
    check(box, "events", "--follow", shows="pod_started", calls=_CALLS)


def test_the_live_screen_goes_on_until_ctrl_c(box):
    check(box, "top", "--interval", "0.1", shows="box", calls=_CALLS)


def test_use_is_shown_until_ctrl_c(box):
    check(box, "stats", "--interval", "0.1", shows="no answer", calls=_CALLS)


def test_a_log_is_followed_until_ctrl_c(hostile):
    """Nobody asks the guest for it."""
    hostile.run()
    hostile.agent.all_wrong = silent
    with hostile.log().open("r+b") as disk:
        disk.write(block(1, record(b"a line\n")))
    check(hostile, "logs", "-f", "box", shows="a line", calls=0)
