"""A guest that answers wrong in every way gets nothing: each command ends, in one line, with little
memory.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import grpc
import pytest

from tests.hostile.agent import RawPeer
from tests.hostile.answers import drops, refuses, says, silent
from tests.hostile.conftest import DEADLINE_S, Done, HostileHost

_MIB = 1 << 20
_FLOOD_S = 6
_SETTINGS = b"\0\0\0\4\0\0\0\0\0"  # an empty frame of HTTP/2, RFC 9113
_UNKNOWN = b"\0\x40\0\x77\0\0\0\0\0" + bytes(1 << 14)
_PING = b"\0\0\x08\6\0\0\0\0\0" + bytes(8)


# Those that become errors of different kinds.
_REFUSALS = (
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
)


def commands(host: HostileHost) -> list[list[str]]:
    """What a user types about a pod, in an order in which nothing hinders what follows.

    The pod is called box.
    """
    root, kept = str(host.folder / "root"), host.folder / "kept"
    return [
        ["exec", "box", "ls"],
        ["exec", "-d", "box", "ls"],
        ["exec", "--timeout", "0.2", "box", "ls"],
        ["attach", "box"],
        ["logs", "box"],
        ["ps"],
        ["inspect", "box"],
        ["pod", "status", "box"],
        ["container", "status", "box"],
        ["container", "ps", "box"],
        ["container", "ps", "--args", "-ef", "box"],
        ["stats", "--no-stream", "--interval", "0.1", "box"],
        ["cp", "box:/etc/hosts", str(kept / "into/hosts")],
        ["cp", "box:/etc", "-"],
        ["cp", str(kept / ".bashrc"), "box:/tmp/"],
        ["pod", "snapshot", "box", "saved"],
        ["pod", "fork", "box"],
        ["container", "update", "--memory", "64M", "box"],
        ["container", "kill", "box"],
        ["container", "create", "--name", "second", "--rootfs", root, "box", "--", "true"],
        ["container", "stop", "--grace", "0.2", "box", "box"],
        ["container", "delete", "-f", "box", "box"],
        ["run", "--timeout", "0.2", "--rootfs", root, "--", "true"],
        ["pod", "delete", "box"],
        ["pod", "ls"],
        ["events"],
    ]


def few_commands(host: HostileHost) -> list[list[str]]:
    """Some of them, for a guest that is waited for at each one."""
    kept = str(host.folder / "kept/into/hosts")
    return [
        ["exec", "box", "ls"],
        ["ps"],
        ["stats", "--no-stream", "--interval", "0.1", "box"],
        ["cp", "box:/etc/hosts", kept],
        ["logs", "box"],
        ["container", "delete", "-f", "box", "box"],
        ["pod", "delete", "box"],
        ["pod", "ls"],
    ]


def is_kept(host: HostileHost) -> bool:
    """Whether what lies beside the target of a copy is as it was."""
    kept = host.folder / "kept"
    return (kept / ".bashrc").read_text() == "mine" and {one.name for one in kept.iterdir()} == {
        ".bashrc",
        "into",
    }


def check(host: HostileHost, done: list[Done]) -> None:
    """Fails with all that went wrong."""
    wrong = {one.words: problems for one in done if (problems := one.problems())}
    assert not wrong
    assert is_kept(host)
    (gone,) = [one for one in done if one.words == ("pod", "delete", "box")]
    assert gone.code == 0, gone
    (left,) = [one for one in done if one.words == ("pod", "ls")]
    assert len(left.stdout.splitlines()) == 1, "something of a pod is left"


# --- everything is wrong --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        *(pytest.param(refuses(code), id=code.name.lower()) for code in _REFUSALS),
        pytest.param(refuses(grpc.StatusCode.INTERNAL, "long " * 4000), id="long-text"),
        pytest.param(says(b"\xff" * 100), id="no-message"),
        pytest.param(says(bytes(64 * _MIB)), id="large-message"),
        pytest.param(says(b"\x0a\x02" * 500_000), id="many-rows"),
    ],
)
def test_an_agent_that_answers_everything_wrong(hostile, answer):
    hostile.run()
    hostile.agent.all_wrong = answer
    check(hostile, [hostile.vc(*words) for words in commands(hostile)])


@pytest.mark.parametrize(
    ("method", "code"),
    [
        pytest.param("Negotiate", grpc.StatusCode.NOT_FOUND, id="no-connection"),
        pytest.param("ListContainers", grpc.StatusCode.NOT_FOUND, id="no-containers"),
        pytest.param("ListContainers", grpc.StatusCode.INVALID_ARGUMENT, id="refused"),
        pytest.param("ContainerStats", grpc.StatusCode.NOT_FOUND, id="no-stats"),
        pytest.param("Wait", grpc.StatusCode.NOT_FOUND, id="no-process"),
    ],
)
def test_a_guest_does_not_hide_its_pod_by_an_error(hostile, method, code):
    """These errors of an agent are about containers and processes, not about the pod."""
    hostile.run()
    hostile.agent.wrong[method] = refuses(code, "there is no such thing")
    for words in (
        ["ps"],
        ["pod", "ls"],
        ["pod", "status", "box"],
        ["inspect", "box"],
        ["stats", "--no-stream", "--interval", "0.1"],
    ):
        done = hostile.vc(*words)
        assert (done.code, done.problems()) == (0, [])
        assert b"box" in done.stdout
        assert b"damaged" not in done.stdout
    deleted = hostile.vc("pod", "delete", "box")
    assert (deleted.code, deleted.problems()) == (0, [])


def test_a_guest_does_not_end_the_look_at_its_pod_by_an_error(hostile):
    """It says of its container's process that there is none: its end is still looked for."""
    hostile.run()
    hostile.agent.wrong["Wait"] = refuses(grpc.StatusCode.NOT_FOUND)
    with hostile.follow("events", "--follow") as follower:
        follower.screen.expect_exact("pod_started")
        while hostile.agent.calls.acquire(blocking=False):
            """Those before do not count."""
        for _ in range(6):  # it asks again and again
            assert hostile.agent.calls.acquire(timeout=60)
        follower.interrupt()
    assert hostile.vc("pod", "delete", "box").code == 0


