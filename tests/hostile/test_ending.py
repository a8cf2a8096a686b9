"""A container that a hostile guest does not end or remove: what ends it all the same."""

from __future__ import annotations

import grpc
import pytest

from tests.hostile.answers import refuses, says, silent

_FAILURES = {
    "refuses": refuses(grpc.StatusCode.INTERNAL),
    "says-not-found": refuses(grpc.StatusCode.NOT_FOUND),
    "says-ended": refuses(grpc.StatusCode.FAILED_PRECONDITION),
    "no-message": says(b"\xff" * 100),
    "silent": silent,
}


@pytest.mark.parametrize("answer", _FAILURES.values(), ids=_FAILURES)
def test_deleting_the_only_container_by_force_ends_the_machine_that_keeps_it(hostile, answer):
    hostile.run()
    hostile.agent.all_wrong = answer
    stopped = hostile.vc("container", "stop", "--grace", "0.1", "box", "box")
    assert (stopped.code, stopped.problems()) == (125, [])
    assert "ends the machine" in stopped.stderr[-1]
    asked = hostile.vc("container", "delete", "box", "box")
    assert (asked.code, asked.problems()) == (125, [])
    done = hostile.vc("container", "delete", "-f", "box", "box")
    assert (done.code, done.problems()) == (0, [])
    assert "vc: warning: the machine of pod box is ended" in done.stderr[-1]
    pod = hostile.vc("pod", "status", "box").stdout.decode()
    assert "stopped" in pod
    assert hostile.vc("container", "ls", "box").stdout.count(b"\n") == 1
    assert hostile.vc("pod", "delete", "box").code == 0


def test_others_in_the_machine_are_not_ended_with_a_container_that_is_deleted_by_force(hostile):
    hostile.run()
    hostile.configure(60)
    root = str(hostile.folder / "root")
    assert (
        hostile.vc(
            "container", "create", "--name", "other", "--rootfs", root, "box", "--", "true"
        ).code
        == 0
    )
    assert hostile.vc("container", "start", "box", "other").code == 0
    hostile.agent.wrong["RemoveContainer"] = refuses(grpc.StatusCode.INTERNAL)
    done = hostile.vc("container", "delete", "-f", "box", "box")
    assert (done.code, done.problems()) == (125, [])
    assert done.stderr[-1].count("'vc pod delete --force box' ends the machine") == 1
    assert "running" in hostile.vc("pod", "status", "box").stdout.decode()
    assert hostile.vc("pod", "delete", "--force", "box").code == 0
