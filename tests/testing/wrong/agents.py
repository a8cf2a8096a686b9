"""Wrong agents."""

from __future__ import annotations

from msgspec import structs

from tests.testing.wrong import Wrong, table
from vc_core.spec import (
    AgentError,
    CannotExecute,
    Capability,
    Confinement,
    ContainerStats,
    ExitStatus,
    Guest,
    Health,
    NotFound,
    Resources,
    StateError,
    hookimpl,
)
from vc_core.testing.mocks import MockAgent
from vc_core.testing.mocks.agent import GUEST, MockStreams
from vc_core.testing.mocks.world import MockContainer, MockProcess

AGENTS: Wrong = {}
breaks = table(AGENTS)


@breaks("test_it_speaks_through_some_channel")
class Mute(MockAgent):
    @hookimpl
    async def agent_capabilities(self, pod):
        return frozenset()


@breaks("test_disconnecting_twice_is_no_error")
class DisconnectsOnce(MockAgent):
    @hookimpl
    async def agent_disconnect(self, pod):
        if self._channel is None:
            raise AgentError("not connected")
        await super().agent_disconnect(pod)


@breaks("test_nothing_is_known_without_a_connection")
class MakesUp(MockAgent):
    @hookimpl
    async def agent_list_containers(self, pod):
        return () if self._channel is None else await super().agent_list_containers(pod)


@breaks("test_the_current_guest_is_listed_first")
class OldestFirst(MockAgent):
    @hookimpl
    async def agent_list_guests(self):
        return (structs.replace(GUEST, id="old", is_current=False), GUEST)


@breaks("test_a_guest_that_is_not_there_is_not_removed")
class RemovesAnything(MockAgent):
    @hookimpl
    async def agent_remove_guest(self, guest_id) -> Guest:
        return GUEST


@breaks("test_a_diagnosis_is_findings")
class Words(MockAgent):
    @hookimpl
    async def agent_diagnose(self):
        return ("all is well",)


@breaks("test_a_pod_is_set_up_twice")
class SetsUpOnce(MockAgent):
    @hookimpl
    async def agent_set_up_pod(self, pod, setup):
        if (await self._machine(pod)).is_set_up:
            raise AgentError("it is set up")
        await super().agent_set_up_pod(pod, setup)


@breaks("test_a_guest_powers_off")
class StaysOn(MockAgent):
    @hookimpl
    async def agent_tear_down_pod(self, pod):
        (await self._machine(pod)).containers.clear()


@breaks("test_a_container_waits_for_its_start")
class Hasty(MockAgent):
    @hookimpl
    async def agent_create_container(self, pod, container):
        await super().agent_create_container(pod, structs.replace(container, starts=True))


@breaks("test_an_id_is_given_once")
class Replaces(MockAgent):
    @hookimpl
    async def agent_create_container(self, pod, container):
        self._remove(await self._machine(pod), container.spec.id)
        await super().agent_create_container(pod, container)


@breaks("test_a_program_that_is_not_there_is_told")
class Vague(MockAgent):
    @hookimpl
    async def agent_create_container(self, pod, container):
        try:
            await super().agent_create_container(pod, container)
        except CannotExecute as error:
            raise AgentError(str(error)) from error


@breaks("test_nothing_is_left_of_a_failure")
class Untidy(MockAgent):
    @hookimpl
    async def agent_create_container(self, pod, container):
        processes = {container.token: MockProcess(container.spec.process.args)}
        try:
            await super().agent_create_container(pod, container)
        except CannotExecute:
            (await self._machine(pod)).containers[container.spec.id] = MockContainer(
                container, processes
            )
            raise


@breaks("test_files_of_the_cgroup_are_written")
class WritesNoFiles(MockAgent):
    @hookimpl
    async def agent_create_container(self, pod, container):
        spec = structs.replace(container.spec, resources=Resources())
        await super().agent_create_container(pod, structs.replace(container, spec=spec))


@breaks("test_a_pid_namespace_is_that_of_a_container")
class SharesNoPids(MockAgent):
    @hookimpl
    async def agent_create_container(self, pod, container):
        spec = structs.replace(container.spec, confinement=Confinement())
        await super().agent_create_container(pod, structs.replace(container, spec=spec))


