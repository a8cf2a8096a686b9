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
from vc_core.spec.errors import InvalidRequest, NetworkError, OperationError
from vc_core.spec.events import EventSpec
from vc_core.spec.values import Network, NetworkDenial, PodOptions, RestoredDevice

log = logging.getLogger(__name__)

_MOST_TOLD = 100


@asynccontextmanager
async def connecting(session: Session) -> AsyncIterator[asyncio.Task[Network | None]]:
    """Connects the pod during a block that starts the machine and awaits the task before its end.

    The tap of a task that was not awaited is closed.
    """
    if session.config.network is not None:
        # First: a later call must find what a call that is killed in between leaves.
        await session.put_state(structs.replace(session.state, network=NetworkState()))
    task = asyncio.create_task(_connect(session))
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
        outcome = (await asyncio.gather(task, return_exceptions=True))[0]
        if isinstance(outcome, Network):
            for interface in outcome.interfaces:
                os.close(interface.nic.descriptor)


async def plug(session: Session, network: Network | None) -> Network | None:
    """Plugs the interfaces into the machine and stores the published ports; returns the network."""
    if network is None:
        return None
    nics = []
    for interface in network.interfaces:
        plugged = await session.hooks.vm_plug(pod=session.pod, device=interface.nic)
        await session.put_driver_state()
        nics.append(PluggedNic(plugged, interface.guest.mac))
    await session.put_state(structs.replace(session.state, network=_state(network, tuple(nics))))
    return network


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
    interfaces = tuple(
        structs.replace(
            one,
            nic=structs.replace(one.nic, id=nic.plugged.id),
            guest=structs.replace(one.guest, restored_mac=nic.mac),
        )
        for one, nic in zip(network.interfaces, nics, strict=True)
    )
    return structs.replace(network, interfaces=interfaces)


def cloned(
    session: Session, nics: tuple[PluggedNic, ...], network: Network | None
) -> Network | None:
    """Like `restored`, for a clone of a template: a MAC address that fits is not changed."""
    changed = restored(session, nics, network)
    if changed is None:
        return None
    interfaces = tuple(
        structs.replace(one, guest=structs.replace(one.guest, restored_mac=""))
        if one.guest.mac == one.guest.restored_mac
        else one
        for one in changed.interfaces
    )
    return structs.replace(changed, interfaces=interfaces)


def devices(network: Network | None, nics: tuple[PluggedNic, ...]) -> list[RestoredDevice]:
    """Returns the interfaces of a `restored` network as devices of the machine."""
    if network is None or not nics:
        return []
    return [
        RestoredDevice(device=one.nic, plugged=nic.plugged)
        for one, nic in zip(network.interfaces, nics, strict=True)
    ]


async def put_restored(
    session: Session, network: Network | None, nics: tuple[PluggedNic, ...]
) -> None:
    """Stores the interfaces and ports of a machine that has a `restored` network."""
    if network is None:
        return
    own = tuple(
        PluggedNic(nic.plugged, one.guest.mac)
        for one, nic in zip(network.interfaces, nics, strict=True)
    )
    await session.put_state(structs.replace(session.state, network=_state(network, own)))


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


def _state(network: Network, nics: tuple[PluggedNic, ...]) -> NetworkState:
    servers = [server for one in network.interfaces for server in one.guest.name_servers]
    return NetworkState(network.ports, tuple(dict.fromkeys(servers)), nics)


def _key(denial: NetworkDenial) -> str:
    return f"{denial.reason} {denial.protocol} {denial.port} {denial.target}"


async def _connect(session: Session) -> Network | None:
    if session.config.network is None:
        return None
    return await session.hooks.network_connect(pod=session.pod, request=session.config.network)
