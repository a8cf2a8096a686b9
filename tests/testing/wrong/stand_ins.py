"""Agents whose stand-ins are wrong: programs that have nothing to do with the process.

And one that leaves the generic stand-in without the streams of a container that is created.
"""

from __future__ import annotations

from tests.testing.wrong import table
from tests.testing.wrong.agents import AGENTS
from vc_core.spec import AgentError, Capability, hookimpl
from vc_core.testing.mocks import MockAgent

breaks = table(AGENTS)


class StandingIn(MockAgent):
    """Its stand-in reports that it is connected, and runs `script`."""

    script = "exec sleep 1000"

    @hookimpl
    async def agent_capabilities(self, pod):
        return await super().agent_capabilities(pod) | {Capability.STAND_IN}

    @hookimpl
    async def agent_stand_in(self, pod, channel, container_id, token, role):
        return ("/bin/sh", "-c", f"printf ok >&3; exec 3>&-; {self.script}")


@breaks("test_a_process_has_streams_before_its_start")
class ConnectsTheStartedOnly(MockAgent):
    @hookimpl
    async def agent_attach(self, pod, container_id, token):
        if not self._container(await self._machine(pod), container_id).is_started:
            raise AgentError("the process was not started")
        return await super().agent_attach(pod, container_id, token)


@breaks("test_a_stand_in_carries_the_streams")
class TellsOther(StandingIn):
    script = "cat >/dev/null; echo other"


@breaks("test_a_stand_in_forwards_signals")
class KeepsSignals(StandingIn):
    script = "trap '' USR1; echo ready; exec sleep 1000"


@breaks("test_a_stand_in_ends_with_the_machine")
class OutlivesTheMachine(StandingIn):
    pass


@breaks("test_killing_a_stand_in_kills_the_process")
class LeavesTheProcess(StandingIn):
    pass


@breaks("test_a_connection_that_the_guest_refuses_is_reset")
class TakesNoConnection(StandingIn):
    pass


@breaks("test_a_machine_ends_after_the_stand_in")
class LeavesTheMachine(StandingIn):
    pass


@breaks("test_a_stand_in_starts_the_container_once_when_asked")
class StartsNothing(StandingIn):
    @hookimpl
    async def agent_capabilities(self, pod):
        return await super().agent_capabilities(pod) | {Capability.STARTER}
