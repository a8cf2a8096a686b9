"""The host's rules for networks that `vc network create` has made."""

from __future__ import annotations

import hashlib

from vc_network.cni.configuration import NetworkList
from vc_network.cni.own_lists import bridge_of, is_internal, is_own
from vc_network.netns import run


def isolate(network: NetworkList) -> None:
    """Lets pods of an internal network reach each other only, and its name server.

    The rules are those of the host's namespace, where the bridge is; a reboot removes them, so each
    pod of the network sets them again.

    Raises:
        NetworkFailure: nft fails.
    """
    if not (is_own(network) and is_internal(network)):
        return
    bridge = bridge_of(network.name)
    rules = f"""
table inet {_table(network.name)} {{
  chain forward {{
    type filter hook forward priority -10;
    iifname "{bridge}" oifname != "{bridge}" drop
    oifname "{bridge}" iifname != "{bridge}" drop
  }}
  chain input {{
    type filter hook input priority -10;
    iifname "{bridge}" meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname "{bridge}" icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
    iifname "{bridge}" ct state established,related accept
    iifname "{bridge}" drop
  }}
}}
"""
    run("nft", "-f", "-", text=_removal(network.name) + rules)


def remove(name: str) -> None:
    """Removes the rules of a network by its name, where there are any.

    Raises:
        NetworkFailure: nft fails.
    """
    run("nft", "-f", "-", text=_removal(name))


def _table(name: str) -> str:
    return f"vc_network_{hashlib.blake2b(name.encode(), digest_size=6).hexdigest()}"


def _removal(name: str) -> str:
    """Input of nft that removes the table, whether it is there or not."""
    return f"table inet {_table(name)} {{}}\ndelete table inet {_table(name)}\n"
