"""Rules of the connection to a guest's agent, and of the pod that it sets up."""

from __future__ import annotations

from vc_core.spec import AgentError, Capability
from vc_core.testing.agent_suite.subject import LIVES, SETUP, AgentSubject
from vc_core.testing.rules import fails_with, rule, time_limit


class ConnectionRules:
    """Rules of the connection to a guest's agent, and of the pod that it sets up."""

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
