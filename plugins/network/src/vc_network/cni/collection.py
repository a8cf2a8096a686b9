"""Removes from a network what pods that are gone have left in it.

A pod of ours is gone from its network when its namespace is: after a reboot, or because somebody
else has removed it. As a rule the pod's next call removes the rest. This is for pods that have no
next call, because their records are lost: else their addresses and ports are taken for ever.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from vc_network.cni.cache import NETNS, Attachment, Cache
from vc_network.cni.chain import Chain
from vc_network.cni.configuration import NetworkList, parse
from vc_network.cni.locks import LIMIT_S, locked
from vc_network.cni.names import Names
from vc_network.errors import NetworkFailure

log = logging.getLogger(__name__)

ChainOf = Callable[[NetworkList, Attachment], Chain]


async def collect(
    cache: Cache, network: NetworkList, chain_of: ChainOf, limit_s: float = LIMIT_S
) -> None:
    """Calls DEL for the attachments of pods that are gone, and then GC if there were any.

    What a plugin refuses is logged: its pod's removal is not the caller's task.

    Args:
        cache: where attachments are.
        network: the network, as it is configured now.
        chain_of: returns the plugins for an attachment.
        limit_s: longest wait for other processes in seconds.

    Raises:
        NetworkFailure: another process adds or removes pods for too long.
    """
    if not _gone(cache, network.name):
        return
    async with await locked(cache.calls, exclusive=True, limit_s=limit_s):
        gone = _gone(cache, network.name)  # as long as the lock is held, nobody adds or removes
        for one in gone:
            try:
                await chain_of(parse(one.config), one).delete(one.result)
                await Names(one.network).remove(one.container)
            except NetworkFailure as error:
                log.warning("container %s is gone, and is not removed: %s", one.container, error)
            else:
                cache.remove(one.network, one.container)
        if not gone:
            return
        try:
            await chain_of(network, gone[0]).collect(cache.identities(network.name))
        except NetworkFailure as error:
            log.warning("%s", error)


def _gone(cache: Cache, network: str) -> list[Attachment]:
    """Returns the attachments of ours without a namespace."""
    if not _sees_namespaces():
        return []
    found = []
    for container in cache.containers(network):
        if not Path(f"{NETNS}{container}").exists():
            one = cache.read(network, container)
            if one is not None and one.network == network and one.netns.startswith(NETNS):
                found.append(one)
    return found


def _sees_namespaces() -> bool:
    """Returns whether this process has the host's folder of namespaces.

    One in a mount namespace with a folder of its own would take running pods for gone. A process
    that may not look at the host's is not root, and calls no plugin.
    """
    own = Path(NETNS).parent
    host = Path("/proc/1/root", *own.parts[1:])
    try:
        return host.samefile(own) if host.exists() else not own.exists()
    except FileNotFoundError:  # this process has none
        return False
    except PermissionError:
        return True