@breaks("test_an_empty_volume_gets_what_lies_at_its_place")
class FillsNoVolume(MockAgent):
    @hookimpl
    async def agent_create_container(self, pod, container):
        await super().agent_create_container(pod, structs.replace(container, mounts=()))


@breaks("test_removing_twice_is_no_error")
class RemovesOnce(MockAgent):
    @hookimpl
    async def agent_remove_container(self, pod, container_id):
        self._container(await self._machine(pod), container_id)
        await super().agent_remove_container(pod, container_id)


@breaks("test_a_removed_container_is_forgotten")
class Remembers(MockAgent):
    @hookimpl
    async def agent_remove_container(self, pod, container_id):
        found = (await self._machine(pod)).containers.get(container_id)
        for process in found.processes.values() if found else ():
            process.end(137, 9)


@breaks("test_containers_are_listed_with_their_ends")
class ListsTheLiving(MockAgent):
    @hookimpl
    async def agent_list_containers(self, pod):
        return tuple(one for one in await super().agent_list_containers(pod) if one.exit is None)


@breaks("test_limits_are_those_of_a_container")
class LimitsNobody(MockAgent):
    @hookimpl
    async def agent_update_container(self, pod, container_id, resources):
        await self._machine(pod)


@breaks("test_a_container_uses_something")
class CountsAll(MockAgent):
    @hookimpl
    async def agent_container_stats(self, pod, container_id):
        return ContainerStats(cpu_ns=1, memory_bytes=2, memory_limit_bytes=0, processes=1)


@breaks("test_processes_are_listed")
class ListsAll(MockAgent):
    @hookimpl
    async def agent_list_processes(self, pod, container_id):
        names = (await self._machine(pod)).containers
        return tuple(
            [one for name in names for one in await MockAgent.agent_list_processes(self, pod, name)]
        )


@breaks("test_one_more_process_runs")
class RunsItInstead(MockAgent):
    @hookimpl
    async def agent_exec(self, pod, container_id, token, process, stdio):
        found = self._container(await self._machine(pod), container_id)
        found.processes[token] = self._process(found, found.made.token)


@breaks("test_a_second_program_that_is_not_there_is_told")
class ExecutesAnything(MockAgent):
    @hookimpl
    async def agent_exec(self, pod, container_id, token, process, stdio):
        found = self._container(await self._machine(pod), container_id)
        found.processes[token] = MockProcess(process.args)


@breaks("test_a_program_is_missing_or_not_executable")
class MissesAll(MockAgent):
    @hookimpl
    async def agent_exec(self, pod, container_id, token, process, stdio):
        try:
            await super().agent_exec(pod, container_id, token, process, stdio)
        except CannotExecute as error:
            raise CannotExecute(str(error), is_missing=True) from error


class Shortening(MockStreams):
    async def write(self, data):
        await super().write(data.rstrip(b"\xff"))


@breaks("test_what_is_written_comes_back")
class Loses(MockAgent):
    @hookimpl
    async def agent_attach(self, pod, container_id, token):
        return Shortening(
            self._process(self._container(await self._machine(pod), container_id), token)
        )


@breaks("test_streams_have_one_client")
class SharesStreams(MockAgent):
    @hookimpl
    async def agent_attach(self, pod, container_id, token):
        return MockStreams(
            self._process(self._container(await self._machine(pod), container_id), token)
        )


@breaks("test_an_exit_code_stays")
class TellsOnce(MockAgent):
    @hookimpl
    async def agent_wait(self, pod, container_id, token):
        status = await super().agent_wait(pod, container_id, token)
        self._process(
            self._container(await self._machine(pod), container_id), token
        ).status = ExitStatus(code=0)
        return status


@breaks("test_a_signal_reaches_all")
class SignalsTheFirst(MockAgent):
    @hookimpl
    async def agent_signal(self, pod, container_id, token, signal):
        await super().agent_signal(pod, container_id, token or container_id, signal)


