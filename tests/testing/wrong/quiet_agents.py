"""Wrong agents: of the connection, of quiet guests, of guest images and of signals."""

from __future__ import annotations

from msgspec import structs

from tests.testing.wrong.agents import breaks
from vc_core.spec import AgentError, AgentInfo, InvalidRequest, hookimpl
from vc_core.testing.mocks import MockAgent
from vc_core.testing.mocks.agent import GUEST


@breaks("test_a_connection_is_prepared_without_a_guest")
class PreparesInGuests(MockAgent):
    @hookimpl
    async def agent_prepare(self, pod):
        await self._machine(pod)


@breaks("test_a_second_client_connects_and_agrees_on_a_protocol")
class AgreesOnNothing(MockAgent):
    @hookimpl
    async def agent_connect(self, pod, channel):
        await super().agent_connect(pod, channel)
        return AgentInfo(version="0", protocol=0, features=(), kernel="mock")


@breaks("test_a_quiet_guest_keeps_its_containers")
class QuietsByKilling(MockAgent):
    @hookimpl
    async def agent_quiesce(self, pod):
        await super().agent_quiesce(pod)
        machine = await self._machine(pod)
        for name in list(machine.containers):
            self._remove(machine, name)


@breaks("test_a_guest_uses_its_folders_again")
class StaysQuiet(MockAgent):
    @hookimpl
    async def agent_unquiesce(self, pod):
        await self._machine(pod)

    @hookimpl
    async def agent_start_container(self, pod, container_id):
        if (await self._machine(pod)).is_let_go:
            return  # its process waits for its folder
        await super().agent_start_container(pod, container_id)


@breaks("test_a_guest_uses_the_processors_that_it_has")
class SeesNoProcessor(MockAgent):
    @hookimpl
    async def agent_online(self, pod, vcpus, plugged_memory_mib):
        raise AgentError(f"{vcpus} vCPUs did not come")


@breaks("test_a_started_process_runs_to_its_end")
class StartsNothing(MockAgent):
    @hookimpl
    async def agent_start_container(self, pod, container_id):
        self._container(await self._machine(pod), container_id)


@breaks("test_a_pod_boots_the_current_image")
class BootsAnOldImage(MockAgent):
    @hookimpl
    async def agent_guest(self, pod):
        return structs.replace(GUEST, is_current=False)


@breaks("test_no_image_is_built_of_a_kernel_that_is_not_there")
class BuildsOfNothing(MockAgent):
    @hookimpl
    async def agent_build_guest(self, source, report):
        return GUEST


@breaks("test_an_unknown_signal_is_an_invalid_request")
class CannotExecuteSignals(MockAgent):
    @hookimpl
    async def agent_signal(self, pod, container_id, token, signal):
        try:
            await super().agent_signal(pod, container_id, token, signal)
        except InvalidRequest as error:
            raise AgentError(str(error)) from error
