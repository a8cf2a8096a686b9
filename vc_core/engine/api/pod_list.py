"""The list of pods for a process that needs nothing else: it loads no drivers of machines."""

from __future__ import annotations

from contextlib import AsyncExitStack

from vc_core.config import Config
from vc_core.engine.api.pod_listing import Ask, Listing, PodStatus, listing
from vc_core.engine.wiring import assemble
from vc_core.engine.wiring.catalog import Catalog


async def list_pods(config: Config, ask_guests: bool = False) -> Listing:
    """Returns the same as `Runtime.list`, without a runtime unless a pod must be asked.

    Args:
        config: the configuration.
        ask_guests: as for `Runtime.list`.

    Raises:
        ConfigError, PluginError, PluginContractError: of the store and the observers; of other
            plugins when a pod must be asked.
    """
    catalog = Catalog()
    async with AsyncExitStack() as stack:

        def make_ask() -> Ask:
            from vc_core.engine.api.pod_views import closed_after
            from vc_core.engine.api.runtime import Runtime

            runtime = Runtime(config, catalog)
            stack.push_async_exit(runtime)

            async def ask(pod_id: str) -> PodStatus:
                return await closed_after(await runtime.get(pod_id), ask_guests)

            return ask

        return await listing(assemble.wire_storage(config, catalog).hooks, make_ask, ask_guests)
