"""Connects a pod to a network after the start of its machine."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from msgspec import structs

from vc_core.engine.lifecycle import machine
from vc_core.engine.session import pod_network
from vc_core.engine.session.session import Session
from vc_core.engine.session.sessions import Sessions
from vc_core.engine.state.records import PodConfig
from vc_core.engine.state.rollback import Rollback
from vc_core.engine.state.states import State, require
from vc_core.spec.errors import VcError

log = logging.getLogger(__name__)


class LateNetwork:
    """Connects running pods whose machines have no network interface."""

    def __init__(
        self,
        configured: Callable[[PodConfig, str], PodConfig],
        check: Callable[[PodConfig], Awaitable[None]],
    ) -> None:
        """Creates a `LateNetwork`.

        Args:
            configured: returns the configuration of a pod with a network, as
                `network_choice.of_running`.
            check: refuses a configuration whose plugins do not support its network, as
                `network_choice.check`.
        """
        self._configured = configured
        self._check = check

    async def connect(self, sessions: Sessions, network: str) -> None:
        """Connects a pod, plugs the interfaces and has the guest configure them.

        After a failure the pod is as before. A call that is killed leaves a pod that is in the
        network, with an interface or without one: a further call connects it anew, and its end
        removes what there is.

        Raises:
            StateError: the pod does not run.
            InvalidRequest: it cannot have this network, or has another one.
            NetworkError, HypervisorError, AgentError: a step failed.
        """
        async with sessions.open(exclusive=True) as session:
            about = f"pod {session.pod.id}"
            require(about, "connect it to a network", session.state.state, [State.RUNNING])
            former = session.config
            config = self._configured(former, network)
            before = session.state.network
            if before is not None and before.nics and not before.is_late:
                return
            await self._check(config)
            async with Rollback() as rollback:
                rollback.push(_undo, sessions, session, former)
                if config != former:
                    await sessions.rewire(session, config)
                await pod_network.unplug(session)  # of a call that was killed
                async with pod_network.connecting(session, False, is_late=True) as connecting:
                    found = await pod_network.plug(session, await connecting.network())
                await session.connection.open()
                setup = machine.identity(session, found)
                await session.hooks.agent_set_up_pod(pod=session.pod, setup=setup)
                await pod_network.put_configured(session)


async def _undo(sessions: Sessions, session: Session, former: PodConfig) -> None:
    try:
        await pod_network.unplug(session)
    except VcError as error:  # the guest need not release it; it is cut off below
        log.warning("pod %s keeps an interface without a network: %s", session.pod.id, error)
    await pod_network.disconnect(session)
    # Also where the records do not know what has been stored; without that, the pod's end would
    # look for a network that the configuration does not have.
    await session.put_state(structs.replace(session.state, network=None))
    await sessions.rewire(session, former)
