"""Rules of the connection to a guest's agent, and of the pod that it sets up."""

from __future__ import annotations

import contextlib

from vc_core.spec import AgentError, Capability, PodOptions, UnsupportedOperation
from vc_core.testing.agent_suite.subject import ENDS, LIVES, SETUP, AgentSubject
from vc_core.testing.rules import fails_with, rule, time_limit


class ConnectionRules:
    """Rules of the connection to a guest's agent, and of the pod that it sets up."""

    @rule("agent_capabilities", "Returns the channels that this agent supports")
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
            await guest.run("c", LIVES)
            await guest.agent.agent_tear_down_pod(pod=guest.pod)
            async with time_limit():
                await guest.agent.vm_wait(pod=guest.pod)

    @rule("agent_prepare", "Does the slow part of connecting that needs no guest.")
    async def test_a_connection_is_prepared_without_a_guest(self, subject: AgentSubject) -> None:
        with contextlib.suppress(UnsupportedOperation):
            await subject.agent().agent_prepare(pod=subject.pod)

    @rule(
        "agent_connect",
        "Connects through a new channel and negotiates the version of the protocol.",
    )
    async def test_a_second_client_connects_and_agrees_on_a_protocol(
        self, subject: AgentSubject
    ) -> None:
        async with subject.guest() as guest:
            channel = await guest.agent.vm_open_channel(pod=guest.pod, name="vc.agent.2")
            second = subject.agent()
            info = await second.agent_connect(pod=guest.pod, channel=channel)
            try:
                assert info.protocol > 0, f"it agreed on protocol {info.protocol}"
                await second.agent_list_containers(pod=guest.pod)
                await guest.agent.agent_list_containers(pod=guest.pod)
            finally:
                await second.agent_disconnect(pod=guest.pod)

    @rule("agent_quiesce", "Containers keep running.")
    async def test_a_quiet_guest_keeps_its_containers(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.QUIESCE)
            await guest.run("c", LIVES, pod=PodOptions(can_quiesce=True))
            await guest.agent.agent_quiesce(pod=guest.pod)
            statuses = await guest.agent.agent_list_containers(pod=guest.pod)
            await guest.agent.agent_unquiesce(pod=guest.pod)
        assert [(one.id, one.exit) for one in statuses] == [("c", None)], f"it has {statuses}"

    @rule("agent_unquiesce", "the guest reopens the folders, and waiting processes continue.")
    async def test_a_guest_uses_its_folders_again(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.QUIESCE)
            await guest.create("c", ENDS, pod=PodOptions(can_quiesce=True))
            await guest.agent.agent_quiesce(pod=guest.pod)
            for _ in range(2):
                await guest.agent.agent_unquiesce(pod=guest.pod)
            await guest.agent.agent_start_container(pod=guest.pod, container_id="c")
            code = await guest.ends("c")
        assert code == 3, f"its process ended with {code}"

    @rule("agent_online", "Waits until the guest uses exactly this many vCPUs")
    async def test_a_guest_uses_the_processors_that_it_has(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.ONLINE)
            async with time_limit():
                await guest.agent.agent_online(pod=guest.pod, vcpus=1, plugged_memory_mib=0)
