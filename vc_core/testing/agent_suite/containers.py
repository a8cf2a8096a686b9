"""Rules of containers in a guest."""

from __future__ import annotations

from vc_core.spec import (
    AgentError,
    AlreadyExists,
    CannotExecute,
    Confinement,
    GuestMount,
    Mount,
    NotFound,
    Resources,
)
from vc_core.testing.agent_suite.subject import ENDS, LIVES, MISSING, AgentSubject
from vc_core.testing.rules import fails_with, rule


class ContainerRules:
    """Rules of containers in a guest."""

    @rule("agent_create_container", "Creates the container; its first process exists and waits")
    async def test_a_container_waits_for_its_start(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.create("c", ENDS)
            (found,) = await guest.agent.agent_list_containers(pod=guest.pod)
            assert (found.id, found.exit) == ("c", None), f"it is {found}"
            await guest.agent.agent_start_container(pod=guest.pod, container_id="c")
            code = await guest.ends("c")
        assert code == 3, f"it ended with {code}"

    @rule("agent_start_container", "Starts the first process of a created container.")
    async def test_a_started_process_runs_to_its_end(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.create("c", ENDS)
            await guest.agent.agent_start_container(pod=guest.pod, container_id="c")
            code = await guest.ends("c")
        assert code == 3, f"it ended with {code}"

    @rule(
        "agent_create_container", "Raises AlreadyExists when the guest has a container of this id"
    )
    async def test_an_id_is_given_once(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            await fails_with(AlreadyExists, guest.create("c", LIVES))
            (found,) = await guest.agent.agent_list_containers(pod=guest.pod)
        assert found.exit is None, "the first one has ended"

    @rule("agent_create_container", "CannotExecute when its program is not there.")
    async def test_a_program_that_is_not_there_is_told(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await fails_with(CannotExecute, guest.run("c", MISSING))

    @rule("agent_create_container", "On failure nothing of the container is left in the guest.")
    async def test_nothing_is_left_of_a_failure(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await fails_with(AgentError, guest.create("c", MISSING))
            left = await guest.names()
            assert left == [], f"{left} is left"
            await guest.run("c", ENDS)
            assert await guest.ends("c") == 3, "the same id cannot be used"

    @rule(
        "agent_create_container", "Raises AgentError when a file of Resources.unified is not there."
    )
    async def test_files_of_the_cgroup_are_written(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES, resources=Resources(unified=(("memory.oom.group", "1"),)))
            unknown = Resources(unified=(("memory.no-such-file", "1"),))
            await fails_with(AgentError, guest.create("d", LIVES, resources=unknown))

    @rule(
        "agent_create_container",
        "Raises NotFound when the container of Confinement.pid_container_id is not in the guest.",
    )
    async def test_a_pid_namespace_is_that_of_a_container(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            await guest.run("d", LIVES, confinement=Confinement(pid_container_id="c"))
            unknown = Confinement(pid_container_id="none")
            await fails_with(NotFound, guest.create("e", LIVES, confinement=unknown))
            left = await guest.names()
        assert left == ["c", "d"], f"{left} are there"

    @rule(
        "agent_create_container",
        "What Mount.copy_up asks for is in the folder before the first process exists.",
    )
    async def test_an_empty_volume_gets_what_lies_at_its_place(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            mount = Mount(source=guest.volume_folder, destination="/bin", copy_up=True)
            await guest.create("c", LIVES, mounts=(GuestMount(mount=mount, plugged=guest.volume),))
            names = {path.name for path in guest.volume_folder.iterdir()}
        assert {"sh", "sleep", "cat"} <= names, f"it has {sorted(names)[:5]}"

    @rule("agent_remove_container", "An unknown one is no error: may be called twice.")
    async def test_removing_twice_is_no_error(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            for _ in range(2):
                await guest.agent.agent_remove_container(pod=guest.pod, container_id="c")

    @rule(
        "agent_remove_container",
        "Kills all processes of the container and removes it from the guest.",
    )
    async def test_a_removed_container_is_forgotten(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            await guest.agent.agent_remove_container(pod=guest.pod, container_id="c")
            assert await guest.names() == [], "it is still listed"
            await fails_with(
                NotFound, guest.agent.agent_wait(pod=guest.pod, container_id="c", token="c")
            )

    @rule(
        "agent_list_containers",
        "Returns all containers of the guest, and whether their first processes run.",
    )
    async def test_containers_are_listed_with_their_ends(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("a", ENDS)
            await guest.run("b", LIVES)
            await guest.ends("a")
            found = {
                one.id: one.exit for one in await guest.agent.agent_list_containers(pod=guest.pod)
            }
        assert set(found) == {"a", "b"}, f"it lists {sorted(found)}"
        assert found["b"] is None, "one that lives has ended"
        assert found["a"] is not None, "one that has ended lives"
        assert found["a"].code == 3, f"its exit code is {found['a'].code}"

    @rule("agent_update_container", "Replaces the limits of a container of the guest.")
    async def test_limits_are_those_of_a_container(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await fails_with(
                NotFound,
                guest.agent.agent_update_container(
                    pod=guest.pod, container_id="none", resources=Resources()
                ),
            )

    @rule("agent_container_stats", "Measures a container's use of the guest's resources.")
    async def test_a_container_uses_something(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.run("c", LIVES)
            found = await guest.agent.agent_container_stats(pod=guest.pod, container_id="c")
            await fails_with(
                NotFound, guest.agent.agent_container_stats(pod=guest.pod, container_id="none")
            )
        assert found.processes == 1, f"it has {found.processes} processes"
