"""The wired plugins of one machine, and the one connection to the agent in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct, field

from vc_core.defaults import Deadlines
from vc_core.driver_kit.timeouts import timeout_after
from vc_core.engine.state.ids import fresh
from vc_core.engine.wiring.wiring import Wiring
from vc_core.spec.errors import (
    AgentRefusal,
    AlreadyExists,
    HypervisorError,
    InvalidRequest,
    NotFound,
    OperationError,
    OperationTimeout,
    StateError,
)
from vc_core.spec.hooks import Hooks
from vc_core.spec.values import Channel, DriverState, GuestContainerStatus, PodRef

log = logging.getLogger(__name__)


class Connection(Struct):
    """The wired plugins of one machine, with at most one connection to its agent.

    Attributes:
        wiring: the plugins.
        pod: the pod of the machine.
        deadlines: deadlines of operations.
        driver_state: the hypervisor plugin's state of the machine; None when it has none.
        boot: identifies the boot of the machine; another boot has another agent.
        channel: the channel of the connection; None without a connection.
    """

    wiring: Wiring
    pod: PodRef
    deadlines: Deadlines
    driver_state: DriverState | None = None
    boot: str = ""
    channel: Channel | None = None
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def hooks(self) -> Hooks:
        """The machine's operations."""
        return self.wiring.hooks

    async def open(self, limit_s: float | None = None, name: str = "") -> None:
        """Connects to the agent, unless it is connected.

        Opens a channel of the hypervisor and connects the agent through it. Fails at once when the
        machine ends meanwhile.

        Args:
            limit_s: deadline for the channel in seconds, including the boot of the guest;
                `deadlines.default` when None.
            name: name of the channel; generated when empty.

        Raises:
            OperationTimeout: the guest did not open the channel in time.
            HypervisorError: the machine ended meanwhile.
        """
        async with self._opening:  # tasks that share the pod's lock share the connection, too
            if self.channel is not None:
                return
            channel = await self._open_channel(limit_s, name or f"vc.agent.{fresh()}")
            try:
                await self._connect_agent(channel)
            except BaseException:
                try:
                    # It may have connected just when this task was cancelled.
                    await self.hooks.agent_disconnect(pod=self.pod)
                    await self.hooks.vm_close_channel(pod=self.pod, channel=channel)
                except OperationError as error:
                    # Not the reason: the next one to open a channel sweeps this one.
                    log.info("a channel of pod %s could not be closed: %s", self.pod.id, error)
                raise
            self.channel = channel

    async def close(self) -> None:
        """Ends the connection and removes its channel.

        A machine that is gone is no error.
        """
        channel = self.channel
        if channel is not None:
            await self.hooks.agent_disconnect(pod=self.pod)
            self.channel = None
            await self.hooks.vm_close_channel(pod=self.pod, channel=channel)

    async def list_containers(self) -> tuple[GuestContainerStatus, ...]:
        """All containers that the guest has. The connection must be open.

        Raises:
            AgentError: as `agent_list_containers`; whatever the guest answers, nothing else.
        """
        with self._about_pod():
            return await self.hooks.agent_list_containers(pod=self.pod)

    @contextmanager
    def _about_pod(self) -> Iterator[None]:
        """Turn the guest's errors about a container or a process into an AgentRefusal.

        For calls that name neither. Passed on, such an error would say that the pod does not exist
        or does not run, and a hostile guest would disappear from every list.
        """
        try:
            yield
        except (NotFound, AlreadyExists, InvalidRequest, StateError) as error:
            raise AgentRefusal(str(error), pod=self.pod.id) from error

    async def _open_channel(self, limit_s: float | None, name: str) -> Channel:
        limit = limit_s or self.deadlines.default
        try:
            async with timeout_after(limit):
                return await self.hooks.vm_open_channel(pod=self.pod, name=name)
        except TimeoutError as error:
            setting = "boot" if limit_s else "default"
            raise OperationTimeout(limit, "vm_open_channel", "", self.pod.id, setting) from error

    async def _connect_agent(self, channel: Channel) -> None:
        answer = asyncio.ensure_future(self.hooks.agent_connect(pod=self.pod, channel=channel))
        end = asyncio.ensure_future(self.hooks.vm_wait(pod=self.pod))
        try:
            await asyncio.wait([answer, end], return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                raise HypervisorError(
                    f"the machine ended: {end.result().reason}", "vm_wait", "", self.pod.id
                )
            with self._about_pod():
                answer.result()
        finally:
            for task in (answer, end):
                task.cancel()
            await asyncio.gather(answer, end, return_exceptions=True)
