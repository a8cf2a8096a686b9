"""The network of a pod, connected while its machine starts. Callers hold the pod's lock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import structs

from vc_core.engine.session.session import Session
from vc_core.engine.state.records import NetworkState, PluggedNic
from vc_core.engine.state.rollback import Rollback
from vc_core.spec.errors import (
    InvalidRequest,
    NetworkError,
    OperationError,
    PluginContractError,
    UnsupportedOperation,
)
from vc_core.spec.events import EventSpec
from vc_core.spec.values import Network, NetworkDenial, Nic, PodOptions, RestoredDevice

log = logging.getLogger(__name__)

_MOST_TOLD = 100


class Connecting:
    """The connection of a pod to its network, while its machine starts."""

    def __init__(self, session: Session, is_early: bool) -> None:
        """Begins.

        Args:
            session: of the pod.
            is_early: whether the machine takes its taps before the network is connected.
        """
        self._nics = asyncio.create_task(_prepare(session, is_early))
        self._network = asyncio.create_task(_connect(session, self._nics))

    async def nics(self) -> tuple[Nic, ...]:
        """Returns the interfaces as soon as the machine can have them; none without a network.

        When this returns, the network may not be connected yet. Nothing passes the taps then.

        Raises:
            NetworkError: the network fails.
        """
        early = await asyncio.shield(self._nics)
        if early is not None:
            return early
        network = await self.network()
        return taps_of(network)

    async def network(self) -> Network | None:
        """Waits for the network; returns it, None for a pod without one.

        Raises:
            NetworkError: the network fails.
        """
        return await asyncio.shield(self._network)

    async def close(self) -> None:
        """Ends what is still at work, and closes the taps of this process."""
        for task in (self._network, self._nics):
            task.cancel()
        early, network = await asyncio.gather(self._nics, self._network, return_exceptions=True)
        nics = [] if isinstance(early, BaseException) or early is None else [*early]
        nics += taps_of(network) if isinstance(network, Network) else ()
        for descriptor in {nic.descriptor for nic in nics}:
            os.close(descriptor)


@asynccontextmanager
async def connecting(
    session: Session, is_early: bool, is_late: bool = False
) -> AsyncIterator[Connecting]:
    """Connects the pod during a block that starts the machine and waits for the network.

    Args:
        session: of the pod.
        is_early: whether the machine takes its taps before the network is connected.
        is_late: whether the machine runs already.
    """
    if session.config.network is not None:
        # First: a later call must find what a call that is killed in between leaves.
        await session.put_state(
            structs.replace(session.state, network=NetworkState(is_late=is_late))
        )
    connection = Connecting(session, is_early)
    try:
        yield connection
    finally:
        await connection.close()


async def plug(session: Session, network: Network | None) -> Network | None:
    """Plugs the interfaces into the machine and stores the published ports; returns the network."""
    if network is not None:
        await _plug(session, network, ())
    return network


async def put_configured(session: Session) -> None:
    """Stores that the guest has configured the interfaces that its machine got late."""
    if session.state.network is not None:
        done = structs.replace(session.state.network, is_late=False)
        await session.put_state(structs.replace(session.state, network=done))


async def unplug(session: Session) -> None:
    """Removes the interfaces from a machine that goes on, as far as the records know them."""
    for nic in () if session.state.network is None else session.state.network.nics:
        await session.hooks.vm_unplug(pod=session.pod, plugged=nic.plugged)
        await session.put_driver_state()


def restored(
    session: Session, nics: tuple[PluggedNic, ...], network: Network | None
) -> Network | None:
    """Returns a network for a machine that starts from a saved one, with that one's interfaces.

    Raises:
        InvalidRequest: it has not as many interfaces as the saved one.
    """
    if network is None:
        return None
    if len(network.interfaces) != len(nics):
        raise InvalidRequest(
            f"the saved machine of pod {session.pod.id} has {len(nics)} network interfaces, and "
            f"its network has {len(network.interfaces)}"
        )
    return _put_in(network, nics)


def cloned(nics: tuple[PluggedNic, ...], network: Network | None) -> Network | None:
    """Like `restored`, for a clone of a template: a MAC address that fits is not changed.

    The network may have further interfaces, which the saved machine has not.
    """
    if network is None:
        return None
    changed = _put_in(network, nics)
    interfaces = tuple(
        structs.replace(one, guest=structs.replace(one.guest, restored_mac=""))
        if one.guest.mac == one.guest.restored_mac
        else one
        for one in changed.interfaces
    )
    return structs.replace(changed, interfaces=interfaces)


def devices(taps: tuple[Nic, ...], nics: tuple[PluggedNic, ...]) -> list[RestoredDevice]:
    """Returns taps as devices of a machine that starts from one with the interfaces `nics`."""
    return [
        RestoredDevice(
            device=structs.replace(tap, id=nic.plugged.id, mac=tap.mac or nic.mac),
            plugged=nic.plugged,
        )
        for tap, nic in zip(taps, nics, strict=True)
    ]


def taps_of(network: Network | None) -> tuple[Nic, ...]:
    """Returns the taps of a network."""
    return () if network is None else tuple(one.nic for one in network.interfaces)


async def put_restored(
    session: Session, network: Network | None, nics: tuple[PluggedNic, ...]
) -> None:
    """Stores the interfaces and ports of a machine that has a `restored` or `cloned` network.

    Plugs what the machine does not have yet.
    """
    if network is None:
        return
    own = tuple(
        PluggedNic(nic.plugged, one.guest.mac)
        for one, nic in zip(network.interfaces, nics, strict=False)
    )
    await _plug(session, network, own)


async def disconnect(session: Session) -> None:
    """Removes the pod's network, if it has one. The machine has ended. May be called twice."""
    if session.config.network is not None:
        try:
            await denials(session)
        except (NetworkError, OperationError) as error:  # it is removed all the same
            log.warning("pod %s: what was refused to it is not known: %s", session.pod.id, error)
        await session.hooks.network_disconnect(pod=session.pod)
    if session.state.network is not None:
        await session.put_state(structs.replace(session.state, network=None))


