"""Ends machines whose records are unreadable: each available hypervisor plugin looks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from vc_core.engine.state.records import PluginChoice
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.options import instantiate
from vc_core.spec.values import PodRef

_LIMIT_S = 15.0


async def end(catalog: Catalog, pod: PodRef, chosen: Iterable[PluginChoice] = ()) -> list[str]:
    """Ends the machine of a pod and removes its files; returns the failures.

    Args:
        catalog: the catalog of plugins.
        pod: the pod of the machine.
        chosen: plugins that may have started it, with their options. The other installed ones are
            asked, too; if one of those is unusable, that is not reported.
    """
    asked = {choice.name: choice for choice in chosen if choice.family == "hypervisor"}
    problems = []
    for name in (*asked, *(name for name in catalog.names("hypervisor") if name not in asked)):
        try:
            await _end(catalog, pod, asked.get(name, PluginChoice("hypervisor", name)))
        except (
            Exception
        ) as error:  # a plugin may fail in any way; the next one may be that of the machine
            if name in asked:
                reason = error or type(error).__name__
                problems.append(f"the hypervisor {name} could not look for its machine: {reason}")
    return problems


async def _end(catalog: Catalog, pod: PodRef, choice: PluginChoice) -> None:
    """Ends it by the plugin alone, because the other plugins or their options may be damaged."""
    plugin = instantiate(catalog.find(choice.family, choice.name), choice.options)
    async with asyncio.timeout(_LIMIT_S):
        await plugin.vm_destroy(pod=pod)  # type: ignore[attr-defined]
