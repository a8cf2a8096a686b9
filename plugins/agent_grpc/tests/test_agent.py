"""The agent itself, as an ordinary process on a unix socket: what it answers, and what the host's
side makes of it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import grpc
import grpc.aio
import pytest
from vc_agent_grpc import checked_answers, client, oci_spec
from vc_agent_grpc.image import agent_program
from vc_agent_grpc.options import SYSTEM_CACHE

from vc_core.spec import (
    AgentError,
    AgentRefusal,
    AlreadyExists,
    CannotExecute,
    ExitStatus,
    InvalidRequest,
    NotFound,
    ProcessSpec,
    Stdio,
)

pytestmark = pytest.mark.vm


@pytest.fixture
def socket(tmp_path):
    program = SYSTEM_CACHE / "agent" / agent_program.source_digest() / "vc-agent"
    if not program.exists():
        pytest.skip("the agent has not been built ('vc guest build')")
    path = tmp_path / "agent.sock"
    agent = subprocess.Popen([program, "--socket", path], stderr=subprocess.PIPE)
    while not path.exists():
        assert agent.poll() is None, agent.stderr.read()
    yield f"unix:{path}"
    agent.kill()
    agent.communicate()


@pytest.fixture
async def connected(socket):
    found = await client.connect(socket)
    yield found
    await found.close()


async def test_versions_are_agreed_on(connected):
    assert connected.info.protocol == client.NEWEST_PROTOCOL
    assert "overlay" in connected.info.features
    assert connected.info.kernel == Path("/proc/sys/kernel/osrelease").read_text().strip()


async def test_versions_that_do_not_meet_are_told(socket, monkeypatch):
    spoken = client.NEWEST_PROTOCOL
    monkeypatch.setattr(client, "OLDEST_PROTOCOL", 7)
    monkeypatch.setattr(client, "NEWEST_PROTOCOL", 9)
    with pytest.raises(
        AgentError, match=rf"speaks protocol {spoken}, this client 7 to 9; run 'vc guest build'"
    ):
        await client.connect(socket)


async def test_what_the_guest_does_not_have_is_not_found(connected):
    process = ProcessSpec(args=("true",))
    for call in (
        connected.start_container("c"),
        connected.execute("c", "t", process, Stdio.NULL),
        connected.wait("c", "t"),
        connected.signal("c", "t", 15),
        connected.list_processes("c"),
        connected.attach("c", "t"),
    ):
        with pytest.raises(NotFound, match="no container c in this guest"):
            await call
    await connected.remove_container("c")
    assert await connected.list_containers() == ()


async def test_a_broken_connection_is_an_agents_error(socket):
    found = await client.connect(socket)
    await found.close()
    with pytest.raises(Exception, match=r"closed|cancelled"):
        await found.list_containers()


def test_an_agent_that_is_not_pid_1_wants_a_socket():
    program = SYSTEM_CACHE / "agent" / agent_program.source_digest() / "vc-agent"
    if not program.exists():
        pytest.skip("the agent has not been built ('vc guest build')")
    done = subprocess.run([program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "elsewhere say --socket PATH" in done.stderr


class Refusal(grpc.aio.AioRpcError):
    """A status as the agent sends it."""

    def __init__(self, code, details) -> None:
        super().__init__(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details)


def refused(reason, code=grpc.StatusCode.FAILED_PRECONDITION, key="vc-reason"):
    """A call that the agent refuses for a reason."""

    @client.translated
    async def call():
        metadata = grpc.aio.Metadata((key, reason))
        raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, "text of the guest")

    return call()


@pytest.mark.parametrize(
    ("reason", "is_missing"),
    [("REASON_PROGRAM_MISSING", True), ("REASON_PROGRAM_NOT_EXECUTABLE", False)],
)
async def test_what_is_wrong_with_a_program_is_said_beside_the_text(reason, is_missing):
    with pytest.raises(CannotExecute, match="text of the guest") as caught:
        await refused(reason)
    assert caught.value.is_missing is is_missing


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("REASON_NO_CONTAINER", NotFound),
        ("REASON_NO_PROCESS", NotFound),
        ("REASON_CONTAINER_EXISTS", AlreadyExists),
        ("REASON_INVALID_REQUEST", InvalidRequest),
        ("REASON_NO_TERMINAL", AgentRefusal),
    ],
)
async def test_a_reason_decides_which_error_it_is(reason, kind):
    for code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.FAILED_PRECONDITION):
        with pytest.raises(kind, match="text of the guest") as caught:
            await refused(reason, code)
        assert type(caught.value) is kind


@pytest.mark.parametrize(
    "reason", ["", "REASON_", "9", "REASON_PROGRAM_MISSING ", "x" * 5000, "reason_no_container"]
)
async def test_a_reason_that_is_none_decides_nothing(reason):
    with pytest.raises(AgentRefusal, match="text of the guest"):
        await refused(reason)


@pytest.mark.parametrize(("word", "is_missing"), [("missing", True), ("not-executable", False)])
async def test_an_older_agent_says_by_a_refusal_what_is_wrong_with_a_program(word, is_missing):
    with pytest.raises(CannotExecute, match="text of the guest") as caught:
        await refused(word, key="vc-refusal")
    assert caught.value.is_missing is is_missing


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.NOT_FOUND, NotFound),
        (grpc.StatusCode.INTERNAL, AgentRefusal),
        (grpc.StatusCode.UNAVAILABLE, AgentError),
    ],
)
async def test_status_codes_become_the_contracts_errors(code, kind):
    @client.translated
    async def call():
        raise Refusal(code, "words")

    with pytest.raises(kind, match="words"):
        await call()


def test_the_environment_keeps_its_equal_signs():
    process = ProcessSpec(args=("env",), env=("A=b=c", "EMPTY=", "QUOTED='x'"))
    assert oci_spec.process_of(process)["env"] == ["A=b=c", "EMPTY=", "QUOTED='x'"]


def test_a_terminal_has_a_kind_and_a_size():
    found = oci_spec.process_of(ProcessSpec(args=("sh",), terminal=True, rows=5, columns=7))
    assert found["consoleSize"] == {"height": 5, "width": 7}
    assert "TERM=xterm" in found["env"]


def test_an_end_by_a_signal():
    from vc_agent_grpc._generated import agent_pb2 as pb

    assert checked_answers.exit_status(pb.WaitReply(exit_code=143, signal=15)) == ExitStatus(
        code=143, signal=15
    )
