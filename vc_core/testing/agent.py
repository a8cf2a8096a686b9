"""What every agent plugin must keep.

Boots a guest for each rule, by a hypervisor plugin of the author's choice.
"""

from __future__ import annotations

import asyncio
import signal

import pytest

from vc_core.spec import (
    AgentError,
    AlreadyExists,
    CannotExecute,
    Capability,
    FilesRequest,
    FilesVerb,
    Finding,
    Guest,
    GuestMount,
    Health,
    HealthCheck,
    Mount,
    NotFound,
    Resources,
    Restart,
    RestartPolicy,
    StateError,
    Stdio,
    StreamName,
)
from vc_core.spec.log_format import Kind
from vc_core.testing.guests import SETUP, AgentSubject, process
from vc_core.testing.rules import LIMIT_S, fails_with, rule

_LIVES = ("sleep", "1000")
_ENDS = ("sh", "-c", "exit 3")
_ECHOES = ("cat",)
_MISSING = ("missing",)


class AgentContract:
    """Subclass it and give the fixture `subject`."""

    @pytest.fixture
    def subject(self) -> AgentSubject:
        """The author's."""
        raise NotImplementedError("give a fixture `subject` that returns an AgentSubject")

    # --- without a guest ---------------------------------------------------------------------------------------------

    @rule("agent_capabilities", "Says which channels it can speak through")
    async def test_it_speaks_through_some_channel(self, subject: AgentSubject) -> None:
        found = await subject.agent().agent_capabilities(pod=subject.pod)
        assert found & {Capability.UNIX_CHANNEL, Capability.VSOCK_CHANNEL}, (
            f"it declares {sorted(found)}"
        )

    @rule("agent_disconnect", "May be called twice, and without a connection.")
    async def test_disconnecting_twice_is_no_error(self, subject: AgentSubject) -> None:
        agent = subject.agent()
        for _ in range(2):
            await agent.agent_disconnect(pod=subject.pod)

    @rule(
        "agent_list_containers", "Every operation raises AgentError when the guest does not answer"
    )
    async def test_nothing_is_known_without_a_connection(self, subject: AgentSubject) -> None:
        await fails_with(AgentError, subject.agent().agent_list_containers(pod=subject.pod))

    @rule("agent_list_guests", "All guest images, the current one first.")
    async def test_the_current_guest_is_listed_first(self, subject: AgentSubject) -> None:
        agent = subject.agent()
        current, listed = await agent.agent_guest(pod=subject.pod), await agent.agent_list_guests()
        assert listed, "it lists none"
        assert all(isinstance(one, Guest) for one in listed), f"it lists {listed}"
        assert listed[0].id == current.id, (
            f"{listed[0].id} is listed first, {current.id} is current"
        )

    @rule("agent_remove_guest", "Raises NotFound when none or several do.")
    async def test_a_guest_that_is_not_there_is_not_removed(self, subject: AgentSubject) -> None:
        await fails_with(NotFound, subject.agent().agent_remove_guest(guest_id="no-such-guest"))

    @rule(
        "agent_diagnose",
        "What a user should know: is there a guest image, and what building one would need.",
    )
    async def test_a_diagnosis_is_findings(self, subject: AgentSubject) -> None:
        found = await subject.agent().agent_diagnose()
        assert all(isinstance(one, Finding) for one in found), f"it gave {found}"

    # --- pods and containers -----------------------------------------------------------------------------------------

    @rule("agent_set_up_pod", "May be called twice.")
    async def test_a_pod_is_set_up_twice(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.agent.agent_set_up_pod(pod=guest.pod, setup=SETUP)

    @rule(
        "agent_tear_down_pod",
        "Kills every container, unmounts, lets the guest power off; returns as it does.",
    )
    async def test_a_guest_powers_off(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            await guest.agent.agent_tear_down_pod(pod=guest.pod)
            async with asyncio.timeout(LIMIT_S):
                await guest.agent.vm_wait(pod=guest.pod)

    @rule("agent_create_container", "Makes the container; its first process exists and waits")
    async def test_a_container_waits_for_its_start(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.create("c", _ENDS)
            (found,) = await guest.agent.agent_list_containers(pod=guest.pod)
            assert (found.id, found.exit) == ("c", None), f"it is {found}"
            await guest.agent.agent_start_container(pod=guest.pod, container_id="c")
            code = await guest.ends("c")
        assert code == 3, f"it ended with {code}"

    @rule(
        "agent_create_container", "Raises AlreadyExists when the guest has a container of this id"
    )
    async def test_an_id_is_given_once(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            await fails_with(AlreadyExists, guest.create("c", _LIVES))
            (found,) = await guest.agent.agent_list_containers(pod=guest.pod)
        assert found.exit is None, "the first one has ended"

    @rule("agent_create_container", "CannotExecute when its program is not there.")
    async def test_a_program_that_is_not_there_is_told(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await fails_with(CannotExecute, guest.run("c", _MISSING))

    @rule("agent_create_container", "On failure nothing of it is left in the guest.")
    async def test_nothing_is_left_of_a_failure(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await fails_with(AgentError, guest.create("c", _MISSING))
            left = await guest.names()
            assert left == [], f"{left} is left"
            await guest.run("c", _ENDS)
            assert await guest.ends("c") == 3, "the same id cannot be used"

    @rule(
        "agent_create_container", "Raises AgentError when a file of Resources.unified is not there."
    )
    async def test_files_of_the_cgroup_are_written(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES, resources=Resources(unified=(("memory.oom.group", "1"),)))
            unknown = Resources(unified=(("memory.no-such-file", "1"),))
            await fails_with(AgentError, guest.create("d", _LIVES, resources=unknown))

    @rule(
        "agent_create_container",
        "What Mount.copy_up asks for is in the folder before the first process exists.",
    )
    async def test_an_empty_volume_gets_what_lies_at_its_place(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            mount = Mount(guest.volume_folder, "/bin", copy_up=True)
            await guest.create("c", _LIVES, mounts=(GuestMount(mount, guest.volume),))
            names = {path.name for path in guest.volume_folder.iterdir()}
        assert {"sh", "sleep", "cat"} <= names, f"it has {sorted(names)[:5]}"

    @rule("agent_remove_container", "An unknown one is no error: may be called twice.")
    async def test_removing_twice_is_no_error(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            for _ in range(2):
                await guest.agent.agent_remove_container(pod=guest.pod, container_id="c")

    @rule("agent_remove_container", "Kills what is left of the container and forgets it.")
    async def test_a_removed_container_is_forgotten(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            await guest.agent.agent_remove_container(pod=guest.pod, container_id="c")
            assert await guest.names() == [], "it is still listed"
            await fails_with(
                NotFound, guest.agent.agent_wait(pod=guest.pod, container_id="c", token="c")
            )

    @rule(
        "agent_list_containers",
        "All containers that the guest has, and whether their first processes live.",
    )
    async def test_containers_are_listed_with_their_ends(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("a", _ENDS)
            await guest.run("b", _LIVES)
            await guest.ends("a")
            found = {
                one.id: one.exit for one in await guest.agent.agent_list_containers(pod=guest.pod)
            }
        assert set(found) == {"a", "b"}, f"it lists {sorted(found)}"
        assert found["b"] is None, "one that lives has ended"
        assert found["a"] is not None, "one that has ended lives"
        assert found["a"].code == 3, f"its exit code is {found['a'].code}"

    @rule("agent_update_container", "Changes the limits of a container that the guest has")
    async def test_limits_are_those_of_a_container(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await fails_with(
                NotFound,
                guest.agent.agent_update_container(
                    pod=guest.pod, container_id="none", resources=Resources()
                ),
            )

    @rule("agent_container_stats", "Use of the guest by one container.")
    async def test_a_container_uses_something(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            found = await guest.agent.agent_container_stats(pod=guest.pod, container_id="c")
            await fails_with(
                NotFound, guest.agent.agent_container_stats(pod=guest.pod, container_id="none")
            )
        assert found.processes == 1, f"it has {found.processes} processes"

    # --- processes ---------------------------------------------------------------------------------------------------

    @rule("agent_list_processes", "The processes of one container.")
    async def test_processes_are_listed(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            await guest.run("d", _LIVES)
            found = await guest.agent.agent_list_processes(pod=guest.pod, container_id="c")
        assert [one.command[-2:] for one in found] == [_LIVES], f"it lists {found}"

    @rule(
        "agent_exec",
        "Starts one more process, known by `token` from then on, in a started container.",
    )
    async def test_one_more_process_runs(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            await guest.agent.agent_exec(
                pod=guest.pod,
                container_id="c",
                token="t",
                process=process(_LIVES),
                stdio=Stdio.NULL,
            )
            found = await guest.agent.agent_list_processes(pod=guest.pod, container_id="c")
            assert len(found) == 2, f"{len(found)} run"
            await guest.agent.agent_signal(
                pod=guest.pod, container_id="c", token="t", signal=signal.SIGKILL
            )
            async with asyncio.timeout(LIMIT_S):
                status = await guest.agent.agent_wait(pod=guest.pod, container_id="c", token="t")
            (first,) = await guest.agent.agent_list_containers(pod=guest.pod)
        assert status.signal == signal.SIGKILL, f"it ended by {status}"
        assert first.exit is None, "the first process ended with it"

    @rule("agent_exec", "Raises CannotExecute when its program cannot be executed.")
    async def test_a_second_program_that_is_not_there_is_told(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            program = process(_MISSING)
            await fails_with(
                CannotExecute,
                guest.agent.agent_exec(
                    pod=guest.pod, container_id="c", token="t", process=program, stdio=Stdio.NULL
                ),
            )

    @rule("agent_attach", "The streams of a process that was made with Stdio.PIPES.")
    async def test_what_is_written_comes_back(self, subject: AgentSubject) -> None:
        data = bytes(range(256)) * 64
        async with subject.guest() as guest:
            await guest.run("c", _ECHOES, Stdio.PIPES)
            streams = await guest.streams("c")
            await streams.write(data)
            await streams.close_stdin()
            async with asyncio.timeout(LIMIT_S):
                found = b"".join(
                    [chunk async for name, chunk in streams.chunks() if name is StreamName.STDOUT]
                )
            await streams.close()
        assert found == data, f"{len(found)} bytes of {len(data)} came back, or others"

    @rule("agent_attach", "Raises AgentError while another client has them.")
    async def test_streams_have_one_client(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _ECHOES, Stdio.PIPES)
            streams = await guest.streams("c")
            await fails_with(AgentError, guest.streams("c"))
            await streams.close()

    @rule("agent_wait", "at once when it has. The answer stays until the container is removed.")
    async def test_an_exit_code_stays(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _ENDS)
            codes = [await guest.ends("c") for _ in range(2)]
        assert codes == [3, 3], f"it told {codes}"

    @rule(
        "agent_signal",
        "Sends a signal to one process, or to all of the container when `token` is empty.",
    )
    async def test_a_signal_reaches_all(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            await guest.agent.agent_exec(
                pod=guest.pod,
                container_id="c",
                token="t",
                process=process(_LIVES),
                stdio=Stdio.NULL,
            )
            await guest.agent.agent_signal(
                pod=guest.pod, container_id="c", token="", signal=signal.SIGKILL
            )
            async with asyncio.timeout(LIMIT_S):
                ends = [
                    await guest.agent.agent_wait(pod=guest.pod, container_id="c", token=token)
                    for token in ("c", "t")
                ]
        assert [one.signal for one in ends] == [signal.SIGKILL] * 2, f"they ended by {ends}"

    @rule("agent_signal", "Raises StateError when the one process has ended.")
    async def test_an_ended_process_gets_no_signal(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _ENDS)
            await guest.ends("c")
            await fails_with(
                StateError,
                guest.agent.agent_signal(
                    pod=guest.pod, container_id="c", token="c", signal=signal.SIGTERM
                ),
            )

    @rule("agent_resize", "Raises AgentError when it has none.")
    async def test_what_has_no_terminal_has_no_size(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", _LIVES)
            await fails_with(
                AgentError,
                guest.agent.agent_resize(
                    pod=guest.pod, container_id="c", token="c", rows=24, columns=80
                ),
            )

    # --- containers that are to last ---------------------------------------------------------------------------------

    @rule(
        "agent_create_container",
        "What a process with Stdio.LOG has written is on that disk before its end is told.",
    )
    async def test_what_was_written_is_in_the_log(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.LOG, Capability.DRIVE_PLUG)
            await guest.run("c", ("sh", "-c", "echo good; echo bad >&2; exit 3"), Stdio.LOG)
            await guest.ends("c")
            found = {
                kind: b"".join(one.data for one in guest.logged("c") if one.kind is kind)
                for kind in Kind
            }
        assert found[Kind.STDOUT] == b"good\n", f"it has {found}"
        assert found[Kind.STDERR] == b"bad\n", f"it has {found}"

    @rule("agent_wait", "A first process that another one follows has not ended.")
    async def test_what_failed_is_started_again(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.SUPERVISE)
            await guest.run("c", _ENDS, restart=Restart(RestartPolicy.ON_FAILURE, max_retries=2))
            code = await guest.ends("c")
            (found,) = await guest.agent.agent_list_containers(pod=guest.pod)
        assert (code, found.restarts) == (3, 2), (
            f"it ended with {code} after {found.restarts} restarts"
        )

    @rule(
        "agent_signal",
        "SIGKILL, SIGTERM and the container's stop signal ask for its end: no other process follows.",
    )
    async def test_what_is_to_end_is_not_started_again(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.SUPERVISE)
            await guest.run("c", _LIVES, restart=Restart(RestartPolicy.ALWAYS))
            await guest.agent.agent_signal(
                pod=guest.pod, container_id="c", token="c", signal=signal.SIGKILL
            )
            await guest.ends("c")
            (found,) = await guest.agent.agent_list_containers(pod=guest.pod)
        assert found.restarts == 0, f"it was started again {found.restarts} times"

    @rule(
        "agent_list_containers",
        "A check that fails as often as it may makes its container unhealthy.",
    )
    async def test_checks_tell_how_a_container_fares(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.SUPERVISE)
            for name, code in (("good", 0), ("bad", 1)):
                check = HealthCheck(("sh", "-c", f"exit {code}"), interval_s=0.1, retries=2)
                await guest.run(name, _LIVES, health=check)
            for name, health in (("good", Health.HEALTHY), ("bad", Health.UNHEALTHY)):
                found = await guest.container_status(
                    name, lambda one: one.health is not Health.STARTING
                )
                assert found.health is health, f"the {name} one is {found.health!r}"

    # --- files -------------------------------------------------------------------------------------------------------

    @rule("agent_exec", "exits with 2 when nothing is at the path")
    async def test_files_that_are_not_there_are_told_in_a_line(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.FILES)
            await guest.run("c", _LIVES)
            code, _, told = await guest.files("c", FilesRequest(FilesVerb.LIST, "/no-such-folder"))
        assert (code, told.count(b"\n")) == (2, 1), f"it exits with {code} and says {told!r}"

    @rule("agent_exec", "with 3 when the request does not fit what is there")
    async def test_a_file_where_a_folder_must_be_is_told_by_the_exit_code(
        self, subject: AgentSubject
    ) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.FILES)
            await guest.run("c", _LIVES)
            code, _, told = await guest.files("c", FilesRequest(FilesVerb.READ, "/bin/sh/below"))
        assert (code, told.count(b"\n")) == (3, 1), f"it exits with {code} and says {told!r}"

    @rule("agent_exec", "The container's first process may have ended.")
    async def test_files_outlive_the_first_process(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.FILES)
            await guest.run("c", _ENDS)
            await guest.ends("c")
            code, listed, told = await guest.files("c", FilesRequest(FilesVerb.LIST, "/"))
        assert code == 0, f"it exits with {code} and says {told!r}"
        assert b'"bin"' in listed, f"it lists {listed!r}"

    @rule("agent_exec", "No path leads out of what the container sees.")
    async def test_no_path_leads_out_of_a_container(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.FILES)
            await guest.run("c", _LIVES)
            inside = await guest.files("c", FilesRequest(FilesVerb.LIST, "/bin"))
            outside = await guest.files("c", FilesRequest(FilesVerb.LIST, "/../../../bin"))
        assert outside == inside, f"/../../../bin is {outside}, /bin is {inside}"
