"""Ends machines and networks whose records are unreadable, by all available plugins."""

from __future__ import annotations

from collections.abc import Collection

from vc_core.driver_kit.timeouts import timeout_after
from vc_core.engine.state.records import PluginChoice
from vc_core.engine.wiring.catalog import Catalog
from vc_core.engine.wiring.options import instantiate
from vc_core.spec.values import PodRef

_LIMIT_S = 15.0
_ENDS = (
    ("hypervisor", "vm_destroy"),
    ("network", "network_disconnect"),
)  # a machine uses its network


async def end(catalog: Catalog, pod: PodRef, chosen: Collection[PluginChoice] = ()) -> list[str]:
    """Ends the machine of a pod, then its network, and removes their files; returns the failures.

    Args:
        catalog: the catalog of plugins.
        pod: the pod of the machine.
        chosen: plugins that may have started it, with their options. The other installed ones are
            asked, too; if one of those is unusable, that is not reported.
    """
    problems = []
    for family, operation in _ENDS:
        asked = {choice.name: choice for choice in chosen if choice.family == family}
        for name in (*asked, *(name for name in catalog.names(family) if name not in asked)):
            try:
                await _end(catalog, pod, asked.get(name, PluginChoice(family, name)), operation)
            except (
                Exception
            ) as error:  # a plugin may fail in any way, and the next one may be the right one
                if name in asked:
                    reason = error or type(error).__name__
                    problems.append(
                        f"the {family} {name} could not look for what the pod has: {reason}"
                    )
    return problems


async def _end(catalog: Catalog, pod: PodRef, choice: PluginChoice, operation: str) -> None:
    """Ends it by the plugin alone, because the other plugins or their options may be damaged."""
    plugin = instantiate(catalog.find(choice.family, choice.name), choice.options)
    async with timeout_after(_LIMIT_S):
        await getattr(plugin, operation)(pod=pod)
