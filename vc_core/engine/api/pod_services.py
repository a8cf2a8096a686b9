"""The services behind the calls of a pod."""

from __future__ import annotations

from msgspec import Struct

from vc_core.engine.lifecycle.fork import Forks
from vc_core.engine.lifecycle.late_network import LateNetwork
from vc_core.engine.lifecycle.pod import PodLifecycle
from vc_core.engine.resources.host_files import HostFiles
from vc_core.engine.session.remove_damaged import DamagedPodRemover


class PodServices(Struct, frozen=True):
    """The services that implement a pod's calls.

    Attributes:
        lifecycle: starts, stops and deletes pods.
        forks: saves and forks pods.
        late_network: connects running pods to networks.
        damaged: removes pods whose records are unreadable.
        host: files that containers are made from.
    """

    lifecycle: PodLifecycle
    forks: Forks
    late_network: LateNetwork
    damaged: DamagedPodRemover
    host: HostFiles