@breaks("test_an_ended_process_gets_no_signal")
class SignalsTheDead(MockAgent):
    @hookimpl
    async def agent_signal(self, pod, container_id, token, signal):
        found = self._container(await self._machine(pod), container_id)
        for process in found.processes.values():
            process.end(128 + signal, signal)


@breaks("test_what_has_no_terminal_has_no_size")
class ResizesAnything(MockAgent):
    @hookimpl
    async def agent_resize(self, pod, container_id, token, rows, columns):
        if container_id not in (await self._machine(pod)).containers:
            raise NotFound(container_id)


class Careful(MockAgent):
    """Says that it can do what containers that last need."""

    @hookimpl
    async def agent_capabilities(self, pod):
        able = await super().agent_capabilities(pod)
        lasting = {Capability.SUPERVISE, Capability.FILES, Capability.LOG}
        return able | lasting | {Capability.START_HOOKS}


@breaks("test_what_was_written_is_in_the_log")
class LogsNothing(Careful):
    @hookimpl
    async def agent_start_container(self, pod, container_id):
        found = self._container(await self._machine(pod), container_id)
        found.processes[found.made.token].end(3)


@breaks("test_what_failed_is_started_again")
class GivesUp(Careful):
    """A mock starts nothing again."""


@breaks("test_what_is_to_end_is_not_started_again")
class NeverEnds(Careful):
    @hookimpl
    async def agent_signal(self, pod, container_id, token, signal):
        self._container(await self._machine(pod), container_id)


@breaks("test_a_hook_that_fails_is_the_end")
class RunsAnyway(Careful):
    @hookimpl
    async def agent_start_container(self, pod, container_id):
        found = self._container(await self._machine(pod), container_id)
        found.processes[found.made.token].end(0)


@breaks("test_checks_tell_how_a_container_fares")
class Optimist(Careful):
    @hookimpl
    async def agent_list_containers(self, pod):
        found = await super().agent_list_containers(pod)
        return tuple(structs.replace(one, health=Health.HEALTHY) for one in found)


class Told(MockStreams):
    """Lines of a request's answer."""

    def __init__(self, process, *lines):
        super().__init__(process)
        for line in lines:
            self._queue.put_nowait(line)
        self._queue.put_nowait(None)


class Filing(Careful):
    """Its containers have a folder /bin with one file in it."""

    @staticmethod
    def only_file(path):
        return {"/": "bin", "/bin": "sh"}.get(path.replace("/..", ""))

    @hookimpl
    async def agent_serve_files(self, pod, container_id, token, request):
        found = self._container(await self._machine(pod), container_id)
        name = self.only_file(request.path)
        ran = found.processes[token] = MockProcess(("files",))
        ran.told = [] if name is None else [f'{{"name":"{name}"}}\n'.encode()]
        ran.end(self.code(request.path, name))

    @staticmethod
    def code(path, name):
        return 0 if name else 3 if path.startswith("/bin/sh/") else 2

    @hookimpl
    async def agent_attach(self, pod, container_id, token):
        process = self._process(self._container(await self._machine(pod), container_id), token)
        return Told(process, *process.told)


@breaks("test_files_that_are_not_there_are_told_in_a_line")
class FindsAnything(Filing):
    @staticmethod
    def code(path, name):
        return 0


@breaks("test_a_file_where_a_folder_must_be_is_told_by_the_exit_code")
class TellsOneErrorOnly(Filing):
    @staticmethod
    def code(path, name):
        return 0 if name else 1


@breaks("test_files_outlive_the_first_process")
class NeedsTheFirstProcess(Filing):
    @hookimpl
    async def agent_serve_files(self, pod, container_id, token, request):
        found = self._container(await self._machine(pod), container_id)
        if found.processes[found.made.token].status is not None:
            raise StateError("container", "reach its files", "stopped", ["running"])
        await super().agent_serve_files(pod, container_id, token, request)


@breaks("test_no_path_leads_out_of_a_container")
class LeadsOut(Filing):
    @staticmethod
    def only_file(path):
        return "vc-agent" if ".." in path else "sh"
