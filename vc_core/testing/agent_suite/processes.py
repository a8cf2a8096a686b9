"""Rules of processes in a container, their streams, signals and ends."""

from __future__ import annotations

import asyncio
import signal

from vc_core.spec import (
    AgentError,
    CannotExecute,
    InvalidRequest,
    StateError,
    Stdio,
    StreamName,
)
from vc_core.testing.agent_suite.subject import (
    ECHOES,
    ENDS,
    FOLDER,
    LIVES,
    MISSING,
    AgentSubject,
    process,
)
from vc_core.testing.rules import fails_with, rule, time_limit


class ProcessRules:
    """Rules of processes in a container, their streams, signals and ends."""

    @rule("agent_list_processes", "Returns the processes of one container that have not ended.")
    async def test_processes_are_listed(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            await guest.run("d", LIVES)
            found = await guest.agent.agent_list_processes(pod=guest.pod, container_id="c")
        assert [one.command[-2:] for one in found] == [LIVES], f"it lists {found}"

    @rule("agent_exec", "Starts a further process, identified by `token`, in a started container.")
    async def test_one_more_process_runs(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            await guest.agent.agent_exec(
                pod=guest.pod,
                container_id="c",
                token="t",
                process=process(LIVES),
                stdio=Stdio.NULL,
            )
            found = await guest.agent.agent_list_processes(pod=guest.pod, container_id="c")
            assert len(found) == 2, f"{len(found)} run"
            await guest.agent.agent_signal(
                pod=guest.pod, container_id="c", token="t", signal=signal.SIGKILL
            )
            async with time_limit():
                status = await guest.agent.agent_wait(pod=guest.pod, container_id="c", token="t")
            (first,) = await guest.agent.agent_list_containers(pod=guest.pod)
        assert status.signal == signal.SIGKILL, f"it ended by {status}"
        assert first.exit is None, "the first process ended with it"

    @rule("agent_exec", "Raises CannotExecute when its program is missing or not executable.")
    async def test_a_second_program_that_is_not_there_is_told(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            program = process(MISSING)
            await fails_with(
                CannotExecute,
                guest.agent.agent_exec(
                    pod=guest.pod, container_id="c", token="t", process=program, stdio=Stdio.NULL
                ),
            )

    @rule("agent_exec", "CannotExecute.is_missing tells the two apart.")
    async def test_a_program_is_missing_or_not_executable(self, subject: AgentSubject) -> None:
        found = {}
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            for args in (MISSING, FOLDER):
                error = await fails_with(
                    CannotExecute,
                    guest.agent.agent_exec(
                        pod=guest.pod,
                        container_id="c",
                        token=args[0],
                        process=process(args),
                        stdio=Stdio.NULL,
                    ),
                )
                assert isinstance(error, CannotExecute)
                found[args] = error.is_missing
        assert found == {MISSING: True, FOLDER: False}, f"is_missing is {found}"

    @rule("agent_attach", "Returns the streams of a process that was started with Stdio.PIPES.")
    async def test_what_is_written_comes_back(self, subject: AgentSubject) -> None:
        data = bytes(range(256)) * 64
        async with subject.guest() as guest:
            await guest.run("c", ECHOES, Stdio.PIPES)
            streams = await guest.streams("c")
            await streams.write(data)
            await streams.close_stdin()
            async with time_limit():
                found = b"".join(
                    [chunk async for name, chunk in streams.chunks() if name is StreamName.STDOUT]
                )
            await streams.close()
        assert found == data, f"{len(found)} bytes of {len(data)} came back, or others"

    @rule("agent_attach", "A first process may wait for its start still")
    async def test_a_process_has_streams_before_its_start(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.create("c", ECHOES, Stdio.PIPES)
            streams = await guest.streams("c")
            ending = asyncio.create_task(guest.ends("c"))
            await guest.agent.agent_start_container(pod=guest.pod, container_id="c")
            await streams.write(b"given")
            await streams.close_stdin()
            async with time_limit():
                found = b"".join([chunk async for _, chunk in streams.chunks()])
            code = await ending
            await streams.close()
        assert (found, code) == (b"given", 0), f"it wrote {found!r} and ended with {code}"

    @rule("agent_attach", "Raises AgentError while another client has the streams.")
    async def test_streams_have_one_client(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", ECHOES, Stdio.PIPES)
            streams = await guest.streams("c")
            await fails_with(AgentError, guest.streams("c"))
            await streams.close()

    @rule("agent_wait", "The exit status is kept until the container is removed.")
    async def test_an_exit_code_stays(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", ENDS)
            codes = [await guest.ends("c") for _ in range(2)]
        assert codes == [3, 3], f"it told {codes}"

    @rule(
        "agent_signal",
        "Sends a signal to one process, or to all of the container when `token` is empty.",
    )
    async def test_a_signal_reaches_all(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            await guest.agent.agent_exec(
                pod=guest.pod,
                container_id="c",
                token="t",
                process=process(LIVES),
                stdio=Stdio.NULL,
            )
            await guest.agent.agent_signal(
                pod=guest.pod, container_id="c", token="", signal=signal.SIGKILL
            )
            async with time_limit():
                ends = [
                    await guest.agent.agent_wait(pod=guest.pod, container_id="c", token=token)
                    for token in ("c", "t")
                ]
        assert [one.signal for one in ends] == [signal.SIGKILL] * 2, f"they ended by {ends}"

    @rule("agent_signal", "Raises StateError when the one process has ended.")
    async def test_an_ended_process_gets_no_signal(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", ENDS)
            await guest.ends("c")
            await fails_with(
                StateError,
                guest.agent.agent_signal(
                    pod=guest.pod, container_id="c", token="c", signal=signal.SIGTERM
                ),
            )

    @rule("agent_signal", "InvalidRequest when the guest's kernel has no signal of this number.")
    async def test_an_unknown_signal_is_an_invalid_request(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            await fails_with(
                InvalidRequest,
                guest.agent.agent_signal(pod=guest.pod, container_id="c", token="c", signal=999),
            )

    @rule("agent_resize", "Raises AgentError when the process has no terminal.")
    async def test_what_has_no_terminal_has_no_size(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            await fails_with(
                AgentError,
                guest.agent.agent_resize(
                    pod=guest.pod, container_id="c", token="c", rows=24, columns=80
                ),
            )