def test_an_agent_that_is_silent(hostile):
    hostile.run()
    hostile.agent.all_wrong = silent
    check(hostile, [hostile.vc(*words) for words in few_commands(hostile)])


def test_an_agent_whose_connection_breaks_at_every_call(hostile):
    hostile.run()
    hostile.agent.all_wrong = drops(hostile.agent)
    check(hostile, [hostile.vc(*words) for words in commands(hostile)])


def pings(connection: socket.socket) -> None:
    """A peer that pings for ever, and reads the answers."""
    threading.Thread(target=drains, args=(connection,), daemon=True).start()
    repeats(_PING * 1000)(connection)


def drains(connection: socket.socket) -> None:
    """Reads until the end."""
    with contextlib.suppress(OSError):
        while connection.recv(1 << 16):
            pass


def headers_without_end(connection: socket.socket, stream: int) -> None:
    """Headers of a stream in CONTINUATION frames; streams 2 and 3 are ones that nobody opened."""
    number = stream.to_bytes(4, "big")
    connection.sendall(_SETTINGS + b"\0\0\0\1\0" + number)
    while True:
        connection.sendall(b"\0\x40\0\x09\0" + number + b"\x40\x7f\x80\x7f".ljust(1 << 14, b"a"))


def repeats(frames: bytes) -> Callable[[socket.socket], None]:
    """A peer that greets and then sends these frames for ever."""

    def play(connection: socket.socket) -> None:
        connection.sendall(_SETTINGS)
        while True:
            connection.sendall(frames)

    return play


@pytest.mark.parametrize(
    "play",
    [
        pytest.param(lambda _: None, id="says-nothing"),
        pytest.param(lambda connection: connection.close(), id="hangs-up"),
        pytest.param(
            lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(_MIB)),
            id="other-protocol",
        ),
        pytest.param(lambda connection: connection.sendall(_SETTINGS), id="stops-after-a-greeting"),
        pytest.param(pings, id="pings"),
        pytest.param(lambda peer: headers_without_end(peer, 1), id="headers-without-end"),
        pytest.param(lambda peer: headers_without_end(peer, 2), id="headers-of-no-stream"),
        pytest.param(lambda peer: headers_without_end(peer, 3), id="headers-of-a-later-stream"),
        pytest.param(repeats(_SETTINGS * 2000), id="settings"),
        pytest.param(repeats(b"\0\0\4\x08\0\0\0\0\1\0\0\0\1" * 1000), id="window-updates"),
        pytest.param(repeats(_UNKNOWN), id="unknown-frames"),
    ],
)
def test_a_guest_that_does_not_speak_the_protocol(hostile, play: Callable[[socket.socket], None]):
    hostile.run()
    hostile.agent.end()
    peer = RawPeer(hostile.agent.path, play)
    peer.begin()
    try:
        check(hostile, [hostile.vc(*words) for words in few_commands(hostile)])
    finally:
        peer.end()


def peak_mib(host: HostileHost, play: Callable[[socket.socket], None]) -> float:
    """What a command needs whose only answer is this play."""
    peer = RawPeer(host.agent.path, play)
    peer.begin()
    try:
        done = host.vc("exec", "box", "ls")
    finally:
        peer.end()
    assert done.code == 125, done
    return done.peak_mib


def test_memory_does_not_grow_with_the_length_of_a_flood(hostile):
    hostile.run()
    hostile.agent.end()
    hostile.configure(_FLOOD_S)
    calm = peak_mib(hostile, lambda _: None)
    for play in (repeats(_UNKNOWN), lambda peer: headers_without_end(peer, 3)):
        assert peak_mib(hostile, play) - calm < 16
    hostile.configure(DEADLINE_S)
    assert hostile.vc("pod", "delete", "box").code == 0
