"""Machines of which nobody can read any more how to find them: each hypervisor that is here looks
for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from vc_core.engine.state.records import PluginChoice
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.options import instantiate
from vc_core.spec.values import PodRef

_LIMIT_S = 15.0


async def end(catalog: Catalog, pod: PodRef, chosen: Iterable[PluginChoice] = ()) -> list[str]:
    """Ends whatever machine a pod has and removes its files; tells what did not work.

    Args:
        catalog: of plugins.
        pod: whose machine it is.
        chosen: plugins that may have made it, with their options; those that are installed are
            asked beside them, and only of these it is no news when they cannot be used.
    """
    asked = {choice.name: choice for choice in chosen if choice.family == "hypervisor"}
    problems = []
    for name in (*asked, *(name for name in catalog.names("hypervisor") if name not in asked)):
        try:
            await _end(catalog, pod, asked.get(name, PluginChoice("hypervisor", name)))
        except (
            Exception
        ) as error:  # a plugin may fail in any way, and the next one may be that of the machine
            if name in asked:
                reason = error or type(error).__name__
                problems.append(f"the hypervisor {name} could not look for its machine: {reason}")
    return problems


async def _end(catalog: Catalog, pod: PodRef, choice: PluginChoice) -> None:
    """By the plugin alone: what it would be wired with may be what is damaged."""
    plugin = instantiate(catalog.find(choice.family, choice.name), choice.options)
    async with asyncio.timeout(_LIMIT_S):
        await plugin.vm_destroy(pod=pod)  # type: ignore[attr-defined]