async def take_loopback(session: Session) -> int | None:
    """Returns the listener for connections to the loopback of the pod's network namespace.

    None when the pod has no network, or one that redirects none, or when that fails, which is
    logged: the pod can do without.
    """
    if session.config.network is not None:
        try:
            return await session.hooks.network_take_loopback(pod=session.pod)
        except UnsupportedOperation:
            return None
        except (NetworkError, OperationError) as error:
            log.warning(
                "pod %s: no port can be forwarded to its loopback, as kubectl does: %s",
                session.pod.id,
                error,
            )
    return None


async def denials(session: Session) -> tuple[NetworkDenial, ...]:
    """Returns what the network of the pod has refused, and sends the events that are due.

    The session is exclusive.

    Raises:
        NetworkError, OperationError: the network does not answer.
    """
    if session.state.network is None:
        return ()
    found = await session.hooks.network_denials(pod=session.pod)
    told = set(session.state.network.told)
    due = {_key(one): one for one in reversed(found) if _key(one) not in told}
    due = dict(itertools.islice(due.items(), _MOST_TOLD - len(told)))
    if due:
        state = structs.replace(session.state.network, told=(*sorted(told), *due))
        await session.put_state(structs.replace(session.state, network=state))
    for one in due.values():
        await session.notify(EventSpec.pod_denied, pod=session.pod, denial=one)
    return found


async def is_connected(session: Session) -> bool:
    """Returns whether the network of a running pod works; True for a pod without one."""
    if session.state.network is None:
        return True
    with contextlib.suppress(NetworkError):  # a failed check counts as not connected
        return await session.hooks.network_is_connected(pod=session.pod)
    return False


def options(session: Session) -> PodOptions:
    """Returns the pod's options, with the network's name servers where the pod names none.

    Where the network filters look-ups, the pod's name servers are asked by it, not by the guest.
    """
    own, state, wanted = session.config.options, session.state.network, session.config.network
    filters = wanted is not None and wanted.policy.has_names
    if state is None or (own.dns.servers and not filters):
        return own
    return structs.replace(own, dns=structs.replace(own.dns, servers=state.name_servers))


async def _plug(session: Session, network: Network, nics: tuple[PluggedNic, ...]) -> None:
    """Plugs all interfaces but the first ones, which are `nics`, and stores all of them."""
    await _put(session, network, nics)
    for interface in network.interfaces[len(nics) :]:
        plugged = await session.hooks.vm_plug(pod=session.pod, device=interface.nic)
        nics = (*nics, PluggedNic(plugged, interface.guest.mac))
        async with Rollback() as rollback:
            rollback.push(session.hooks.vm_unplug, pod=session.pod, plugged=plugged)
            await session.put_driver_state()
            await _put(session, network, nics)


def _put_in(network: Network, nics: tuple[PluggedNic, ...]) -> Network:
    """Returns a network whose first interfaces are `nics` of a saved machine."""
    first = tuple(
        structs.replace(
            one,
            nic=structs.replace(one.nic, id=nic.plugged.id),
            guest=structs.replace(one.guest, restored_mac=nic.mac),
        )
        for one, nic in zip(network.interfaces, nics, strict=False)
    )
    return structs.replace(network, interfaces=(*first, *network.interfaces[len(nics) :]))


async def _put(session: Session, network: Network, nics: tuple[PluggedNic, ...]) -> None:
    servers = [server for one in network.interfaces for server in one.guest.name_servers]
    is_late = session.state.network is not None and session.state.network.is_late
    state = NetworkState(network.ports, tuple(dict.fromkeys(servers)), nics, is_late=is_late)
    await session.put_state(structs.replace(session.state, network=state))


def _key(denial: NetworkDenial) -> str:
    return f"{denial.reason} {denial.protocol} {denial.port} {denial.target}"


async def _prepare(session: Session, is_early: bool) -> tuple[Nic, ...] | None:
    if session.config.network is None or not is_early:
        return None
    with contextlib.suppress(UnsupportedOperation):
        return await session.hooks.network_prepare(pod=session.pod, request=session.config.network)
    return None


async def _connect(
    session: Session, preparing: asyncio.Task[tuple[Nic, ...] | None]
) -> Network | None:
    early = await preparing
    if session.config.network is None:
        return None
    network = await session.hooks.network_connect(pod=session.pod, request=session.config.network)
    taps = tuple(one.nic.descriptor for one in network.interfaces)
    given = tuple(nic.descriptor for nic in early or ())
    if taps[: len(given)] != given:
        for descriptor in {*taps} - {*given}:
            os.close(descriptor)
        wrong = "network_connect returned other taps than network_prepare"
        raise PluginContractError([f"the network plugin breaks the contract: {wrong}"])
    return network
