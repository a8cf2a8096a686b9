"""Builds a pod's configuration from the caller's arguments and the configuration file."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Mapping

from msgspec import structs

from vc_core.defaults import PodDefaults, Start
from vc_core.engine.state.boot_assets import Assets
from vc_core.engine.state.boot_assets import check as check_assets
from vc_core.engine.state.ids import annotated, checked, checked_hostname, fresh
from vc_core.engine.state.records import PluginChoice, PodConfig
from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import NetworkRequest, PodOptions

_RESOLV_WORD = r"\S+"
# Python takes anything behind the % of an IPv6 address, also the end of a line.
_ADDRESS = r"[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?"


def pod_config(
    plugins: tuple[PluginChoice, ...],
    defaults: PodDefaults,
    *,
    pod_id: str,
    vcpus: int | None,
    memory_mib: int | None,
    hostname: str,
    annotations: Mapping[str, str],
    options: PodOptions,
    assets: Assets,
    start: Start | None,
    can_quiesce: bool | None,
    image: str,
    network: NetworkRequest | None,
) -> PodConfig:
    """Returns the configuration of a new pod. The arguments are those of `Runtime.create`.

    Raises:
        InvalidRequest: an id, size, option or file is not valid.
    """
    name = checked("pod", pod_id) if pod_id else fresh()
    size = structs.replace(
        defaults, vcpus=vcpus or defaults.vcpus, memory_mib=memory_mib or defaults.memory_mib
    )
    wrong = [] if vcpus is None or vcpus > 0 else ["pod.vcpus: must be at least 1"]
    if problems := [*size.problems(), *wrong]:
        raise InvalidRequest("; ".join(problem.removeprefix("pod.") for problem in problems))
    _check_options(options)
    check_assets(assets)
    if can_quiesce is None:
        can_quiesce = defaults.can_quiesce
    return PodConfig(
        id=name,
        plugins=plugins,
        vcpus=size.vcpus,
        memory_mib=size.memory_mib,
        hostname=checked_hostname(hostname) or name,
        created_ns=time.time_ns(),
        annotations=annotated({}, annotations),
        options=structs.replace(options, can_quiesce=can_quiesce),
        assets=assets,
        disable_block_device_use=defaults.disable_block_device_use,
        start=start or defaults.start,
        image=image,
        secret_paths=defaults.secret_paths,
        network=network,
    )


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return re.fullmatch(_ADDRESS, text) is not None


def _check_options(options: PodOptions) -> None:
    for server in options.dns.servers:
        if not _is_address(server):
            raise InvalidRequest(f"the name server {server!r} is not an IP address")
    for entry in options.hosts:
        if not entry.name or not checked_hostname(entry.name):
            raise InvalidRequest("an entry of /etc/hosts has no name; give NAME:ADDRESS")
        if not _is_address(entry.address):
            raise InvalidRequest(
                f"the address {entry.address!r} of {entry.name} is not an IP address"
            )
    for word in (*options.dns.searches, *options.dns.options):
        if not re.fullmatch(_RESOLV_WORD, word):
            raise InvalidRequest(f"{word!r} is not a word of resolv.conf(5)")
    if options.reserved.vcpus < 0 or options.reserved.memory_bytes < 0:
        raise InvalidRequest(f"{options.reserved} must not be negative")
    if options.shared_shm_bytes < 0:
        raise InvalidRequest(
            f"shared_shm_bytes is {options.shared_shm_bytes}; it must be 0 (not shared) or more"
        )
