"""Options of the table [hypervisor.acme]."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AcmeOptions:
    """How sandboxes are made.

    Attributes:
        unshare: util-linux's program, a name on the path or a path.
        network: whether containers have the host's network; otherwise they have none.
    """

    unshare: str = "unshare"
    network: bool = False
